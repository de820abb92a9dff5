/**
 * What the homeserver model tells a push gateway: about an event, in both formats, or about the unread count alone.
 *
 * Gotchas: names are those of the moment of sending, Synapse's those of the event's. A rule's tweaks only come in the full
 * format, though `prio` depends on them in both.
 *
 * Source: push gateway API; Synapse's `push/httppusher.py` and `push/presentable_names.py`.
 */
import { Predicate } from "effect"
import type { JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import { objectAt } from "./JsonShape.ts"
import type { PushAction, Room, StoredEvent, StoredPusher } from "./ModelState.ts"

const stateOf = (room: Room, type: string, stateKey = ""): StoredEvent | undefined =>
  room.state.get(type)?.get(stateKey)

/** A string member of a state event's content; absent and empty are the same. */
const textOf = (stored: StoredEvent | undefined, member: string): string => {
  const text = stored?.event.content[member]
  return Predicate.isString(text) ? text : ""
}

/** What a member is called in a room. */
const memberName = (room: Room, userId: UserId): string =>
  textOf(stateOf(room, "m.room.member", userId), "displayname") || userId

/** The room's name for a user who is in it; `undefined` for a nameless one with one other member, or none yet. */
const roomName = (room: Room, me: UserId): string | undefined => {
  const own = textOf(stateOf(room, "m.room.name"), "name") || textOf(stateOf(room, "m.room.canonical_alias"), "alias")
  if (own !== "") return own
  if (room.members.get(me) === "invite") return undefined
  const others = [...room.members].flatMap(([userId, membership]) =>
    userId !== me && (membership === "join" || membership === "invite") ? [memberName(room, userId)] : []
  )
  if (others.length < 2) return others.length === 0 ? "Empty Room" : undefined
  return others.length === 2 ? others.join(" and ") : `${others[0]} and ${others.length - 1} others`
}

/** The gateway's part of the pusher: `data` goes along, but for the URL. */
const deviceOf = (pusher: StoredPusher, tweaks: JsonObject): JsonObject => {
  const { url: _, ...data } = objectAt(pusher.json, "data")
  return {
    app_id: pusher.appId,
    pushkey: pusher.pushKey,
    pushkey_ts: Math.floor(pusher.setAtMillis / 1000),
    data,
    ...(Object.keys(tweaks).length === 0 ? {} : { tweaks })
  }
}

const membershipOf = ({ event }: StoredEvent, me: UserId): JsonObject =>
  event.type === "m.room.member" && event.state_key !== undefined
    ? { membership: event.content.membership, user_is_target: event.state_key === me }
    : {}

/** The members that the full format has more. */
const details = ({ room, stored }: PushAction, me: UserId): JsonObject => {
  const { content, event_id, sender, type } = stored.event
  const name = roomName(room, me)
  return {
    id: event_id,
    type,
    sender,
    ...membershipOf(stored, me),
    ...(Object.keys(content).length === 0 ? {} : { content }),
    sender_display_name: memberName(room, sender),
    ...(name === undefined ? {} : { room_name: name })
  }
}

/** The push about an event. `unread` is the user's unread count. */
export const eventBody = (me: UserId, pusher: StoredPusher, action: PushAction, unread: number): JsonObject => {
  const { event } = action.stored
  const { highlight, sound } = action.tweaks
  const isIdOnly = objectAt(pusher.json, "data").format === "event_id_only"
  return {
    notification: {
      event_id: event.event_id,
      room_id: action.room.roomId,
      prio: event.type === "m.room.encrypted" || highlight || sound ? "high" : "low",
      counts: { unread },
      ...(isIdOnly ? {} : details(action, me)),
      devices: [deviceOf(pusher, isIdOnly ? {} : action.tweaks)]
    }
  }
}

/** The push about the unread count alone, as Synapse has it: with members of an event that are empty. */
export const badgeBody = (pusher: StoredPusher, unread: number): JsonObject => ({
  notification: { id: "", type: null, sender: "", counts: { unread }, devices: [deviceOf(pusher, {})] }
})
