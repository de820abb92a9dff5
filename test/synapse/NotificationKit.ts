/**
 * Pushes of an account on a homeserver, resolved as a process does that a push has started; and the dev homeserver in the place
 * of Synapse, so that the same stories are told of both.
 *
 * Gotchas: each resolution has a notifier of its own, which knows nothing but what is stored.
 *
 * Not here: people and rooms (`ServiceKit.ts`).
 */
import type { MatrixEvent, NotificationItem } from "@twinloop/core"
import { NotificationClient } from "@twinloop/core"
import { StoreKey, Twinloop } from "@twinloop/platform"
import { DevHomeserver } from "@twinloop/platform/dev"
import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Api from "../../packages/platform/src/synapse/SynapseApi.ts"
import * as Kit from "./ServiceKit.ts"

export type Result = NotificationItem.NotificationResult
export type Item = NotificationItem.NotificationItem

/** A client in a composition of its own, as in a process of its own, until the scope closes. */
export const notifier = ({ database }: Pick<Kit.Account, "database">) =>
  Effect.map(
    Effect.orDie(
      Layer.build(Twinloop.layerNotifier({ database, encryption: StoreKey.StoreKey.layerFile(`${database}.key`) }))
    ),
    (context) => Context.get(context, NotificationClient.NotificationClient)
  )

/** Resolves pushes as a process that they have started, which ends when everything is done. */
export const resolveMany = (
  account: Pick<Kit.Account, "database">,
  requests: ReadonlyArray<NotificationItem.NotificationRequest>
): Effect.Effect<ReadonlyArray<Result>> =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* notifier(account)
      const results = yield* client.resolveMany(requests)
      yield* client.settled
      return results
    })
  )

/** The same for one push. */
export const resolve = (account: Pick<Kit.Account, "database">, roomId: string, eventId: string) =>
  Effect.map(resolveMany(account, [{ roomId, eventId }]), ([result]) => result!)

/** What is shown, or the test fails with what there is instead. */
export const itemOf = (result: Result): Item => {
  assert(result._tag === "Event", JSON.stringify(result, undefined, 2))
  return result.item
}

/** The text of a message that is shown. */
export const bodyOf = (result: Result): string => String(itemOf(result).event.content["body"])

/** A result in a few words, for comparing. */
export const brief = (result: Result): string => {
  switch (result._tag) {
    case "FilteredOut":
      return `${result.reason} ${result.rule ?? ""}`.trim()
    case "Event": {
      const { isMention, isNoisy, kind } = result.item
      return [kind, ...(isNoisy ? ["noisy"] : []), ...(isMention ? ["mention"] : [])].join(" ")
    }
    default:
      return result._tag
  }
}

/** The id of a person's member event in a room, as another member sees it. */
export const memberEventId = Effect.fnUntraced(function* (by: Kit.Person, roomId: string, { userId }: Kit.Person) {
  const { json } = yield* Kit.ask(by, "GET", Kit.roomPath(roomId, "state"))
  const events = json as ReadonlyArray<MatrixEvent.StateEvent>
  const event = events.find(({ state_key, type }) => type === "m.room.member" && state_key === userId)
  return String(event?.event_id)
})

/** Sets global account data. */
export const setAccountData = (person: Kit.Person, type: string, content: Kit.Json) =>
  Kit.call(person, "PUT", Kit.accountDataPath(person, `account_data/${type}`), content)

/** Sets a push rule; `rule` is its kind and its id. */
export const setPushRule = (person: Kit.Person, kind: string, id: string, body: Kit.Json) =>
  Kit.call(person, "PUT", `/_matrix/client/v3/pushrules/global/${kind}/${encodeURIComponent(id)}`, body)

export const setProfile = (person: Kit.Person, field: "avatar_url" | "displayname", value: string) =>
  Kit.call(person, "PUT", `/_matrix/client/v3/profile/${person.userId}/${field}`, { [field]: value })

/** Takes an event back. */
export const redact = (by: Kit.Person, roomId: string, eventId: string) =>
  Kit.call(by, "PUT", Kit.roomPath(roomId, `redact/${encodeURIComponent(eventId)}/${eventId.slice(1, 9)}`), {})

// --- the dev homeserver

interface NewUser {
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
}

/**
 * A dev homeserver at an address, which is asked like Synapse. What is registered logs in at `sessions`, and everything else is
 * asked at `requests`, which may be two ways to the same one.
 */
export const devAt = (sessions: string, requests: string): Synapse["Service"] =>
  Synapse.of({
    baseUrl: requests,
    directory: "",
    register: Effect.fnUntraced(function* ({ password, username }: Api.Registration) {
      const body = { username, ...(password !== undefined && { password }) }
      const { json } = yield* Api.request(requests, { method: "POST", path: "/_twinloop/users", body })
      const { access_token, device_id: deviceId, user_id: userId } = json as unknown as NewUser
      return { homeserver: sessions, userId, deviceId, accessToken: Redacted.make(access_token) }
    }),
    request: (request) => Api.request(requests, request),
    expirePosition: () => Effect.die("the dev homeserver is asked otherwise"),
    outage: () => Effect.die("the dev homeserver has none")
  })

/** The dev homeserver, which is asked like Synapse. */
export const layerDev = (accessTokenLifetimeMillis: number): Layer.Layer<Synapse> =>
  Layer.effect(
    Synapse,
    Effect.map(DevHomeserver.DevHomeserver, ({ baseUrl }) => devAt(baseUrl, baseUrl))
  ).pipe(Layer.provide(Layer.fresh(DevHomeserver.layer({ port: 0, accessTokenLifetimeMillis }))), Layer.orDie)
