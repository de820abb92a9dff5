/** The concurrent part of Twinloop: actors that interpret the machines of `@twinloop/core`. */
export * as Actor from "./Actor.ts"
export * as ExtensionSync from "./ExtensionSync.ts"
export * as Inbox from "./Inbox.ts"
export * as LeaseKeeper from "./LeaseKeeper.ts"
export * as MainSync from "./MainSync.ts"
export * as Metrics from "./Metrics.ts"
export * as Suspendables from "./Suspendables.ts"
export * as SyncService from "./SyncService.ts"
