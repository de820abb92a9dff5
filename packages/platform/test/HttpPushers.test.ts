import { assert, describe, it } from "@effect/vitest"
import { Homeserver } from "@twinloop/core"
import type { Pusher } from "@twinloop/core"
import { Effect } from "effect"
import {
  type Answer,
  clientOf,
  json,
  scriptedServer,
  type ScriptedServer,
  sessionAt
} from "./HttpHomeserver.fixture.ts"

const pushersPath = "/_matrix/client/v3/pushers"
const setPath = `${pushersPath}/set`
const threadPath = "/_matrix/client/unstable/io.element.msc4306/rooms/!a:test/thread/$root/subscription"

type Client = Homeserver.Homeserver["Service"]

/** Runs something against a server that gives these answers on a route. */
const answering = <A, E>(
  route: string,
  answers: ReadonlyArray<Answer>,
  use: (homeserver: Client, server: ScriptedServer) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const server = yield* scriptedServer
    server.on(route, ...answers)
    const run = Effect.flatMap(Homeserver.Homeserver, (homeserver) => use(homeserver, server))
    return yield* Effect.provide(run, clientOf(sessionAt(server)))
  })

const pusher: Pusher.Pusher = {
  appId: "org.twinloop.test",
  pushKey: "unguessable-push-key",
  appDisplayName: "Test",
  deviceDisplayName: "Phone",
  lang: "en",
  url: "https://push.test/_matrix/push/v1/notify",
  format: "event_id_only",
  data: { room_ids: ["!a:test"], url: "https://else.where" }
}

const wire = {
  kind: "http",
  app_id: "org.twinloop.test",
  pushkey: "unguessable-push-key",
  app_display_name: "Test",
  device_display_name: "Phone",
  lang: "en",
  data: { room_ids: ["!a:test"], url: pusher.url, format: "event_id_only" }
}

describe("HttpHomeserver pushers", () => {
  it.live("are the account's HTTP pushers; other kinds and malformed ones are left out", () => {
    const full = { ...wire, app_id: "full", profile_tag: "", data: { url: pusher.url } }
    const answer = [wire, { ...wire, kind: "email" }, { ...full, profile_tag: "tag" }, full, { ...wire, data: {} }, 7]
    return answering(`GET ${pushersPath}`, [json(200, { pushers: answer }), json(200, {})], (homeserver) =>
      Effect.gen(function* () {
        const one = { ...pusher, data: { room_ids: ["!a:test"] } }
        const { data: _, ...other } = { ...pusher, appId: "full", format: "full" as const }
        assert.deepStrictEqual(yield* homeserver.pushers, [one, { ...other, profileTag: "tag" }, other])
        assert.strictEqual((yield* Effect.flip(homeserver.pushers)).reason._tag, "BadResponse")
      })
    )
  })

  it.live("are added beside those of other accounts, and removed by their id", () =>
    answering(`POST ${setPath}`, [json(200, {})], (homeserver, server) =>
      Effect.gen(function* () {
        yield* homeserver.setPusher(pusher)
        yield* homeserver.setPusher({ ...pusher, format: "full", profileTag: "tag", data: { format: "event_id_only" } })
        yield* homeserver.removePusher(pusher)
        assert.deepStrictEqual(
          server.asked(setPath).map(({ body }) => body),
          [
            { ...wire, append: true },
            { ...wire, data: { url: pusher.url }, profile_tag: "tag", append: true },
            { kind: null, app_id: pusher.appId, pushkey: pusher.pushKey }
          ]
        )
      })
    )
  )

  it.live("that are refused say what the homeserver says and what to look at, and never the push key", () => {
    const error = `Config Error: 'url' must have a path of '/_matrix/push/v1/notify' (${pusher.pushKey})`
    const refused = json(400, { errcode: "M_MISSING_PARAM", error })
    return answering(`POST ${setPath}`, [refused], (homeserver) =>
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(homeserver.setPusher(pusher))
        assert.strictEqual(reason._tag, "BadRequest")
        assert.include(reason.message, "Config Error: 'url' must have a path of")
        assert.include(reason.message, "Check the pusher: its URL must be the push gateway's")
        assert.notInclude(reason.message, pusher.pushKey)
      })
    )
  })
})

describe("HttpHomeserver thread subscriptions", () => {
  const notFound = json(404, { errcode: "M_NOT_FOUND", error: "Not subscribed." })
  const unknown = json(404, { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" })

  it.live("tell a thread that is followed from one that isn't, and from a homeserver that has none", () =>
    answering(`GET ${threadPath}`, [json(200, { automatic: true }), notFound, unknown], (homeserver) =>
      Effect.gen(function* () {
        const asked = homeserver.isThreadSubscribed("!a:test", "$root")
        assert.isTrue(yield* asked)
        assert.isFalse(yield* asked)
        assert.strictEqual((yield* Effect.flip(asked)).reason._tag, "Unsupported")
      })
    )
  )
})
