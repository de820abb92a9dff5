/**
 * What a homeserver answers, by the name of the call: recorded from the dev homeserver while a client uses it, and if asked from a real
 * Synapse as well, which comes first then.
 *
 * Gotchas: nothing is kept on a disk; what the model answers next year is fuzzed next year.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Homeserver, type SlidingSync } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect, Layer, Redacted, Result } from "effect"
import { DevHomeserver, layer as layerDev } from "../../packages/platform/src/dev/DevHomeserver.ts"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import { HttpTransport } from "../../packages/platform/src/http/HttpTransport.ts"
import * as Login from "../../packages/platform/src/http/Login.ts"
import * as NodeHomeserver from "../../packages/platform/src/http/NodeHomeserver.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import * as StoryAccounts from "../../packages/platform/src/story/StoryAccounts.ts"
import * as StoryHomeserver from "../../packages/platform/src/story/StoryHomeserver.ts"

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

/** What is asked of a homeserver by somebody who is in a room with another. */
const conversation = Effect.fnUntraced(function* (session: AccountSession, roomId: string) {
  const homeserver = yield* Homeserver.Homeserver
  const say = (type: string, txnId: string, content: { readonly [key: string]: unknown }) =>
    homeserver.sendEvent({ roomId, type, txnId, content })
  const root = yield* say("m.room.message", "0", { msgtype: "m.text", body: "what about dinner?" })
  const first = yield* say("m.room.message", "1", {
    msgtype: "m.text",
    body: "hello @bob",
    "m.mentions": { user_ids: ["@bob:localhost"] },
    "m.relates_to": { rel_type: "m.thread", event_id: root }
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
})

/** Logs in, and has the conversation. */
const converse = Effect.fnUntraced(function* (baseUrl: string, user: string, password: string, roomId: string) {
  const session = yield* Login.byPassword({ homeserver: baseUrl, user, password: Redacted.make(password) })
  yield* Login.useAccessToken({ homeserver: baseUrl, accessToken: session.accessToken })
  const services = Layer.mergeAll(SessionStore.layerMemory(session), RefreshLock.layerSingleProcess)
  yield* Effect.provide(conversation(session, roomId), Layer.provide(HttpHomeserver.layer, services))
})

const onDev = Effect.gen(function* () {
  const { baseUrl, host } = yield* DevHomeserver
  const { roomId } = yield* host.attempt((state, now) =>
    Result.gen(function* () {
      const alice = yield* HomeserverModel.addUser(state, { localpart: "alice", password: "a", displayName: "Alice" })
      const bob = yield* HomeserverModel.addUser(state, { localpart: "bob", password: "b", displayName: "Bob" })
      HomeserverModel.addRooms(state, alice, { count: 3 }, now)
      return HomeserverModel.createRoom(state, alice, { name: "Kitchen", invite: [bob.userId] }, now)
    })
  )
  yield* converse(baseUrl, "alice", "a", roomId)
})

const onSynapse = Effect.gen(function* () {
  const { baseUrl, register } = yield* StoryHomeserver.start("synapse", () => Effect.void)
  const [owner, guest] = [yield* register("alice"), yield* register("bob")]
  const [roomId] = yield* StoryAccounts.createRooms(baseUrl, {
    owner,
    guests: [guest],
    count: 4,
    shared: 1,
    onProgress: () => Effect.void
  })
  // The password is the name.
  yield* converse(baseUrl, "alice", "alice", roomId!)
}).pipe(Effect.provide(NodeServices.layer))

/** Records the corpus: a short conversation per spelling, and one on Synapse. */
export const record = (kind: StoryHomeserver.Kind): Effect.Effect<Corpus> =>
  Effect.gen(function* () {
    const answers = new Map<string, Array<string>>()
    if (kind === "synapse") yield* Effect.scoped(Effect.provide(onSynapse, recorder(answers)))
    for (const spelling of ["unstable", "v4"] as const) {
      yield* Effect.provide(onDev, [
        Layer.fresh(layerDev({ port: 0, spellings: [spelling] })),
        Layer.fresh(recorder(answers))
      ]).pipe(Effect.scoped)
    }
    answers.set("refresh", [JSON.stringify({ access_token: "a", refresh_token: "r", expires_in_ms: 60_000 })])
    return answers
  }).pipe(Effect.orDie)
