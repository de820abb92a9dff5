/**
 * Timelines of a real Synapse, through the whole service: what is stored, which gaps there are, what redactions and edits do.
 *
 * Gotchas: Synapse doesn't notice that a long poll was aborted. It serves it until the next event, and then forgets every
 * position but the one that it carried, unless a newer one has been used. A client that stops right after changing what it
 * looks at may therefore meet `M_UNKNOWN_POS` when it starts again, and be sent everything anew.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { SyncStore } from "@twinloop/core"
import { Effect, Layer } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Kit from "./ServiceKit.ts"

/** A person with a database, and another in a room with them. */
const world = Effect.gen(function* () {
  const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const roomId = yield* Kit.createJoined(bert, [me], { name: "Talk" })
  return { me, bert, roomId, account: yield* Kit.newAccount(me) }
})

const numbered = (from: number, to: number): ReadonlyArray<string> =>
  Array.from({ length: to - from + 1 }, (_, index) => `message ${from + index}`)

/** Says messages in order; their event ids. */
const sayAll = (by: Kit.Person, roomId: string, bodies: ReadonlyArray<string>) =>
  Effect.forEach(bodies, (body) => Kit.say(by, roomId, body))

const timelineOf = ({ connId, store }: Kit.Running, roomId: string) => store.timeline({ connId, roomId, limit: 1000 })

const bodyOf = (entry: SyncStore.TimelineEntry): unknown => (entry._tag === "Gap" ? "gap" : entry.event.content.body)

const eventIds = (entries: ReadonlyArray<SyncStore.TimelineEntry>): ReadonlyArray<string> =>
  entries.flatMap((entry) => (entry._tag === "Event" ? [entry.event.event_id] : []))

/** The messages before a gap's token, newest first, as the server gives them. */
const messagesBefore = Effect.fnUntraced(function* (
  person: Kit.Person,
  roomId: string,
  gap: SyncStore.TimelineEntry | undefined,
  limit: number
) {
  const token = gap?._tag === "Gap" ? (gap.prevBatch ?? "") : ""
  assert.notStrictEqual(token, "", "the gap has a token")
  const path = Kit.roomPath(roomId, `messages?dir=b&limit=${limit}&from=${encodeURIComponent(token)}`)
  const { chunk } = yield* Kit.call(person, "GET", path)
  return (chunk as ReadonlyArray<{ readonly content: { readonly body?: string } }>).map(({ content }) => content.body)
})

const isLatest = (eventId: string) => (room: { readonly latestEvent?: { readonly event_id: string } }) =>
  room.latestEvent?.event_id === eventId

describe("the service's timelines on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer(), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("holds the newest twenty events of a room that is opened, and a gap whose token gives the rest", () =>
      Effect.gen(function* () {
        const { account, bert, me, roomId } = yield* world
        yield* sayAll(bert, roomId, numbered(1, 30))
        const running = yield* Kit.run(account)
        yield* running.service.setSubscriptions([roomId])
        const entries = yield* Kit.untilStored(running, roomId, "twenty events", (all) => eventIds(all).length >= 20)
        assert.deepStrictEqual(entries.map(bodyOf), ["gap", ...numbered(11, 30)])
        const before = yield* messagesBefore(me, roomId, entries[0], 10)
        assert.deepStrictEqual(before, [...numbered(1, 10)].reverse())
      })
    )

    it.effect("keeps what was missed while offline as a gap, and has no event twice after a restart", () =>
      Effect.gen(function* () {
        const { account, bert, me, roomId } = yield* world
        yield* sayAll(bert, roomId, numbered(1, 4))
        yield* Effect.gen(function* () {
          const running = yield* Kit.run(account)
          yield* running.service.setSubscriptions([roomId])
          yield* Kit.untilStored(running, roomId, "the first messages", (all) => all.map(bodyOf).includes("message 1"))
          // A live message ends the poll that the subscription aborted: Synapse goes on serving it (see the header).
          yield* sayAll(bert, roomId, numbered(5, 5))
          yield* Kit.untilStored(running, roomId, "a live message", (all) => all.map(bodyOf).includes("message 5"))
        }).pipe(Effect.scoped)

        // Nobody looks: the list brings the latest event only.
        const missed = yield* sayAll(bert, roomId, numbered(6, 10))
        const running = yield* Kit.run(account)
        yield* Kit.untilRoom(running, roomId, "the latest message", isLatest(missed[4] ?? ""))
        const offline = yield* timelineOf(running, roomId)
        assert.deepStrictEqual(offline.map(bodyOf).slice(-7), [...numbered(1, 5), "gap", "message 10"])
        const gap = offline.findLast(({ _tag }) => _tag === "Gap")
        assert.deepStrictEqual(yield* messagesBefore(me, roomId, gap, 4), [...numbered(6, 9)].reverse())

        // Opening the room closes the gap, and nothing is there twice.
        yield* running.service.setSubscriptions([roomId])
        const entries = yield* Kit.untilStored(running, roomId, "the missed messages", (all) =>
          all.map(bodyOf).includes("message 6")
        )
        assert.deepStrictEqual(entries.map(bodyOf).slice(-10), [...numbered(1, 10)])
        assert.strictEqual(new Set(eventIds(entries)).size, eventIds(entries).length)
        yield* sayAll(bert, roomId, numbered(11, 12))
        const last = yield* Kit.untilStored(running, roomId, "live messages", (all) =>
          all.map(bodyOf).includes("message 12")
        )
        assert.deepStrictEqual(last.map(bodyOf).slice(-12), [...numbered(1, 12)])
      })
    )

    it.effect("empties the latest event when it is redacted, live and while offline", () =>
      Effect.gen(function* () {
        const { account, bert, roomId } = yield* world
        const redact = (eventId: string) =>
          Kit.call(bert, "PUT", Kit.roomPath(roomId, `redact/${eventId}/${encodeURIComponent(eventId)}`), {})
        const second = yield* Effect.gen(function* () {
          const running = yield* Kit.run(account)
          const first = yield* Kit.say(bert, roomId, "secret 1")
          yield* Kit.untilRoom(running, roomId, "the message", isLatest(first))
          yield* redact(first)
          const room = yield* Kit.untilRoom(
            running,
            roomId,
            "the redaction",
            ({ latestEvent }) => latestEvent?.content.body === undefined
          )
          assert.strictEqual(room.latestEvent?.event_id, first)
          const next = yield* Kit.say(bert, roomId, "secret 2")
          yield* Kit.untilRoom(running, roomId, "the second message", isLatest(next))
          return next
        }).pipe(Effect.scoped)

        yield* redact(second)
        const running = yield* Kit.run(account)
        const room = yield* Kit.untilRoom(
          running,
          roomId,
          "the redaction while offline",
          ({ latestEvent }) => latestEvent?.content.body === undefined
        )
        assert.strictEqual(room.latestEvent?.event_id, second)
      })
    )

    it.effect("takes an edit for an event of its own", () =>
      Effect.gen(function* () {
        const { account, bert, roomId } = yield* world
        const running = yield* Kit.run(account)
        const original = yield* Kit.say(bert, roomId, "helo")
        const edit = yield* Kit.send(bert, roomId, "m.room.message", {
          msgtype: "m.text",
          body: "* hello",
          "m.new_content": { msgtype: "m.text", body: "hello" },
          "m.relates_to": { rel_type: "m.replace", event_id: original }
        })
        yield* Kit.untilRoom(running, roomId, "the edit", isLatest(edit))
        const bodies = (yield* timelineOf(running, roomId)).map(bodyOf)
        assert.deepStrictEqual(bodies.slice(-2), ["helo", "* hello"])
        const stored = yield* running.store.event(running.connId, roomId, original)
        assert.strictEqual(stored?.content.body, "helo")
      })
    )

    it.effect("keeps NUL, emoji and the largest integers of a message as they were sent", () =>
      Effect.gen(function* () {
        const { account, bert, roomId } = yield* world
        const running = yield* Kit.run(account)
        const content = {
          msgtype: "m.text",
          body: "nul \u0000 emoji \u{1F469}\u200D\u{1F680} right-to-left \u202E separator \u2028 \u{10FFFF}",
          "com.example.numbers": [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 0],
          "com.example.keys": { "": null, "__proto__ ": true, "a.b": [[[]], {}] }
        }
        const eventId = yield* Kit.send(bert, roomId, "m.room.message", content)
        const room = yield* Kit.untilRoom(running, roomId, "the message", isLatest(eventId))
        assert.deepStrictEqual(room.latestEvent?.content, content)
        const stored = yield* running.store.event(running.connId, roomId, eventId)
        assert.deepStrictEqual(stored?.content, content)
      })
    )
  })
})
