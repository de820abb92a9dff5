/**
 * The dev homeserver's endpoints about pushes: pushers and push rules.
 *
 * Source: client-server API v1.12, "Push notifications". The rules of the scope `global`, which is the only one that there is.
 *
 * Not here: sending what is pushed (`PushSender.ts`).
 */
import { Result, Schema } from "effect"
import { HomeserverModel } from "./Model.ts"
import { AnyObject, bodyOf, type Endpoint, type Outcome, param, user } from "./DevRoute.ts"
import type { UserCall } from "./DevRoute.ts"

const v3 = "/_matrix/client/v3"
const rules = `${v3}/pushrules` as const
const rule = `${rules}/global/:kind/:ruleId` as const

const Actions = Schema.Array(Schema.Union([Schema.String, AnyObject]))
const NewRule = Schema.Struct({
  actions: Actions,
  conditions: Schema.optionalKey(Schema.Array(AnyObject)),
  pattern: Schema.optionalKey(Schema.String)
})

const idOf = (call: UserCall): HomeserverModel.PushRuleId => ({
  kind: param(call, "kind"),
  ruleId: param(call, "ruleId")
})

const setRule = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, NewRule), (body) => {
    const { after, before } = call.query
    const place = { ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) }
    return HomeserverModel.setPushRule(call.state, call.requester.user, { ...idOf(call), ...body, ...place })
  })

/** Reads one member of a rule, as an object with that member. */
const getMember =
  (member: "enabled" | "actions") =>
  (call: UserCall): Outcome<unknown> =>
    Result.map(HomeserverModel.pushRule(call.requester.user, idOf(call)), (found) => ({ [member]: found[member] }))

const change = (call: UserCall, body: Outcome<Parameters<typeof HomeserverModel.changePushRule>[3]>) =>
  Result.flatMap(body, (changed) =>
    HomeserverModel.changePushRule(call.state, call.requester.user, idOf(call), changed)
  )

/** `GET /pushrules/global/{kind}`: the rules of one kind; none where there is no such kind. */
const rulesOfKind = (call: UserCall): Outcome<unknown> =>
  Result.succeed(HomeserverModel.pushRulesOfKind(call.requester.user, param(call, "kind")))

const aboutRules: ReadonlyArray<Endpoint> = [
  user("GET", rules, ({ requester }) => Result.succeed(HomeserverModel.pushRules(requester.user))),
  user("GET", `${rules}/global`, ({ requester }) => Result.succeed(HomeserverModel.pushRules(requester.user).global)),
  user("GET", `${rules}/global/:kind`, rulesOfKind),
  user("GET", rule, (call) => HomeserverModel.pushRule(call.requester.user, idOf(call))),
  user("PUT", rule, setRule),
  user("DELETE", rule, (call) => HomeserverModel.deletePushRule(call.state, call.requester.user, idOf(call))),
  user("GET", `${rule}/enabled`, getMember("enabled")),
  user("PUT", `${rule}/enabled`, (call) => change(call, bodyOf(call, Schema.Struct({ enabled: Schema.Boolean })))),
  user("GET", `${rule}/actions`, getMember("actions")),
  user("PUT", `${rule}/actions`, (call) => change(call, bodyOf(call, Schema.Struct({ actions: Actions }))))
]

/** Pushers and push rules. */
export const endpoints: ReadonlyArray<Endpoint> = [
  user("GET", `${v3}/pushers`, ({ requester }) => Result.succeed({ pushers: HomeserverModel.pushers(requester.user) })),
  user("POST", `${v3}/pushers/set`, (call) =>
    Result.flatMap(bodyOf(call, AnyObject), (pusher) =>
      HomeserverModel.setPusher(call.state, call.requester, pusher, call.nowMillis)
    )
  ),
  ...aboutRules
]
