/**
 * The homeserver over Node's HTTP client (undici): what applications provide.
 *
 * Gotchas: the client is undici and not `fetch`, since it never follows redirects and closes the connection as soon as a
 * call is interrupted; about a third faster, too.
 */
import { Layer } from "effect"
import type { HttpClient } from "effect/http"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import type { Homeserver, StoreError } from "@twinloop/core"
import type { InvalidHomeserverUrl } from "./HomeserverUrl.ts"
import * as HttpHomeserver from "./HttpHomeserver.ts"
import type { RefreshLock } from "./RefreshLock.ts"
import type { SessionStore } from "./SessionStore.ts"
import type { NotLoggedIn } from "./SessionTokens.ts"

/** Node's HTTP client, with connections of its own that close with the layer. Also what `Login` needs. */
export const layerHttpClient: Layer.Layer<HttpClient.HttpClient> = NodeHttpClient.layerUndici

/** The homeserver of the stored login; see `SessionTokens.open` for the errors. */
export const layer: Layer.Layer<
  Homeserver.Homeserver,
  NotLoggedIn | InvalidHomeserverUrl | StoreError.StoreError,
  SessionStore | RefreshLock
> = HttpHomeserver.layer.pipe(Layer.provide(layerHttpClient))
