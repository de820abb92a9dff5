/**
 * What the stripped state of an invite or a knock tells: who invites, and who else is there.
 *
 * Not here: the room's name, avatar and kind, which stripped state says like full state does (`StateFacts.ts`).
 *
 * Source: client-server API, "Stripped state"; `is_direct` of `m.room.member`.
 */
import type { StateEvent, UserId } from "../matrix/MatrixEvent.ts"
import type { Hero } from "../matrix/SlidingSync.ts"
import type { Invite } from "./Room.ts"
import { membershipOf, text } from "./StateFacts.ts"

const memberHero = (event: StateEvent): Hero => {
  const displayName = text(event.content, "displayname")
  const avatarUrl = text(event.content, "avatar_url")
  return {
    userId: event.state_key,
    ...(displayName !== null && { displayName }),
    ...(avatarUrl !== null && { avatarUrl })
  }
}

const memberEvents = (stripped: ReadonlyArray<StateEvent>): ReadonlyArray<StateEvent> =>
  stripped.filter((event) => event.type === "m.room.member")

/** The members that stripped state shows, which stand for a nameless invite; without the requester. */
export const strippedHeroes = (stripped: ReadonlyArray<StateEvent>, ownUserId: UserId): ReadonlyArray<Hero> =>
  memberEvents(stripped)
    .filter((event) => event.state_key !== ownUserId && membershipOf(event.content) !== "leave")
    .map(memberHero)

/** Who invites, by the requester's own member event in the stripped state. Nobody invites one who knocks. */
export const strippedInvite = (stripped: ReadonlyArray<StateEvent>, ownUserId: UserId): Invite => {
  const members = memberEvents(stripped)
  const own = members.findLast((event) => event.state_key === ownUserId)
  if (own === undefined || membershipOf(own.content) !== "invite") return { isDirect: false }
  const inviter = members.find((event) => event.state_key === own.sender)
  const inviterDisplayName = inviter === undefined ? null : text(inviter.content, "displayname")
  return {
    inviter: own.sender,
    ...(inviterDisplayName !== null && { inviterDisplayName }),
    isDirect: own.content.is_direct === true
  }
}
