/** Twinloop on Node: SQLite, HTTP, local sockets, lifecycle, and everything composed. */
export * from "./control/index.ts"
export * from "./crypto/index.ts"
export * from "./http/index.ts"
export * from "./lifecycle/index.ts"
export * from "./push/index.ts"
export * from "./sqlite/index.ts"
export * from "./wake/index.ts"
export * as Twinloop from "./Twinloop.ts"
