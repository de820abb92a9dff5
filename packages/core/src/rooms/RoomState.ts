/**
 * What one room update does to a room: `(room before, update) → room after`.
 *
 * Includes the rules for membership, name, avatar, kind, counts, recency, latest event and unread inputs, for both
 * spellings of MSC4186.
 *
 * Invariants: I7 (any update gives a room; what can't be read counts as not said).
 *
 * Gotchas: an absent field is unchanged, but in an `initial` update it is removed. What other sources told outlives an
 * `initial` update, since nobody repeats it: receipts, marks, tags, `m.direct`. So does encryption, which no homeserver may
 * switch off (spec, `m.room.encryption`).
 *
 * Not here: what account data, receipts and typing do (`RoomExtensions.ts`).
 */
import type { RoomId, UserId } from "../matrix/MatrixEvent.ts"
import type { Hero, Membership, RoomUpdate } from "../matrix/SlidingSync.ts"
import { displayName, shownHeroes } from "./DisplayName.ts"
import type { Invite, Room, UnreadInputs } from "./Room.ts"
import { latestEvent, liveEvents, makesUnread } from "./RoomTimeline.ts"
import { type StateFacts, stateFacts } from "./StateFacts.ts"
import { strippedHeroes, strippedInvite } from "./StrippedState.ts"

/** What a room update is read with. */
export interface RoomContext {
  /** The account's own user id. */
  readonly ownUserId: UserId
}

/** What holds of a room before anything was said. */
const nothingKnown = (roomId: RoomId): Room => ({
  roomId,
  membership: "join",
  displayName: "",
  heroes: [],
  joinedCount: 0,
  invitedCount: 0,
  isDm: false,
  isEncrypted: false,
  bumpStamp: 0,
  unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
  typing: []
})

/** What remains of a room when everything is replaced: only what an update doesn't repeat. */
const outliving = (previous: Room): Room => ({
  ...nothingKnown(previous.roomId),
  isDm: previous.isDm,
  isEncrypted: previous.isEncrypted,
  bumpStamp: previous.bumpStamp,
  unread: { ...previous.unread, notificationCount: 0, highlightCount: 0 },
  ...(previous.tags !== undefined && { tags: previous.tags })
})

/** What the first source that tells anything says: `undefined` tells nothing, `null` that there is none. */
const told = <A>(...sources: ReadonlyArray<A | null | undefined>): A | undefined =>
  sources.find((source) => source !== undefined) ?? undefined

/** An explicit membership (merged text), else the requester's own member event, else what stripped state implies. */
const membershipAfter = (before: Room, update: RoomUpdate, facts: StateFacts): Membership => {
  const implied = update.strippedState.length > 0 ? "invite" : before.membership
  return update.membership ?? facts.membership ?? implied
}

const inviteAfter = (before: Room, update: RoomUpdate, membership: Membership, own: UserId): Invite | undefined => {
  if (membership !== "invite" && membership !== "knock") return undefined
  return update.strippedState.length > 0 ? strippedInvite(update.strippedState, own) : before.invite
}

const heroesAfter = (before: Room, update: RoomUpdate, own: UserId): ReadonlyArray<Hero> => {
  if (update.heroes !== undefined) return update.heroes
  return update.strippedState.length > 0 ? strippedHeroes(update.strippedState, own) : before.heroes
}

const unreadAfter = (before: UnreadInputs, update: RoomUpdate, own: UserId): UnreadInputs => ({
  ...before,
  notificationCount: update.notificationCount ?? before.notificationCount,
  highlightCount: update.highlightCount ?? before.highlightCount,
  liveSinceRead: before.liveSinceRead + liveEvents(update).filter((event) => makesUnread(event, own)).length
})

type Derived = "displayName" | "avatar"

/** Completes a room with what follows from the rest of it: the name to show, and the avatar. */
const derive = (room: Omit<Room, Derived>, ownUserId: UserId): Room => {
  const heroes = room.isDm ? shownHeroes(room, ownUserId) : []
  const avatar = room.roomAvatar ?? (heroes.length === 1 ? heroes[0]?.avatarUrl : undefined)
  return { ...room, displayName: displayName(room, ownUserId), ...(avatar !== undefined && { avatar }) }
}

/** The room with `isDm` as told by `m.direct`, and the avatar that follows; the very same room if it was so before. */
export const setDm = (room: Room, isDm: boolean, context: RoomContext): Room => {
  if (room.isDm === isDm) return room
  const { avatar: _, ...rest } = room
  return derive({ ...rest, isDm }, context.ownUserId)
}

/** The room as it is left, when the homeserver doesn't say more; the very same room if the user is not in it anyway. */
export const leave = (room: Room, context: RoomContext): Room => {
  if (room.membership === "leave" || room.membership === "ban") return room
  const { avatar: _, invite: __, ...rest } = room
  return derive({ ...rest, membership: "leave", typing: [] }, context.ownUserId)
}

/**
 * The room after an update.
 *
 * @param previous the room as it is known, or `undefined` for one that isn't
 * @param update what the homeserver says about it
 */
export const apply = (previous: Room | undefined, update: RoomUpdate, context: RoomContext): Room => {
  const own = context.ownUserId
  const known = previous ?? nothingKnown(update.roomId)
  const before = update.initial ? outliving(known) : known
  const facts = stateFacts(update, own, before.sources)
  const membership = membershipAfter(before, update, facts)
  const invite = inviteAfter(before, update, membership, own)
  const name = told(update.name, facts.name, before.name)
  const canonicalAlias = told(facts.canonicalAlias, before.canonicalAlias)
  const topic = told(facts.topic, before.topic)
  const roomAvatar = told(update.avatar, facts.avatar, before.roomAvatar)
  const roomType = told(facts.roomType, before.roomType)
  const replacedBy = told(facts.replacedBy, before.replacedBy)
  const serviceMembers = told(facts.serviceMembers, before.serviceMembers)
  const latest = latestEvent(before.latestEvent, update)
  return derive(
    {
      roomId: update.roomId,
      membership,
      ...(name !== undefined && { name }),
      ...(canonicalAlias !== undefined && { canonicalAlias }),
      ...(topic !== undefined && { topic }),
      ...(roomAvatar !== undefined && { roomAvatar }),
      ...(facts.sources !== undefined && { sources: facts.sources }),
      heroes: heroesAfter(before, update, own),
      ...(serviceMembers !== undefined && { serviceMembers }),
      joinedCount: update.joinedCount ?? before.joinedCount,
      invitedCount: update.invitedCount ?? before.invitedCount,
      isDm: update.isDm ?? (before.isDm || invite?.isDirect === true),
      isEncrypted: before.isEncrypted || facts.isEncrypted === true,
      ...(roomType !== undefined && { roomType }),
      ...(replacedBy !== undefined && { replacedBy }),
      bumpStamp: update.bumpStamp ?? before.bumpStamp,
      ...(latest !== undefined && { latestEvent: latest }),
      ...(invite !== undefined && { invite }),
      unread: unreadAfter(before.unread, update, own),
      ...(before.tags !== undefined && { tags: before.tags }),
      typing: before.typing
    },
    own
  )
}
