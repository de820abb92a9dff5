/**
 * The homeserver over Node's HTTP client, for programs that need nothing else of an account: tests, the story's sender.
 *
 * Not here: what applications provide (`Twinloop.layer`).
 */
import { Layer } from "effect"
import type { Homeserver, StoreError } from "@twinloop/core"
import type { InvalidHomeserverUrl } from "./HomeserverUrl.ts"
import * as HttpHomeserver from "./HttpHomeserver.ts"
import { HttpSockets } from "./HttpSockets.ts"
import type { HttpTransport } from "./HttpTransport.ts"
import type { RefreshLock } from "./RefreshLock.ts"
import type { SessionStore } from "./SessionStore.ts"
import type { NotLoggedIn } from "./SessionTokens.ts"

/** Node's HTTP client, with connections of its own that close with the layer. Also what `Login` needs. */
export const layerTransport: Layer.Layer<HttpTransport> = HttpSockets.layer

/** The homeserver of the stored login; see `SessionTokens.open` for the errors. */
export const layer: Layer.Layer<
  Homeserver.Homeserver,
  NotLoggedIn | InvalidHomeserverUrl | StoreError.StoreError,
  SessionStore | RefreshLock
> = HttpHomeserver.layer.pipe(Layer.provide(layerTransport))
