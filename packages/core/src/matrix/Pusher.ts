/**
 * Where a homeserver sends pushes for a device, and what it sends there.
 *
 * Source: client-server API, "Push notifications"; push gateway API, `POST /_matrix/push/v1/notify`.
 */
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
