/**
 * The conditions of push rules. Source: client-server API, "Push rules", "Conditions"; MSC4306 for threads.
 *
 * Gotchas: conditions, events and power levels are what others sent: only own properties of objects count (a path doesn't
 * lead into arrays or strings), and what has the wrong type doesn't match.
 *
 * Not here: which rule is asked first and what follows (`PushRules.ts`), the matching of patterns (`Glob.ts`).
 */
import { Option, Predicate } from "effect"
import * as Glob from "./Glob.ts"
import type { JsonObject, MatrixEvent, RoomId, UserId } from "./MatrixEvent.ts"

/** The condition of MSC4306, in its unstable spelling. */
export const THREAD_SUBSCRIPTION = "io.element.msc4306.thread_subscription"

/** What a rule can ask about that isn't in the event. */
export interface RuleContext {
  readonly ownUserId: UserId
  readonly roomId: RoomId
  /** The user's name in the room; without one, `contains_display_name` doesn't match. */
  readonly ownDisplayName?: string | undefined
  /** Joined members of the room; unknown: member count conditions don't match. */
  readonly joinedCount?: number | undefined
  /** Content of `m.room.power_levels`; absent: as for a room without. */
  readonly powerLevels?: JsonObject | undefined
  /** Who made the room, if it has version 12 or later (they may do anything) or no power levels. */
  readonly creators?: ReadonlyArray<UserId> | undefined
  /** Whether the user follows the event's thread (MSC4306); undefined: unknown, the condition doesn't match. */
  readonly isThreadSubscribed?: boolean | undefined
}

/** An event that is being asked about. Make it with {@link subject}. */
export interface Subject {
  readonly event: MatrixEvent
  readonly context: RuleContext
  /** A value made ready for matching, once for all rules. */
  readonly text: (value: string) => Glob.Text
}

/** Puts an event, decrypted, and what is known of its room where conditions can be asked about them. */
export const subject = (event: MatrixEvent, context: RuleContext): Subject => {
  const texts = new Map<string, Glob.Text>()
  const text = (value: string): Glob.Text => {
    const known = texts.get(value)
    if (known !== undefined) return known
    const made = Glob.text(value)
    texts.set(value, made)
    return made
  }
  return { event, context, text }
}

/**
 * The names in a path such as `content.m\.mentions.room`. Dots within a name and backslashes are escaped by a backslash; any
 * other backslash is itself. Spec: appendices, "Dot-separated property paths".
 */
export const pathNames = (path: string): ReadonlyArray<string> => {
  const names: Array<string> = []
  let name = ""
  for (let index = 0; index < path.length; index++) {
    const character = path.charAt(index)
    const next = path.charAt(index + 1)
    if (character === "\\" && (next === "." || next === "\\")) {
      name += next
      index += 1
    } else if (character === ".") {
      names.push(name)
      name = ""
    } else name += character
  }
  return [...names, name]
}

const ownProperty = (value: unknown, name: string): unknown =>
  Predicate.isObject(value) && Object.hasOwn(value, name) ? (value as JsonObject)[name] : undefined

/** The value at a path in an event, `undefined` if there is none. The room's id is the one that is known to be right. */
export const propertyAt = ({ context, event }: Subject, path: unknown): unknown => {
  if (typeof path !== "string") return undefined
  if (path === "room_id") return context.roomId
  return pathNames(path).reduce<unknown>(ownProperty, event)
}

const eventMatches: Test = (asked, { key, pattern }) => {
  const value = propertyAt(asked, key)
  if (typeof value !== "string" || typeof pattern !== "string") return false
  const glob = Glob.glob(pattern)
  return key === "content.body"
    ? Glob.matchesWords(glob, asked.text(value))
    : Glob.matchesWhole(glob, asked.text(value))
}

/** Spec: strings, integers that a double holds exactly, booleans and null can be compared. */
const isComparable = (value: unknown): boolean =>
  typeof value === "string" || typeof value === "boolean" || value === null || Number.isSafeInteger(value)

const propertyIs: Test = (asked, { key, value }) => {
  return isComparable(value) && propertyAt(asked, key) === value
}

const propertyContains: Test = (asked, { key, value }) => {
  const items = propertyAt(asked, key)
  return isComparable(value) && Array.isArray(items) && items.includes(value)
}

const bodyContainsDisplayName: Test = (asked) => {
  const name = asked.context.ownDisplayName
  const body = propertyAt(asked, "content.body")
  if (name === undefined || name === "" || typeof body !== "string") return false
  return Glob.matchesWords(Glob.literal(name), asked.text(body))
}

const memberCountIs: Test = ({ context: { joinedCount } }, { is }) => {
  const [, operator, digits] = (typeof is === "string" && /^(==|<=?|>=?)?(\d+)$/.exec(is)) || []
  if (joinedCount === undefined || digits === undefined) return false
  const count = Number(digits)
  switch (operator) {
    case "<":
      return joinedCount < count
    case ">":
      return joinedCount > count
    case "<=":
      return joinedCount <= count
    case ">=":
      return joinedCount >= count
    default:
      return joinedCount === count
  }
}

/** A power level; rooms older than version 10 may have it as a string. */
const level = (value: unknown): Option.Option<number> => {
  if (Number.isSafeInteger(value)) return Option.some(value as number)
  if (typeof value === "string" && /^\s*[+-]?\d+\s*$/.test(value)) return Option.some(Number(value))
  return Option.none()
}

const senderMayNotify: Test = (asked, { key }) => {
  const sender = propertyAt(asked, "sender")
  if (typeof key !== "string" || typeof sender !== "string") return false
  const { creators, powerLevels } = asked.context
  if (creators?.includes(sender) === true) return true
  const needed = level(ownProperty(ownProperty(powerLevels, "notifications"), key))
  const own = level(ownProperty(ownProperty(powerLevels, "users"), sender))
  const power = Option.orElse(own, () => level(ownProperty(powerLevels, "users_default")))
  return Option.getOrElse(power, () => 0) >= Option.getOrElse(needed, () => 50)
}

const isThreadFollowed: Test = (asked, { subscribed }) =>
  propertyAt(asked, "content.m\\.relates_to.rel_type") === "m.thread" &&
  typeof subscribed === "boolean" &&
  subscribed === asked.context.isThreadSubscribed

type Test = (asked: Subject, condition: JsonObject) => boolean

const tests: ReadonlyMap<unknown, Test> = new Map<unknown, Test>([
  ["event_match", eventMatches],
  ["event_property_is", propertyIs],
  ["event_property_contains", propertyContains],
  ["contains_display_name", bodyContainsDisplayName],
  ["room_member_count", memberCountIs],
  ["sender_notification_permission", senderMayNotify],
  [THREAD_SUBSCRIPTION, isThreadFollowed]
])

/** Whether a condition holds; one that isn't known doesn't. */
export const holds = (asked: Subject, condition: JsonObject): boolean =>
  tests.get(condition.kind)?.(asked, condition) ?? false
