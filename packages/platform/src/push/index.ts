/** Pushes: the durable queue, and the gateway that a homeserver sends them to. */
export * as PushGateway from "./PushGateway.ts"
export * as PushQueue from "./PushQueue.ts"
export * as PushWorker from "./PushWorker.ts"
