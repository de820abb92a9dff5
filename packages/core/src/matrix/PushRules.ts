/**
 * Push rules: which events a user is to be notified of, and how loudly.
 *
 * Includes reading the account data `m.push_rules` and asking its rules about one event. Source: client-server API, "Push
 * rules"; where the spec leaves something open, as Synapse has it.
 *
 * Invariants: I7 (a malformed rule is told apart, the others count; no event and no rule makes an evaluation fail or slow).
 *
 * Gotchas: the server sees an encrypted event from outside; whoever can decrypt it asks again with what was inside. The
 * user's own events are not told apart here: leave them out, they notify nobody.
 *
 * Not here: what each condition means (`PushConditions.ts`), the rules that a new account has (the dev homeserver's).
 */
import { Predicate } from "effect"
import { keepable } from "./MatrixEvent.ts"
import type { JsonObject, MatrixEvent } from "./MatrixEvent.ts"
import { holds, propertyAt, subject, THREAD_SUBSCRIPTION } from "./PushConditions.ts"
import type { RuleContext, Subject } from "./PushConditions.ts"

export type { RuleContext } from "./PushConditions.ts"

/** In the order of evaluation. `postcontent` is of MSC4306: the rules about threads, which only the server makes. */
const kinds = ["override", "content", "postcontent", "room", "sender", "underride"] as const

export type RuleKind = (typeof kinds)[number]

/** One rule. Those of kind `content`, `room` and `sender` have, as conditions, what their kind says. */
export interface Rule {
  readonly kind: RuleKind
  readonly ruleId: string
  /** The server's own, and not the user's. */
  readonly isDefault: boolean
  readonly isEnabled: boolean
  /** As in the account data. All must hold; none: the rule always matches. */
  readonly conditions: ReadonlyArray<JsonObject>
  /** As in the account data: `"notify"`, or an object with `set_tweak`. */
  readonly actions: ReadonlyArray<string | JsonObject>
}

export interface Ruleset {
  /** In the order of evaluation. */
  readonly rules: ReadonlyArray<Rule>
}

/** Something in the account data that is no rule. */
export interface QuarantinedRule {
  /** What is wrong, to what, in one sentence. */
  readonly reason: string
  /** The JSON value as it was received, or as much of it as can be kept. */
  readonly raw: unknown
}

/** What the rules say about an event. */
export interface Evaluation {
  /** The rule that decided; none matched: nobody is notified. */
  readonly rule: Rule | undefined
  /** Its actions, without those that no longer mean anything (`dont_notify`, `coalesce`). */
  readonly actions: ReadonlyArray<string | JsonObject>
  readonly isNotify: boolean
  /** It notifies, and with a sound. */
  readonly isNoisy: boolean
  /** It is to be highlighted: the user, the whole room or a keyword is mentioned. */
  readonly isMention: boolean
  /** Name of the sound, `default` for the usual one. */
  readonly sound?: string
}

// --- reading

const whyNotRule = (kind: RuleKind, raw: unknown): string | undefined => {
  if (!Predicate.isObject(raw)) return "it is not a JSON object"
  const { actions, conditions, enabled, pattern, rule_id: ruleId } = raw as JsonObject
  if (typeof ruleId !== "string") return 'its "rule_id" is not a string'
  if (typeof enabled !== "boolean") return 'its "enabled" is not true or false'
  if (!Array.isArray(actions)) return 'its "actions" is not a list'
  if (!actions.every((action) => typeof action === "string" || Predicate.isObject(action)))
    return 'one of its "actions" is neither a string nor a JSON object'
  if (kind === "content") return typeof pattern === "string" ? undefined : 'its "pattern" is not a string'
  if (kind === "room" || kind === "sender" || conditions === undefined) return undefined
  if (!Array.isArray(conditions)) return 'its "conditions" is not a list'
  return conditions.every(Predicate.isObject) ? undefined : 'one of its "conditions" is not a JSON object'
}

/** The conditions of a rule, those that its kind implies spelt out. */
const conditionsOf = (kind: RuleKind, raw: JsonObject): ReadonlyArray<JsonObject> => {
  switch (kind) {
    case "content":
      return [{ kind: "event_match", key: "content.body", pattern: raw.pattern }]
    case "room":
      return [{ kind: "event_property_is", key: "room_id", value: raw.rule_id }]
    case "sender":
      return [{ kind: "event_property_is", key: "sender", value: raw.rule_id }]
    default:
      return (raw.conditions as ReadonlyArray<JsonObject> | undefined) ?? []
  }
}

const toRule = (kind: RuleKind, raw: JsonObject): Rule => {
  const ruleId = raw.rule_id as string
  return {
    kind,
    ruleId,
    isDefault: typeof raw.default === "boolean" ? raw.default : ruleId.startsWith("."),
    isEnabled: raw.enabled as boolean,
    conditions: conditionsOf(kind, raw),
    actions: raw.actions as ReadonlyArray<string | JsonObject>
  }
}

const isMaster = (rule: Rule): boolean => rule.kind === "override" && rule.ruleId === ".m.rule.master"

/** Spec: the master rule first of all, then the user's rules before the server's, otherwise as they come. */
const rank = (rule: Rule): number => {
  if (isMaster(rule)) return 0
  return rule.isDefault ? 2 : 1
}

const decodeKind = (kind: RuleKind, list: unknown, quarantine: (reason: string, raw: unknown) => void) => {
  if (list === undefined) return []
  if (!Array.isArray(list)) {
    quarantine(`The push rules of kind "${kind}" can't be read: they are not a list.`, list)
    return []
  }
  return list
    .filter((raw) => {
      const reason = whyNotRule(kind, raw)
      if (reason !== undefined) quarantine(`A push rule of kind "${kind}" can't be used: ${reason}.`, raw)
      return reason === undefined
    })
    .map((raw) => toRule(kind, raw as JsonObject))
    .sort((one, other) => rank(one) - rank(other))
}

/**
 * Reads the content of `m.push_rules`. Never fails: what isn't a rule is left out, and told in `quarantined` (I7). Actions
 * and conditions that aren't known are kept: the former do nothing, the latter never hold.
 */
export const decode = (
  content: JsonObject
): { readonly ruleset: Ruleset; readonly quarantined: ReadonlyArray<QuarantinedRule> } => {
  const quarantined: Array<QuarantinedRule> = []
  const quarantine = (reason: string, raw: unknown) => void quarantined.push({ reason, raw: keepable(raw) })
  const { global } = content
  if (!Predicate.isObject(global)) {
    quarantine('The push rules can\'t be read: their "global" is not a JSON object.', content)
    return { ruleset: { rules: [] }, quarantined }
  }
  const lists = global as JsonObject
  for (const kind of Object.keys(lists))
    if (!kinds.some((known) => known === kind))
      quarantine(`The push rules of kind "${kind}" can't be used: the kind is not known.`, lists[kind])
  return { ruleset: { rules: kinds.flatMap((kind) => decodeKind(kind, lists[kind], quarantine)) }, quarantined }
}

// --- evaluating

/** The rules from before `m.mentions`; they don't count for an event that says itself whom it mentions. */
const legacyMentions: ReadonlySet<string> = new Set([
  ".m.rule.contains_display_name",
  ".m.rule.contains_user_name",
  ".m.rule.roomnotif"
])

const matches = (rule: Rule, asked: Subject): boolean => {
  if (!rule.isEnabled) return false
  if (legacyMentions.has(rule.ruleId) && propertyAt(asked, "content.m\\.mentions") !== undefined) return false
  return rule.conditions.every((condition) => holds(asked, condition))
}

/** The value of a tweak, the last one given; `undefined` if it isn't set. Spec: without a value, it is true. */
const tweak = (actions: ReadonlyArray<string | JsonObject>, name: string): unknown => {
  const action = actions.findLast((action) => typeof action !== "string" && action.set_tweak === name)
  if (action === undefined || typeof action === "string") return undefined
  return action.value === undefined ? true : action.value
}

/**
 * Asks the rules about an event by somebody else, decrypted where it was encrypted: the first that is on and matches
 * decides.
 */
export const evaluate = (ruleset: Ruleset, event: MatrixEvent, context: RuleContext): Evaluation => {
  const asked = subject(event, context)
  const rule = ruleset.rules.find((rule) => matches(rule, asked))
  const actions = rule?.actions.filter((action) => action !== "dont_notify" && action !== "coalesce") ?? []
  const isNotify = actions.includes("notify")
  const sound = tweak(actions, "sound")
  const hasSound = isNotify && typeof sound === "string"
  return {
    rule,
    actions,
    isNotify,
    isNoisy: hasSound,
    isMention: tweak(actions, "highlight") === true,
    ...(hasSound && { sound })
  }
}

/** Whether any rule that is on asks about the thread of the event, so that whoever evaluates must find that out first. */
export const asksAboutThread = (ruleset: Ruleset): boolean =>
  ruleset.rules.some((rule) => rule.isEnabled && rule.conditions.some(({ kind }) => kind === THREAD_SUBSCRIPTION))
