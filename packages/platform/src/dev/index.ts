/** The dev homeserver: the homeserver model behind real HTTP. For development and tests only. */
export * as DevHomeserver from "./DevHomeserver.ts"
