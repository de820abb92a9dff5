/**
 * Reading and changing single push rules of the homeserver model's accounts; they are kept as the account data
 * `m.push_rules`, so that either way of looking sees the same, and a change is news for a sync.
 *
 * Not here: what the rules mean (`matrix/PushRules.ts`), those of a new account (`DefaultPushRules.ts`).
 *
 * Source: client-server API, "Push Rules: API"; Synapse's `rest/client/push_rule.py`.
 */
import { Predicate, Result } from "effect"
import type { JsonObject } from "../../matrix/MatrixEvent.ts"
import { objectAt } from "./JsonShape.ts"
import type { ModelState, Outcome, User } from "./ModelState.ts"
import { refuse } from "./ModelState.ts"
import { setAccountData } from "./RoomSignals.ts"

const kinds: ReadonlySet<string> = new Set(["override", "content", "room", "sender", "underride"])

/** Which rule. */
export interface PushRuleId {
  readonly kind: string
  readonly ruleId: string
}

/** The content of `m.push_rules`: `GET /pushrules/`. */
export const pushRules = (user: User): JsonObject => user.accountData.get("m.push_rules")?.content ?? {}

/** The rules of a kind, in their order; none for a kind that there isn't. */
export const pushRulesOfKind = (user: User, kind: string): ReadonlyArray<JsonObject> => {
  const rules = objectAt(pushRules(user), "global")[kind]
  return Array.isArray(rules) ? rules.filter((rule): rule is JsonObject => Predicate.isObject(rule)) : []
}

const noRule = ({ kind, ruleId }: PushRuleId) => refuse(404, "M_NOT_FOUND", `there is no push rule ${kind}/${ruleId}`)

/** `GET /pushrules/global/{kind}/{ruleId}` */
export const pushRule = (user: User, id: PushRuleId): Outcome<JsonObject> => {
  const found = pushRulesOfKind(user, id.kind).find(({ rule_id }) => rule_id === id.ruleId)
  return found === undefined ? noRule(id) : Result.succeed(found)
}

const replace = (state: ModelState, user: User, kind: string, rules: ReadonlyArray<JsonObject>): Outcome<void> => {
  const content = { ...pushRules(user), global: { ...objectAt(pushRules(user), "global"), [kind]: rules } }
  return setAccountData(state, user, { type: "m.push_rules", content })
}

/** `PUT …/enabled` and `…/actions`: changes a member of a rule, a default one too. */
export const changePushRule = (
  state: ModelState,
  user: User,
  id: PushRuleId,
  change: { readonly enabled: boolean } | { readonly actions: ReadonlyArray<unknown> }
): Outcome<void> =>
  Result.flatMap(pushRule(user, id), (changed) =>
    replace(
      state,
      user,
      id.kind,
      pushRulesOfKind(user, id.kind).map((rule) => (rule === changed ? { ...rule, ...change } : rule))
    )
  )

/** `DELETE /pushrules/global/{kind}/{ruleId}`; a default rule can't be deleted, only switched off. */
export const deletePushRule = (state: ModelState, user: User, id: PushRuleId): Outcome<void> =>
  Result.flatMap(pushRule(user, id), (deleted) =>
    deleted.default === true
      ? noRule(id)
      : replace(
          state,
          user,
          id.kind,
          pushRulesOfKind(user, id.kind).filter((rule) => rule !== deleted)
        )
  )

/** A rule to set, and where: first of its kind when neither is said. */
export interface NewPushRule extends PushRuleId {
  readonly actions: ReadonlyArray<unknown>
  readonly conditions?: ReadonlyArray<unknown>
  readonly pattern?: string
  /** Id of the user's rule before or after which it comes. */
  readonly before?: string
  readonly after?: string
}

const whyRefused = ({ kind, ruleId, conditions, pattern }: NewPushRule): string | undefined => {
  if (!kinds.has(kind)) return `there is no kind "${kind}" of push rules`
  if (ruleId.startsWith(".")) return "cannot add new rule_ids that start with '.'"
  if (/[\\/]/.test(ruleId)) return "rule_id may not contain slashes"
  if ((kind === "override" || kind === "underride") && conditions === undefined) return "Missing 'conditions'"
  return kind === "content" && pattern === undefined ? "Content rule missing 'pattern'" : undefined
}

const jsonOf = ({ kind, ruleId, actions, conditions, pattern }: NewPushRule, enabled: boolean): JsonObject => ({
  rule_id: ruleId,
  default: false,
  enabled,
  actions,
  ...((kind === "override" || kind === "underride") && { conditions }),
  ...(kind === "content" && { pattern })
})

/** Index at which a rule goes into those of its kind without it; -1 when the rule that it is placed by isn't there. */
const placeOf = (others: ReadonlyArray<JsonObject>, { before, after }: NewPushRule): number => {
  const anchor = before ?? after
  if (anchor === undefined) return 0
  const at = others.findIndex((rule) => rule.rule_id === anchor && rule.default !== true)
  return at < 0 || before !== undefined ? at : at + 1
}

/** `PUT /pushrules/global/{kind}/{ruleId}`: sets a rule of the user's, which stays switched off if it was. */
export const setPushRule = (state: ModelState, user: User, rule: NewPushRule): Outcome<void> => {
  const reason = whyRefused(rule)
  if (reason !== undefined) return refuse(400, "M_UNKNOWN", reason)
  const rules = pushRulesOfKind(user, rule.kind)
  const known = rules.find(({ rule_id }) => rule_id === rule.ruleId)
  const others = rules.filter((other) => other !== known)
  const place = placeOf(others, rule)
  return place < 0
    ? refuse(400, "M_UNKNOWN", `there is no push rule ${rule.kind}/${rule.before ?? rule.after} to place it by`)
    : replace(state, user, rule.kind, others.toSpliced(place, 0, jsonOf(rule, known?.enabled !== false)))
}
