/**
 * The name to show for a room. Spec: client-server API, "Calculating the display name for a room".
 *
 * Includes the whole algorithm: the room's own name, its canonical alias, the heroes ("A, B and 3 others"), a room that
 * everybody left ("Empty Room (was A)"), and invites, whose stripped state knows next to nothing.
 *
 * Gotchas: the spec leaves out only the user himself; bots and bridges are left out as MSC4171 says. Names are told apart
 * among the heroes only, since other members are not known here.
 *
 * Not here: the name of a sender in a timeline, which needs the members of the room.
 */
import type { UserId } from "../matrix/MatrixEvent.ts"
import type { Hero } from "../matrix/SlidingSync.ts"
import type { Room } from "./Room.ts"

/** What the name depends on: these members of a {@link Room}. */
export type NameInputs = Pick<
  Room,
  "membership" | "name" | "canonicalAlias" | "heroes" | "joinedCount" | "invitedCount" | "invite" | "serviceMembers"
>

/** What a room is called that has no name, no alias and nobody else in it. */
export const emptyRoomName = "Empty Room"

const isShown = (text: string | undefined): text is string => text !== undefined && text.trim() !== ""

const plainName = (hero: Hero): string => (isShown(hero.displayName) ? hero.displayName : hero.userId)

/**
 * The heroes that stand for a room: without the user himself and without service members.
 *
 * Also decides whose avatar a direct chat shows.
 */
export const shownHeroes = (inputs: Pick<Room, "heroes" | "serviceMembers">, ownUserId: UserId): ReadonlyArray<Hero> =>
  inputs.heroes.filter((hero) => hero.userId !== ownUserId && inputs.serviceMembers?.includes(hero.userId) !== true)

/** Names of the heroes, each followed by its id where two would read the same. Spec: "Calculating the display name for a user". */
const heroNames = (heroes: ReadonlyArray<Hero>): ReadonlyArray<string> => {
  const names = heroes.map(plainName)
  return heroes.map((hero, index) => {
    const name = plainName(hero)
    const isUnique = names.every((other, at) => at === index || other !== name)
    return isUnique || name === hero.userId ? name : `${name} (${hero.userId})`
  })
}

const concatenate = (names: ReadonlyArray<string>, others: number): string => {
  if (names.length === 0) return others === 1 ? "1 person" : `${others} people`
  if (others > 0) return `${names.join(", ")} and ${others} ${others === 1 ? "other" : "others"}`
  return names.length === 1 ? `${names[0]}` : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`
}

const countOthers = ({ invitedCount, joinedCount }: NameInputs): number => joinedCount + invitedCount - 1

/**
 * How many service members there are, the user left out (MSC4171).
 *
 * The homeserver counts service members too, and doesn't say which of them are in the room. Where the heroes are all
 * the others, it is those among them; where they are only a few of many, all of them are taken to be there.
 */
export const countServiceMembers = (inputs: NameInputs, ownUserId: UserId): number => {
  const service = (inputs.serviceMembers ?? []).filter((userId) => userId !== ownUserId)
  const heroIds = new Set(inputs.heroes.map((hero) => hero.userId))
  const present = countOthers(inputs) <= heroIds.size ? service.filter((userId) => heroIds.has(userId)) : service
  return present.length
}

/** How many members there are besides the user and the service members. */
const otherMembers = (inputs: NameInputs, ownUserId: UserId): number =>
  countOthers(inputs) - countServiceMembers(inputs, ownUserId)

const inviteName = (inputs: NameInputs, heroes: ReadonlyArray<Hero>): string => {
  const { inviter, inviterDisplayName, isDirect } = inputs.invite ?? { isDirect: false }
  const inviterName = isShown(inviterDisplayName) ? inviterDisplayName : inviter
  if (isDirect && inviterName !== undefined) return inviterName
  return heroes.length > 0 ? concatenate(heroNames(heroes), 0) : (inviterName ?? emptyRoomName)
}

/**
 * The name to show for a room, never empty.
 *
 * A nameless invite to a direct chat is called like its inviter. For a nameless invite or knock the members are not
 * counted, so that its heroes are listed as they are.
 */
export const displayName = (inputs: NameInputs, ownUserId: UserId): string => {
  if (isShown(inputs.name)) return inputs.name
  if (isShown(inputs.canonicalAlias)) return inputs.canonicalAlias
  const heroes = shownHeroes(inputs, ownUserId)
  const counted = inputs.joinedCount + inputs.invitedCount > 0
  if (!counted && (inputs.membership === "invite" || inputs.membership === "knock")) return inviteName(inputs, heroes)
  const others = otherMembers(inputs, ownUserId)
  if (others > 0) return concatenate(heroNames(heroes), Math.max(0, others - heroes.length))
  return heroes.length === 0 ? emptyRoomName : `${emptyRoomName} (was ${concatenate(heroNames(heroes), 0)})`
}
