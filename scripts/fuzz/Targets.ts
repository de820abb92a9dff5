/**
 * What is fuzzed: each target takes a text that somebody else may have written, the way that the program takes it.
 *
 * A target fails its input when it dies: a typed error is an answer, a defect is none. What is decoded goes on as far as the
 * program would let it: into the store, the room list, the notification and its words.
 */
import {
  EventDecryptor,
  Homeserver,
  MainIngest,
  MatrixEvent,
  NotificationFacts,
  NotificationSink,
  NotificationText,
  PushNotification,
  PushRules,
  RoomFilters,
  RoomListMachine,
  RoomSorters,
  type SlidingSync,
  SlidingSyncWire,
  type SyncStore
} from "@twinloop/core"
import { Context, Effect, HashMap, Layer, Redacted, Result, Schema } from "effect"
import type { Scope } from "effect"
import { RpcSerialization } from "effect/rpc"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as NotificationRules from "../../packages/core/src/notification/NotificationRules.ts"
import * as ControlProtocol from "../../packages/platform/src/control/ControlProtocol.ts"
import * as KeyCodec from "../../packages/platform/src/crypto/indexeddb/KeyCodec.ts"
import * as ValueCodec from "../../packages/platform/src/crypto/indexeddb/ValueCodec.ts"
import * as OlmReader from "../../packages/platform/src/crypto/OlmReader.ts"
import { StoreKey } from "../../packages/platform/src/crypto/StoreKey.ts"
import * as HttpHomeserver from "../../packages/platform/src/http/HttpHomeserver.ts"
import { HttpTransport } from "../../packages/platform/src/http/HttpTransport.ts"
import * as Login from "../../packages/platform/src/http/Login.ts"
import { RefreshLock } from "../../packages/platform/src/http/RefreshLock.ts"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import * as SessionStore from "../../packages/platform/src/http/SessionStore.ts"
import * as JsonLinesSink from "../../packages/platform/src/push/sinks/JsonLinesSink.ts"
import * as SinkRecord from "../../packages/platform/src/push/sinks/SinkRecord.ts"
import * as SqliteStores from "../../packages/platform/src/sqlite/SqliteStores.ts"
import type * as StoryHomeserver from "../../packages/platform/src/story/StoryHomeserver.ts"
import type { Chance } from "./Chance.ts"
import { below, one } from "./Chance.ts"
import * as CiphertextTargets from "./CiphertextTargets.ts"
import * as Corpus from "./Corpus.ts"
import * as StoredTargets from "./StoredTargets.ts"

/** One thing that reads what others wrote. */
export interface Target {
  readonly name: string
  /** How often it is taken, among the others. */
  readonly weight: number
  /** Good texts, to be changed. */
  readonly seeds: ReadonlyArray<string>
  /** Takes a text; must not die, and must not take long. */
  readonly take: (text: string, chance: Chance) => Effect.Effect<unknown, unknown>
}

/** Who looks at what Alice said: of one's own events nobody is notified. */
const me = "@bob:localhost"

// --- a client whose homeserver is a text

const oldToken = "Bearer access-token"

/** What the homeserver says next: the text, to the call that is fuzzed, and good answers to the others. */
interface Said {
  name: string
  status: number
  text: string
}

const good = (corpus: Corpus.Corpus, name: string): string => corpus.get(name)?.[0] ?? "{}"

const expired = { status: 401, text: `{"errcode":"M_UNKNOWN_TOKEN","error":"expired"}` }
const absent = { status: 404, text: `{"errcode":"M_UNRECOGNIZED"}` }

const answerOf = (corpus: Corpus.Corpus, said: Said, name: string, token: string | undefined) => {
  if (name === said.name) return { status: said.status, text: said.text }
  // A refresh is asked for only by who has been refused, and the other spelling by whom the first one isn't for.
  if (said.name === "refresh" && token === oldToken) return expired
  return said.name === "v4" && name === "unstable" ? absent : { status: 200, text: good(corpus, name) }
}

const transport = (corpus: Corpus.Corpus, said: Said) =>
  Layer.succeed(
    HttpTransport,
    HttpTransport.of({
      exchange: ({ headers, method, url }) =>
        Effect.sync(() => ({
          headers: {},
          ...answerOf(corpus, said, Corpus.nameOf(method, url), headers["authorization"])
        }))
    })
  )

const session: AccountSession = {
  homeserver: "http://127.0.0.1:1",
  userId: me,
  deviceId: "D",
  accessToken: Redacted.make("access-token"),
  refreshToken: Redacted.make("refresh-token")
}

type Call = (homeserver: Homeserver.Homeserver["Service"], judged: Judging) => Effect.Effect<unknown, unknown>

/** What else an answer goes through. */
interface Judging {
  readonly sync: (response: SlidingSync.SyncResponse) => Effect.Effect<unknown, unknown>
}

const calls: ReadonlyArray<readonly [name: string, weight: number, call: Call]> = [
  ["unstable", 30, (homeserver, { sync }) => Effect.flatMap(homeserver.sync(Corpus.everything), sync)],
  ["v4", 30, (homeserver, { sync }) => Effect.flatMap(homeserver.sync(Corpus.everything), sync)],
  ["context", 8, (homeserver) => Effect.map(homeserver.eventContext("!r:x", "$e"), judgeContext)],
  ["members", 4, (homeserver) => homeserver.members("!r:x")],
  ["versions", 2, (homeserver) => homeserver.capabilities],
  ["pushers", 2, (homeserver) => homeserver.pushers],
  ["keys", 2, (homeserver) => homeserver.keys({ kind: "query", body: {} })],
  ["refresh", 2, (homeserver) => homeserver.capabilities],
  ["other", 2, (homeserver) => homeserver.sendEvent({ roomId: "!r:x", type: "t", txnId: "1", content: {} })]
]

/** Statuses that an answer has now and then; most often it is fine. */
const statuses = [400, 401, 403, 404, 413, 429, 500, 502]

const httpTargets = (corpus: Corpus.Corpus, judging: Judging): ReadonlyArray<Target> =>
  calls.map(([name, weight, call]) => ({
    name: `http ${name}`,
    weight,
    seeds: corpus.get(name) ?? [`{"event_id":"$e"}`],
    take: (text, chance) => {
      const said = { name, text, status: chance() < 0.9 ? 200 : one(chance, statuses) }
      return Effect.flatMap(HttpHomeserver.make, (homeserver) => call(homeserver, judging)).pipe(
        Effect.provide([transport(corpus, said), SessionStore.layerMemory(session), RefreshLock.layerSingleProcess])
      )
    }
  }))

const { accessToken, homeserver } = session

const byPassword = Login.byPassword({ homeserver, user: "alice", password: Redacted.make("a password") })
const byAccessToken = Login.useAccessToken({ homeserver, accessToken })

const loginTargets = (corpus: Corpus.Corpus): ReadonlyArray<Target> =>
  (
    [
      ["login", byPassword],
      ["flows", byPassword],
      ["whoami", byAccessToken]
    ] as const
  ).map(([name, login]) => ({
    name: `http ${name}`,
    weight: 2,
    seeds: corpus.get(name) ?? [],
    take: (text, chance) =>
      login.pipe(
        Effect.provide(transport(corpus, { name, text, status: chance() < 0.8 ? 200 : one(chance, statuses) }))
      )
  }))

// --- what the client makes of it

const textsOf = (facts: NotificationFacts.Facts, roomId: string, event: MatrixEvent.TimelineEvent): unknown => {
  const request = { roomId, eventId: event.event_id }
  const resolved = { request, result: NotificationRules.judge(facts, { roomId, event }) }
  return [NotificationText.textOf(resolved), SinkRecord.jsonOf(resolved, 0)]
}

const judgeContext = ({ event, state }: Homeserver.EventContext): unknown =>
  textsOf(NotificationFacts.withContext(NotificationFacts.none(me), "!r:x", state), "!r:x", event)

const listOf = (response: SlidingSync.SyncResponse): MainIngest.Ingested => {
  const context = { ownUserId: me, connId: "fuzz" }
  const first = MainIngest.ingest({ ...context, rooms: new Map() }, response)
  const rooms = new Map(first.changed.map((room) => [room.roomId, room]))
  // Told twice, it meets what it made of it the first time.
  const { changed } = MainIngest.ingest({ ...context, rooms }, { ...response, rooms: response.rooms.toReversed() })
  const known = HashMap.fromIterable(changed.map((room) => [room.roomId, room] as const))
  const view = RoomListMachine.make(HashMap.empty(), {
    filter: RoomFilters.any([RoomFilters.nameFuzzy("al"), RoomFilters.deduplicateVersions, RoomFilters.unread]),
    sorter: RoomSorters.byName
  })
  const touched = changed.map(({ roomId }) => roomId)
  RoomListMachine.entries(RoomListMachine.step(view, { _tag: "Update", rooms: known, touched })[0])
  return first
}

const factsOf = (response: SlidingSync.SyncResponse): unknown => {
  const facts = NotificationFacts.withSync(NotificationFacts.none(me), response)
  return response.rooms.map(({ roomId, timeline }) => timeline.map((event) => textsOf(facts, roomId, event)))
}

/** Through the room list and the notification; into the database, one of so many, since that takes ten times as long. */
const makeJudging = (store: SyncStore.SyncStore["Service"]): Judging => {
  let count = 0
  return {
    sync: (response) =>
      Effect.suspend(() => {
        const { commit } = listOf(response)
        factsOf(response)
        if (count++ % 8 !== 0) return Effect.void
        return Effect.andThen(
          store.expireMain("fuzz"),
          Effect.andThen(store.commitMain(commit), store.loadMain("fuzz"))
        )
      })
  }
}

// --- pushes, rules, lines

const json = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

/** Takes what a text means as JSON; there is nothing to take where it is none. */
const ofJson = (take: (value: unknown) => unknown) => (text: string) => Effect.sync(() => Result.map(json(text), take))

const pushSeed = JSON.stringify({
  notification: {
    event_id: "$e",
    room_id: "!r:x",
    prio: "high",
    counts: { unread: 2, missed_calls: 1 },
    devices: [
      { app_id: "a", pushkey: "k", pushkey_ts: 1, data: { format: "event_id_only" }, tweaks: { sound: "bing" } }
    ]
  }
})

const rulesSeed = JSON.stringify({
  global: {
    override: [
      {
        rule_id: ".m.rule.contains",
        default: false,
        enabled: true,
        conditions: [
          { kind: "event_match", key: "content.body", pattern: "*he?lo*" },
          { kind: "event_property_is", key: "content.m\\.mentions.room", value: true },
          { kind: "event_property_contains", key: "content.m\\.mentions.user_ids", value: me },
          { kind: "room_member_count", is: ">=2" },
          { kind: "contains_display_name" },
          { kind: "sender_notification_permission", key: "room" }
        ],
        actions: ["notify", { set_tweak: "sound", value: "default" }, { set_tweak: "highlight" }]
      }
    ],
    content: [{ rule_id: "alice", default: false, enabled: true, pattern: "alice", actions: ["notify"] }],
    room: [{ rule_id: "!r:x", default: false, enabled: true, actions: [] }],
    sender: [{ rule_id: "@b:x", default: false, enabled: true, actions: ["notify"] }],
    underride: []
  }
})

const event: MatrixEvent.TimelineEvent = {
  type: "m.room.message",
  sender: "@b:x",
  event_id: "$e",
  origin_server_ts: 1,
  content: { body: `hello alice ${"a".repeat(2_000)}`, "m.mentions": { room: true, user_ids: [me] } }
}

const judgeRules = (content: unknown): unknown => {
  if (typeof content !== "object" || content === null) return undefined
  const type = "m.push_rules"
  const facts = NotificationFacts.withAccountData(NotificationFacts.none(me), [{ type, content: content as never }])
  PushRules.decode(content as never)
  return textsOf(facts, "!r:x", event)
}

const statusSeed = JSON.stringify({
  pid: 1,
  role: "main",
  state: "running",
  main: { state: "Running", loaded: 1, total: 2 },
  lease: { holder: "a", isMine: true, generation: 7, waiters: ["b"] },
  encryption: { fingerprint: "x", roomKeys: 3 }
})

const lineSeed = `{"_tag":"Request","id":"1","tag":"Suspend","payload":{"deadlineMillis":5},"headers":[]}\n{"_tag":"Ping"}\n`

const decodeStatus = Schema.decodeUnknownResult(ControlProtocol.Status)
const decodeReport = Schema.decodeUnknownResult(ControlProtocol.StopReport)

/** The lines are the library's to read; that it throws for what is none is its way to say so. */
const takeLines = (text: string): Effect.Effect<unknown, unknown> =>
  Effect.try(() => RpcSerialization.makeNdjson({ maxBufferSize: 65_536 }).makeUnsafe().decode(text))

const requestSeeds = (["unstable", "v4"] as const).map((spelling) => {
  const { body, query } = SlidingSyncWire.encodeRequest(spelling, Corpus.everything)
  return JSON.stringify({ spelling, body, query })
})

/** As the dev homeserver takes it. */
const takeRequest = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return undefined
  const { body, query, spelling } = value as { readonly [name: string]: unknown }
  const object = typeof query === "object" && query !== null ? { ...query } : {}
  return SlidingSyncWire.decodeRequest(spelling === "v4" ? "v4" : "unstable", { body, query: object })
}

const binary = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const valueSeeds = [{ version: 1, ciphertext: "AwgAEnB".repeat(9), nonce: "n" }, [1, -2, 2.5, null, true, "ü"], "x"]
const keySeeds: ReadonlyArray<KeyCodec.Key> = [
  ["a key", 1],
  "another",
  7.5,
  [["!r:x"], new Uint8Array([1, 2, 3]).buffer]
]

/** Records of the crypto store are bytes, and their decoders throw an `Error` at what is none. */
const ofBytes =
  (decode: (bytes: Uint8Array) => unknown) =>
  (text: string): Effect.Effect<unknown, unknown> =>
    Effect.try(() => decode(Buffer.from(text, "latin1")))

const plainTargets: ReadonlyArray<Target> = [
  { name: "sync request", weight: 3, seeds: requestSeeds, take: ofJson(takeRequest) },
  {
    name: "crypto record",
    weight: 3,
    seeds: valueSeeds.map((value) => binary(ValueCodec.encode(value))),
    take: ofBytes(ValueCodec.decode)
  },
  {
    name: "crypto record's key",
    weight: 2,
    seeds: keySeeds.map((key) => binary(KeyCodec.encode(key))),
    take: ofBytes(KeyCodec.decode)
  },
  { name: "push body", weight: 8, seeds: [pushSeed], take: ofJson(PushNotification.decode) },
  { name: "push rules", weight: 10, seeds: [rulesSeed], take: ofJson(judgeRules) },
  {
    name: "control status",
    weight: 2,
    seeds: [statusSeed],
    take: ofJson((value) => [decodeStatus(value), decodeReport(value)])
  },
  { name: "control line", weight: 2, seeds: [lineSeed], take: takeLines }
]

// --- files, and encrypted events

const keyTarget = (directory: string): Target => ({
  name: "key file",
  weight: 1,
  seeds: [`${Buffer.alloc(32, 7).toString("base64")}\n`],
  take: (text) => {
    const file = join(directory, "fuzz.key")
    writeFileSync(file, text, { mode: 0o600 })
    return Effect.flatMap(StoreKey, (keys) => keys.key({ isNew: false })).pipe(Effect.provide(StoreKey.layerFile(file)))
  }
})

const sinkTarget = Effect.fnUntraced(function* (directory: string) {
  const file = join(directory, "lines.jsonl")
  const sink = yield* Effect.map(Layer.build(JsonLinesSink.layer({ file })), (context) =>
    Context.get(context, NotificationSink.NotificationSink)
  )
  const request = { roomId: "!r:x", eventId: "$e" }
  const seed = SinkRecord.jsonOf({ request, result: { _tag: "NotFound", message: "gone" } }, 0)
  const target: Target = {
    name: "sink lines",
    weight: 1,
    seeds: [`${seed}\n${seed}\n`],
    take: (text) =>
      Effect.suspend(() => {
        writeFileSync(file, text)
        return sink.isKnown?.(request) ?? Effect.void
      })
  }
  return target
})

const encryptedSeed = JSON.stringify({
  type: "m.room.encrypted",
  sender: "@b:x",
  event_id: "$e",
  origin_server_ts: 1,
  content: {
    algorithm: "m.megolm.v1.aes-sha2",
    ciphertext: "AwgAEpABlTHVFHMMNpWRCUVHjuCWfXqOzcQ1mZtGnSBbfeQ5FbwRUxJSMA4tuWFNFQM2vSnOXDyg",
    session_id: "o8vHlC0nAkYAhzjVgyQ6OaMFG9qcUBdUv8v0MKq1Tp0",
    sender_key: "o8vHlC0nAkYAhzjVgyQ6OaMFG9qcUBdUv8v0MKq1Tp0",
    device_id: "D"
  }
})

const olmTarget = Effect.fnUntraced(function* (corpus: Corpus.Corpus) {
  const homeserver = yield* HttpHomeserver.make.pipe(
    Effect.provide([
      transport(corpus, { name: "", status: 200, text: "" }),
      SessionStore.layerMemory(session),
      RefreshLock.layerSingleProcess
    ])
  )
  const context = yield* Layer.build(
    OlmReader.layer.pipe(
      Layer.provide([
        SqliteStores.layer({ filename: ":memory:" }),
        Layer.succeed(Homeserver.Homeserver, homeserver),
        StoreKey.layer(Redacted.make(new Uint8Array(32)))
      ])
    )
  )
  const reader = Context.get(context, EventDecryptor.EventDecryptor)
  const target: Target = {
    name: "encrypted event",
    weight: 3,
    seeds: [encryptedSeed],
    take: (text) =>
      Effect.suspend(() => {
        const event = Result.getOrUndefined(json(text)) as MatrixEvent.TimelineEvent | undefined
        return event === undefined || isRefused(event) ? Effect.void : reader.decrypt("!r:x", event)
      })
  }
  return target
})

/** What the wire's decoder lets nobody see. */
const isRefused = (event: unknown): boolean => MatrixEvent.whyNotTimelineEvent(event) !== undefined

/** All of them. The stored ones have a database of their own in the directory. */
export const make = Effect.fnUntraced(function* (
  directory: string,
  homeserver: StoryHomeserver.Kind
): Effect.fn.Return<ReadonlyArray<Target>, unknown, Scope.Scope> {
  const corpus = yield* Corpus.record(homeserver)
  const stored = yield* StoredTargets.make(join(directory, "fuzz.db"))
  const judging = makeJudging(stored.store)
  return [
    ...httpTargets(corpus, judging),
    ...loginTargets(corpus),
    ...plainTargets,
    ...stored.targets,
    yield* sinkTarget(directory),
    keyTarget(directory),
    yield* olmTarget(corpus),
    ...(yield* CiphertextTargets.make)
  ]
})

/** One of the targets, by their weights. */
export const choose = (chance: Chance, targets: ReadonlyArray<Target>): Target => {
  let left = below(
    chance,
    targets.reduce((sum, { weight }) => sum + weight, 0)
  )
  return targets.find(({ weight }) => (left -= weight) < 0) ?? targets[0]!
}
