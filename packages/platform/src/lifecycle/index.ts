/** Stopping, suspending and resuming a process as its host wants. */
export * as Lifecycle from "./Lifecycle.ts"
export * as LifecycleSource from "./LifecycleSource.ts"
