/**
 * Where a homeserver sends pushes for a device, and what it sends there.
 *
 * Includes how a pusher is spelled in `GET /pushers` and `POST /pushers/set`.
 *
 * Source: client-server API, "Push notifications"; push gateway API, `POST /_matrix/push/v1/notify`.
 */
import { Option, Schema } from "effect"
import type { JsonObject } from "./MatrixEvent.ts"

/** The path that a push gateway's URL must have; Synapse refuses any other. Push gateway API. */
export const NOTIFY_PATH = "/_matrix/push/v1/notify"

/** What names a pusher among those of an account. */
export interface PusherId {
  /** At most 64 characters, reverse-DNS by custom. */
  readonly appId: string
  /** At most 512 bytes; unguessable, since whoever knows it can push. */
  readonly pushKey: string
}

/** An HTTP pusher as the homeserver has it. */
export interface Pusher extends PusherId {
  readonly appDisplayName: string
  readonly deviceDisplayName: string
  /** Language of what the homeserver words itself, such as "en". */
  readonly lang: string
  readonly profileTag?: string
  /** The gateway's address, its path {@link NOTIFY_PATH}. */
  readonly url: string
  /** `event_id_only`: neither content nor names pass through the gateway. `full`: what the homeserver can see of them does. */
  readonly format: "event_id_only" | "full"
  /** Members of the pusher's `data` that are sent along to the gateway with each push. */
  readonly data?: JsonObject
}

/** The members of a pusher on the wire; what has no `url` is no HTTP pusher. */
const Wire = Schema.Struct({
  kind: Schema.Literal("http"),
  app_id: Schema.String,
  pushkey: Schema.String,
  app_display_name: Schema.String,
  device_display_name: Schema.String,
  lang: Schema.String,
  profile_tag: Schema.optionalKey(Schema.NullOr(Schema.String)),
  data: Schema.Record(Schema.String, Schema.Unknown)
})

const decodeWire = Schema.decodeUnknownOption(Wire)

/** The body of `POST /pushers/set` without `append`. `url` and `format` win over members of `data` by these names. */
export const toWire = (pusher: Pusher): JsonObject => {
  const { format: _, ...data } = pusher.data ?? {}
  return {
    kind: "http",
    app_id: pusher.appId,
    pushkey: pusher.pushKey,
    app_display_name: pusher.appDisplayName,
    device_display_name: pusher.deviceDisplayName,
    lang: pusher.lang,
    ...(pusher.profileTag === undefined ? {} : { profile_tag: pusher.profileTag }),
    // The specification has a name for the one format only; the other one is its absence.
    data: { ...data, url: pusher.url, ...(pusher.format === "event_id_only" ? { format: pusher.format } : {}) }
  }
}

/** The body of `POST /pushers/set` that removes a pusher. */
export const removalToWire = ({ appId, pushKey }: PusherId): JsonObject => ({
  kind: null,
  app_id: appId,
  pushkey: pushKey
})

/** Reads a pusher of `GET /pushers`; `undefined` for one of another kind, or with members missing. An empty profile tag is none. */
export const fromWire = (json: unknown): Pusher | undefined => {
  const wire = Option.getOrUndefined(decodeWire(json))
  const { url, format, ...data } = wire?.data ?? {}
  if (wire === undefined || typeof url !== "string") return undefined
  return {
    appId: wire.app_id,
    pushKey: wire.pushkey,
    appDisplayName: wire.app_display_name,
    deviceDisplayName: wire.device_display_name,
    lang: wire.lang,
    ...(wire.profile_tag ? { profileTag: wire.profile_tag } : {}),
    url,
    format: format === "event_id_only" ? "event_id_only" : "full",
    ...(Object.keys(data).length === 0 ? {} : { data })
  }
}

/** Reads the `pushers` of `GET /pushers`, for adapters: the HTTP pushers among them, in the homeserver's order. */
export const httpPushers = (pushers: ReadonlyArray<unknown>): ReadonlyArray<Pusher> =>
  pushers.flatMap((json) => fromWire(json) ?? [])
