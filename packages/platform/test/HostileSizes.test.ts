/**
 * Content without measure, on the whole way from the homeserver's answer over HTTP into SQLite and back: a hundred thousand levels,
 * a million members, names that objects have by themselves among them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Homeserver, MainIngest, SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { clientOf, scriptedServer, sessionAt, syncRequest, unstablePath } from "./HttpHomeserver.fixture.ts"
import { temporaryStores } from "./SqliteKit.ts"

const me = "@me:test"

const room = (content: string): string =>
  `{"initial":true,"timeline":[{"type":"m.room.message","sender":"@s:test","event_id":"$e","origin_server_ts":1,"content":${content}}],
    "required_state":[{"type":"t","state_key":"__proto__","sender":"@s:test","event_id":"$s","origin_server_ts":1,"content":${content}}]}`

/** Everywhere where somebody's content can be, beside rooms of which nothing is wrong. */
const response = (content: string): string =>
  `{"pos":"1","lists":{"all":{"count":3}},"rooms":{"!good:test":${room(`{"body":"hello"}`)},"!bad:test":${room(content)},"__proto__":${room(content)}},
    "extensions":{
      "to_device":{"next_batch":"s1","events":[{"type":"t","sender":"@s:test","content":${content}},{"type":"t","sender":"@s:test","content":{}}]},
      "account_data":{"global":[{"type":"constructor","content":${content}}],"rooms":{"!bad:test":[{"type":"__proto__","content":${content}}]}},
      "typing":{"rooms":{"!bad:test":{"type":"m.typing","content":${content}}}},
      "receipts":{"rooms":{"!bad:test":{"type":"m.receipt","content":${content}}}}}}`

/** Asks a homeserver that gives this answer, and stores what it says; gives what is stored then. */
const store = (answer: string) =>
  Effect.gen(function* () {
    const server = yield* scriptedServer
    server.on(`POST ${unstablePath}`, (response) =>
      response.writeHead(200, { "content-type": "application/json" }).end(answer)
    )
    const said = yield* Effect.flatMap(Homeserver.Homeserver, (homeserver) => homeserver.sync(syncRequest())).pipe(
      Effect.provide(Layer.fresh(clientOf(sessionAt(server))))
    )
    const { changed, commit } = MainIngest.ingest({ ownUserId: me, connId: "main", rooms: new Map() }, said)
    const stored = yield* SyncStore.SyncStore
    yield* stored.commitMain(commit)
    return {
      said,
      rooms: changed.map(({ roomId }) => roomId).sort(),
      good: yield* stored.event("main", "!good:test", "$e"),
      bad: yield* stored.event("main", "!bad:test", "$e"),
      quarantined: (yield* stored.quarantine(20)).map(({ reason }) => reason)
    }
  }).pipe(Effect.provide(temporaryStores))

const assertUnpolluted = (): void => {
  for (const name of ["polluted", "key1"]) assert.notProperty({}, name)
  assert.strictEqual(Object.keys(Object.prototype).length, 0)
}

describe("Content without measure", () => {
  const levels = 100_000

  for (const [shape, content] of [
    ["arrays", `{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`],
    ["objects", `${'{"__proto__":'.repeat(levels)}1${"}".repeat(levels)}`]
  ] as const) {
    it.live(`I7: a hundred thousand levels of ${shape} are set aside, and what came with them is stored`, () =>
      Effect.gen(function* () {
        const { bad, good, quarantined, rooms, said } = yield* store(response(content))
        assert.deepStrictEqual(good?.content, { body: "hello" })
        assert.isUndefined(bad)
        assert.include(rooms, "!good:test")
        assert.strictEqual(said.extensions.toDevice?.events.length, 1)
        assert.isAtLeast(quarantined.length, 5)
        assert.isTrue(quarantined.some((reason) => reason.includes("nested more than")))
        assertUnpolluted()
      })
    )
  }

  it.live(
    "I10: a million members are content like any other, and pollute nothing",
    () =>
      Effect.gen(function* () {
        const members = Array.from({ length: 1_000_000 }, (_, index) => `"key${index}":${index}`).join()
        const content = `{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},${members}}`
        const answer = `{"pos":"1","lists":{},"rooms":{"!good:test":${room(`{"body":"hello"}`)},"!bad:test":{"initial":true,"timeline":[{"type":"m.room.message","sender":"@s:test","event_id":"$e","origin_server_ts":1,"content":${content}}]}},"extensions":{}}`
        const { bad, good } = yield* store(answer)
        assert.deepStrictEqual(good?.content, { body: "hello" })
        assert.strictEqual(Object.keys(bad?.content ?? {}).length, 1_000_002)
        assert.isTrue(Object.hasOwn(bad?.content ?? {}, "__proto__"))
        assertUnpolluted()
      }),
    180_000
  )
})
