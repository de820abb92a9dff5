/**
 * The push rules that a new account has. Source: client-server API, "Predefined Rules"; the order of Synapse 1.163.
 *
 * Includes the rules about mentions in the text, which version 1.17 of the spec has dropped and Synapse still serves, and
 * MSC3930's about answers to polls. Without the other ones that Synapse has behind experimental switches.
 *
 * Not here: what a rule means (`matrix/PushRules.ts`).
 */
import type { JsonObject, UserId } from "../../matrix/MatrixEvent.ts"

const notify = ["notify"]
const ring = ["notify", { set_tweak: "sound", value: "ring" }]
const sound = ["notify", { set_tweak: "sound", value: "default" }]
const highlight = ["notify", { set_tweak: "highlight" }]

const is = (key: string, pattern: string): JsonObject => ({ kind: "event_match", key, pattern })
const oneToOne: JsonObject = { kind: "room_member_count", is: "2" }

const rule = (
  name: string,
  conditions: ReadonlyArray<JsonObject>,
  actions: ReadonlyArray<unknown>,
  enabled = true
): JsonObject => ({ rule_id: `.m.rule.${name}`, default: true, enabled, conditions, actions })

const override = (userId: UserId): ReadonlyArray<JsonObject> => [
  rule("master", [], [], false),
  rule("suppress_notices", [is("content.msgtype", "m.notice")], []),
  rule(
    "invite_for_me",
    [is("type", "m.room.member"), is("content.membership", "invite"), is("state_key", userId)],
    sound
  ),
  rule("member_event", [is("type", "m.room.member")], []),
  rule(
    "is_user_mention",
    [{ kind: "event_property_contains", key: "content.m\\.mentions.user_ids", value: userId }],
    [...sound, { set_tweak: "highlight" }]
  ),
  rule("contains_display_name", [{ kind: "contains_display_name" }], [...sound, { set_tweak: "highlight" }]),
  rule(
    "is_room_mention",
    [
      { kind: "event_property_is", key: "content.m\\.mentions.room", value: true },
      { kind: "sender_notification_permission", key: "room" }
    ],
    highlight
  ),
  rule("roomnotif", [{ kind: "sender_notification_permission", key: "room" }, is("content.body", "@room")], highlight),
  rule("tombstone", [is("type", "m.room.tombstone"), is("state_key", "")], highlight),
  rule("reaction", [is("type", "m.reaction")], []),
  rule("room.server_acl", [is("type", "m.room.server_acl"), is("state_key", "")], []),
  rule(
    "suppress_edits",
    [{ kind: "event_property_is", key: "content.m\\.relates_to.rel_type", value: "m.replace" }],
    []
  ),
  {
    ...rule("poll_response", [is("type", "org.matrix.msc3381.poll.response")], []),
    rule_id: ".org.matrix.msc3930.rule.poll_response"
  }
]

/** The name in `@name:server`. */
const localpart = (userId: UserId): string => userId.slice(1, userId.indexOf(":"))

const content = (userId: UserId): ReadonlyArray<JsonObject> => [
  {
    rule_id: ".m.rule.contains_user_name",
    default: true,
    enabled: true,
    pattern: localpart(userId),
    actions: [...sound, { set_tweak: "highlight" }]
  }
]

const underride: ReadonlyArray<JsonObject> = [
  rule("call", [is("type", "m.call.invite")], ring),
  rule("encrypted_room_one_to_one", [oneToOne, is("type", "m.room.encrypted")], sound),
  rule("room_one_to_one", [oneToOne, is("type", "m.room.message")], sound),
  rule("message", [is("type", "m.room.message")], notify),
  rule("encrypted", [is("type", "m.room.encrypted")], notify)
]

/** The content of `m.push_rules` for a new account. */
export const defaultPushRules = (userId: UserId): JsonObject => ({
  global: { override: override(userId), content: content(userId), postcontent: [], room: [], sender: [], underride }
})
