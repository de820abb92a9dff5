/**
 * What a homeserver answers, by the name of the call: recorded from the dev homeserver while a client uses it.
 *
 * Gotchas: nothing is kept on a disk; what the model answers next year is fuzzed next year.
 */
import { Homeserver, type SlidingSync } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect, Layer, Redacted, Result } from "effect"
import { DevHomeserver, layer as layerDev } from "../../packages/platform/src/dev/DevHomeserver.ts"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import { HttpTransport } from "../../packages/platform/src/http/HttpTransport.ts"
import * as Login from "../../packages/platform/src/http/Login.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"

/** Good answers, by the end of the path that was asked. */
export type Corpus = ReadonlyMap<string, ReadonlyArray<string>>

/** The names of the calls, by their paths. */
const callNames: ReadonlyArray<readonly [name: string, path: RegExp]> = [
  ["unstable", /simplified_msc3575\/sync/],
  ["v4", /v4\/sync/],
  ["context", /\/context\//],
  ["members", /\/members/],
  ["versions", /\/versions/],
  ["flows", /GET .*\/login/],
  ["login", /POST .*\/login/],
  ["refresh", /\/refresh/],
  ["keys", /\/keys\//],
  ["pushers", /GET .*\/pushers/],
  ["whoami", /\/whoami/]
]

/** Which call a request is. */
export const nameOf = (method: string, url: string): string =>
  callNames.find(([, path]) => path.test(`${method} ${url}`))?.[0] ?? "other"

/** What the loops and a notification ask for, all at once. */
export const everything: SlidingSync.SyncRequest = {
  connId: "fuzz",
  timeoutMillis: 0,
  lists: { all: { range: [0, 9], timelineLimit: 5, requiredState: [["*", "*"]] } },
  roomSubscriptions: {},
  extensions: { toDevice: { limit: 100 }, e2ee: true, accountData: true, receipts: true, typing: true }
}

const recorder = (answers: Map<string, Array<string>>) =>
  Layer.effect(
    HttpTransport,
    Effect.map(HttpTransport, (transport) =>
      HttpTransport.of({
        exchange: (request) =>
          Effect.tap(transport.exchange(request), ({ status, text }) =>
            Effect.sync(() => {
              if (status >= 300) return
              const name = nameOf(request.method, request.url)
              answers.set(name, [...(answers.get(name) ?? []), text])
            })
          )
      })
    )
  ).pipe(Layer.provide(NodeHomeserver.layerTransport))

/** Two people, a room with some of everything in it, and what is asked of it. */
const conversation = Effect.gen(function* () {
  const { baseUrl, host } = yield* DevHomeserver
  const room = yield* host.attempt((state, now) =>
    Result.gen(function* () {
      const alice = yield* HomeserverModel.addUser(state, { localpart: "alice", password: "a", displayName: "Alice" })
      const bob = yield* HomeserverModel.addUser(state, { localpart: "bob", password: "b", displayName: "Bob" })
      HomeserverModel.addRooms(state, alice, { count: 3 }, now)
      const made = HomeserverModel.createRoom(state, alice, { name: "Kitchen", invite: [bob.userId] }, now)
      return { made, alice, bob }
    })
  )
  const session = yield* Login.byPassword({ homeserver: baseUrl, user: "alice", password: Redacted.make("a") })
  yield* Effect.gen(function* () {
    const homeserver = yield* Homeserver.Homeserver
    const { roomId } = room.made
    const say = (type: string, txnId: string, content: { readonly [key: string]: unknown }) =>
      homeserver.sendEvent({ roomId, type, txnId, content })
    const first = yield* say("m.room.message", "1", {
      msgtype: "m.text",
      body: "hello @bob",
      "m.mentions": { user_ids: ["@bob:localhost"] },
      "m.relates_to": { rel_type: "m.thread", event_id: "$root" }
    })
    yield* say("m.room.encrypted", "2", {
      algorithm: "m.megolm.v1.aes-sha2",
      ciphertext: "AwgAEnB",
      session_id: "s",
      sender_key: "k",
      device_id: "D"
    })
    yield* say("m.poll.start", "3", { "m.poll": { question: { "m.text": [{ body: "?" }] } } })
    yield* homeserver.sendToDevice({
      type: "m.room_key",
      txnId: "4",
      messages: { [session.userId]: { [session.deviceId]: { algorithm: "m.megolm.v1.aes-sha2", room_id: roomId } } }
    })
    yield* homeserver.sync(everything)
    yield* homeserver.eventContext(roomId, first)
    yield* homeserver.members(roomId)
    yield* homeserver.capabilities
    yield* homeserver.pushers
    yield* homeserver.keys({ kind: "query", body: { device_keys: { [session.userId]: [] } } })
    yield* homeserver.keys({ kind: "upload", body: {} })
  }).pipe(
    Effect.provide(
      HttpHomeserver.layer.pipe(Layer.provide([SessionStore.layerMemory(session), RefreshLock.layerSingleProcess]))
    )
  )
})

/** Records the corpus: one short conversation per spelling. */
export const record: Effect.Effect<Corpus> = Effect.gen(function* () {
  const answers = new Map<string, Array<string>>()
  for (const spelling of ["unstable", "v4"] as const) {
    yield* Effect.provide(conversation, [
      Layer.fresh(layerDev({ port: 0, spellings: [spelling] })),
      Layer.fresh(recorder(answers))
    ]).pipe(Effect.scoped)
  }
  answers.set("refresh", [JSON.stringify({ access_token: "a", refresh_token: "r", expires_in_ms: 60_000 })])
  answers.set("whoami", [JSON.stringify({ user_id: "@alice:localhost", device_id: "D" })])
  return answers
}).pipe(Effect.orDie)
