/**
 * Pushing, in the homeserver model: who is to be told of an event, and what a pusher sends next.
 *
 * An event is pushed to whoever is in the room or newly invited, did not send it, doesn't ignore its sender, and has a push
 * rule that says so. Each pusher sends one thing at a time: the events in order, each until its gateway has taken it or a
 * day of failures is over; and the unread count when the user has read something, once and whether it arrives or not. What
 * is to be sent is taken by `takePush`, and given back by `pushAnswered` or `pushFailed`.
 *
 * Gotchas: the unread count is the number of rooms with something to notify of after the user's receipt, and of
 * invitations (`push.group_unread_count_by_room` of Synapse, its default). Neither an answer to a count nor one to an event
 * of another push key removes a pusher, as on Synapse.
 *
 * Not here: sending (platform `PushSender`), waiting for what is to be sent (`HomeserverHost.ts`), the body (`PushBody.ts`).
 *
 * Source: client-server API, "Push notifications"; Synapse's `push/httppusher.py` and `push/bulk_push_rule_evaluator.py`.
 */
import { Predicate } from "effect"
import type { DeviceId, EventId, JsonObject, UserId } from "../../matrix/MatrixEvent.ts"
import * as PushRules from "../../matrix/PushRules.ts"
import { objectAt } from "./JsonShape.ts"
import type { ModelState, PushAction, Room, StoredEvent, StoredPusher, User, UserRoom } from "./ModelState.ts"
import { firstAfter } from "./ModelState.ts"
import { badgeBody, eventBody } from "./PushBody.ts"
import { isCurrent, removePusher } from "./Pushers.ts"

const SECOND = 1_000
const HOUR = 3_600 * SECOND

/** After the first failure; doubles with each further one. */
const FIRST_BACKOFF = SECOND
const LONGEST_BACKOFF = HOUR
/** How long one event is tried. */
const PATIENCE = 24 * HOUR

// --- whom an event concerns

const rulesets = new WeakMap<JsonObject, PushRules.Ruleset>()

/** The user's rules; read once for as long as they stay the same. */
const rulesetOf = (user: User): PushRules.Ruleset => {
  const content = user.accountData.get("m.push_rules")?.content ?? {}
  const known = rulesets.get(content) ?? PushRules.decode(content).ruleset
  rulesets.set(content, known)
  return known
}

const ignores = (user: User, sender: UserId): boolean => {
  const list = user.accountData.get("m.ignored_user_list")?.content ?? {}
  return Object.hasOwn(objectAt(list, "ignored_users"), sender)
}

/** Who may be told: a membership concerns its member only, everything else whoever is in the room. */
const concerned = (room: Room, { event }: StoredEvent): ReadonlyArray<UserId> => {
  if (event.type === "m.room.member" && event.state_key !== undefined) {
    const membership = room.members.get(event.state_key)
    return membership === "join" || membership === "invite" ? [event.state_key] : []
  }
  return [...room.members].flatMap(([userId, membership]) => (membership === "join" ? [userId] : []))
}

const contentOf = (room: Room, type: string, stateKey: string): JsonObject | undefined =>
  room.state.get(type)?.get(stateKey)?.event.content

const evaluate = (user: User, room: Room, { event }: StoredEvent): PushRules.Evaluation => {
  const displayName = contentOf(room, "m.room.member", user.userId)?.displayname
  return PushRules.evaluate(rulesetOf(user), event, {
    ownUserId: user.userId,
    roomId: room.roomId,
    ownDisplayName: Predicate.isString(displayName) ? displayName : undefined,
    joinedCount: room.joinedCount,
    powerLevels: contentOf(room, "m.room.power_levels", "")
  })
}

const tweaksOf = ({ actions }: PushRules.Evaluation): JsonObject =>
  Object.fromEntries(
    actions.flatMap((action) =>
      Predicate.isObject(action) && Predicate.isString(action.set_tweak)
        ? [[action.set_tweak, action.value ?? true] as const]
        : []
    )
  )

/** Notes that pushers may have something to send. */
const changed = (state: ModelState): void => {
  state.pushVersion += 1
}

const notify = (state: ModelState, user: User, action: PushAction): void => {
  user.rooms.get(action.room.roomId)?.unread.push(action.stored)
  for (const pusher of user.pushers.values()) pusher.queue.push(action)
  if (user.pushers.size > 0) changed(state)
}

/** Queues the pushes about an event that was added to a room, and counts it as unread for whoever is notified. */
export const eventAdded = (state: ModelState, room: Room, stored: StoredEvent): void => {
  const { sender } = stored.event
  for (const userId of concerned(room, stored)) {
    const user = state.users.get(userId)
    if (user === undefined || userId === sender || ignores(user, sender)) continue
    const evaluation = evaluate(user, room, stored)
    if (evaluation.isNotify) notify(state, user, { room, stored, tweaks: tweaksOf(evaluation) })
  }
}

/** Forgets an event that was redacted: it is not pushed any more, and doesn't count as unread. */
export const eventRedacted = (state: ModelState, room: Room, stored: StoredEvent): void => {
  const isOther = (other: StoredEvent): boolean => other !== stored
  for (const userId of room.members.keys()) {
    const user = state.users.get(userId)
    const userRoom = user?.rooms.get(room.roomId)
    if (user === undefined || userRoom === undefined) continue
    userRoom.unread = userRoom.unread.filter(isOther)
    for (const pusher of user.pushers.values()) pusher.queue = pusher.queue.filter((action) => isOther(action.stored))
  }
}

// --- the unread count

const isUnread = ({ membership, unread }: UserRoom): boolean =>
  membership === "invite" || (membership === "join" && unread.length > 0)

const unreadCount = (user: User): number => [...user.rooms.values()].filter(isUnread).length

/** Counts anew after a user's receipt, and has his pushers tell the count unless their gateways know it. */
export const eventRead = (state: ModelState, user: User, room: Room, eventId: EventId): void => {
  const read = state.events.get(eventId)
  const userRoom = user.rooms.get(room.roomId)
  if (userRoom !== undefined && read?.room === room)
    userRoom.unread = userRoom.unread.slice(firstAfter(userRoom.unread, read.stored.stream))
  const count = unreadCount(user)
  for (const pusher of user.pushers.values()) pusher.isBadgeDue = pusher.toldUnread !== count
  if (user.pushers.size > 0) changed(state)
}

// --- what a pusher sends

/** Whose a pusher is. */
export interface PushOwner {
  readonly userId: UserId
  readonly deviceId: DeviceId
}

/** Something that a pusher sends: a request to its gateway. */
export interface Push extends PushOwner {
  readonly appId: string
  readonly pushKey: string
  readonly url: string
  /** `{ notification: … }`: the whole body of the request. */
  readonly body: JsonObject
  readonly pusher: StoredPusher
  readonly unread: number
  /** Absent when the unread count alone is told. */
  readonly action: PushAction | undefined
}

/** What `takePush` gives when there is nothing to send. */
export interface NothingToPush {
  /** When there will be something, unless something else happens; `undefined`: not by waiting. Unix milliseconds. */
  readonly untilMillis: number | undefined
}

const made = (user: User, pusher: StoredPusher, action: PushAction | undefined): Push => {
  const { userId } = user
  const { appId, deviceId, pushKey, url } = pusher
  const unread = unreadCount(user)
  const body = action === undefined ? badgeBody(pusher, unread) : eventBody(userId, pusher, action, unread)
  return { userId, deviceId, appId, pushKey, url, body, pusher, unread, action }
}

/** The next thing that a pusher sends, or when it will. The unread count waits for no event that can't be delivered. */
const nextOf = (user: User, pusher: StoredPusher, nowMillis: number): Push | NothingToPush => {
  if (pusher.isBusy) return { untilMillis: undefined }
  if (pusher.isBadgeDue) return made(user, pusher, undefined)
  const action = pusher.queue[0]
  if (action === undefined) return { untilMillis: undefined }
  const { failure } = pusher
  return failure === undefined || failure.retryAtMillis <= nowMillis
    ? made(user, pusher, action)
    : { untilMillis: failure.retryAtMillis }
}

const isPush = (next: Push | NothingToPush): next is Push => "body" in next

const earlier = (one: number | undefined, other: number | undefined): number | undefined =>
  one === undefined || other === undefined ? (one ?? other) : Math.min(one, other)

/**
 * Takes something that is to be sent now, if there is something; of all pushers, or of those whose owner `isWanted`. Its
 * pusher sends nothing else until it is given to `pushAnswered` or `pushFailed`.
 */
export const takePush = (
  state: ModelState,
  nowMillis: number,
  isWanted: (owner: PushOwner) => boolean = () => true
): Push | NothingToPush => {
  let untilMillis: number | undefined
  for (const user of state.users.values()) {
    for (const pusher of user.pushers.values()) {
      if (!isWanted({ userId: user.userId, deviceId: pusher.deviceId })) continue
      const next = nextOf(user, pusher, nowMillis)
      if (!isPush(next)) {
        untilMillis = earlier(untilMillis, next.untilMillis)
        continue
      }
      pusher.isBusy = true
      if (next.action === undefined) {
        pusher.isBadgeDue = false
        pusher.toldUnread = next.unread
      }
      return next
    }
  }
  return { untilMillis }
}

/** Does something with the pusher of a push that is over, unless it was removed or set anew in the meantime. */
const withPusher = (state: ModelState, push: Push, f: (user: User, pusher: StoredPusher) => void): void => {
  const user = state.users.get(push.userId)
  if (user === undefined || !isCurrent(user, push.pusher)) return
  push.pusher.isBusy = false
  f(user, push.pusher)
  changed(state)
}

/** Takes the event of a push off its queue; a redaction may have done so already. */
const done = (pusher: StoredPusher, action: PushAction): void => {
  if (pusher.queue[0] === action) pusher.queue.shift()
  pusher.failure = undefined
}

/** The gateway has taken a push. `rejected` are the push keys that it wants nothing for any more. */
export const pushAnswered = (state: ModelState, push: Push, rejected: ReadonlyArray<unknown>): void =>
  withPusher(state, push, (user, pusher) => {
    if (push.action === undefined) return
    done(pusher, push.action)
    if (rejected.includes(push.pushKey)) return removePusher(user, pusher)
    pusher.toldUnread = push.unread
    pusher.isBadgeDue &&= unreadCount(user) !== push.unread
  })

/** The gateway has not taken a push: it is tried again later, and given up after a day. */
export const pushFailed = (state: ModelState, push: Push, nowMillis: number): void =>
  withPusher(state, push, (_, pusher) => {
    if (push.action === undefined) return
    const { sinceMillis, backoffMillis } = pusher.failure ?? { sinceMillis: nowMillis, backoffMillis: FIRST_BACKOFF }
    if (nowMillis - sinceMillis > PATIENCE) return done(pusher, push.action)
    pusher.failure = {
      sinceMillis,
      retryAtMillis: nowMillis + backoffMillis,
      backoffMillis: Math.min(2 * backoffMillis, LONGEST_BACKOFF)
    }
  })
