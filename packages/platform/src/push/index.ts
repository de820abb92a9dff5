/** Pushes: the durable queue, the gateway that a homeserver sends them to, and the processes that show them. */
export * as PushDaemon from "./PushDaemon.ts"
export * as PushGateway from "./PushGateway.ts"
export * as PushQueue from "./PushQueue.ts"
export * as PushWorker from "./PushWorker.ts"
