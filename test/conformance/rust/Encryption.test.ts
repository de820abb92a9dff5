/**
 * Encrypted rooms on the dev homeserver, shared with matrix-rust-sdk as Element X uses it: what one side sends, the other reads.
 *
 * Invariants: I2 (each room key and each one-time key once), as far as it can be seen from outside.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import * as RustSdk from "./RustSdk.ts"
import * as Scene from "./Scene.ts"

/** Texts that are easily broken on the way. */
const oddTexts = [
  "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u{10FFFF}",
  "\u0007\u2028\u202e \\ \" ' </script>",
  '{"msgtype":"m.text","body":"nested"}',
  "m".repeat(40_000)
]

/** No one-time key was made, refused or handed out twice; gives how many were handed out. */
const claimsOf = Effect.fnUntraced(function* (device: Scene.Device) {
  const keys = yield* Scene.keysOf(device)
  assert.deepInclude(keys, { conflicts: 0, reused: 0, fallback_used: 0 })
  assert.isAbove(Number(keys["uploaded"]), 0)
  return Number(keys["claimed"])
})

/** Each device got a room key for each message, each in one answer; one session between them carried all of them. */
const assertOnce = Effect.fnUntraced(function* (devices: ReadonlyArray<Scene.Device>, messages: number) {
  for (const device of devices) {
    const deliveries = (yield* Scene.ledgerOf(device)).map((entry) => entry.deliveries)
    assert.isAtLeast(deliveries.length, messages)
    assert.deepStrictEqual(new Set(deliveries), new Set([1]))
  }
  const claims = yield* Effect.forEach(devices, claimsOf)
  assert.strictEqual(
    claims.reduce((sum, claimed) => sum + claimed, 0),
    1
  )
})

describe(`encrypted rooms with matrix-rust-sdk on ${Scene.place}`, () => {
  layer(Scene.homeserver, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("I2: each reads all that the other says, in turns, with keys that are used once", (context) =>
      Effect.gen(function* () {
        const scene = yield* Scene.pair({ rotation_period_msgs: 1 })
        const { anna, ours, roomId, theirs } = scene
        for (const body of ["one", "two", "three", ...oddTexts]) {
          yield* Scene.readByRustSdk(context, scene, yield* EncryptionKit.say(ours, roomId, body), body)
          const said = yield* RustSdk.say(theirs, roomId, body)
          assert.isTrue(said.isEncrypted)
          yield* Scene.readByTwinloop(context, scene, said.eventId, body)
        }
        if (Scene.isDev) yield* assertOnce([Scene.deviceOf(anna), theirs.session], oddTexts.length + 3)
      })
    )

    it.effect(
      "I2: each reads all that the other says while both talk at once, with a new key every few messages",
      (context) =>
        Effect.gen(function* () {
          const scene = yield* Scene.pair({ rotation_period_msgs: 7 }, { name: "Bar" })
          const { ours, roomId, theirs } = scene
          const bodies = Array.from({ length: 50 }, (_, index) => `round ${index + 1}`)
          const [mine, their] = yield* Effect.all(
            [
              Effect.forEach(bodies, (body) => EncryptionKit.say(ours, roomId, body)),
              Effect.forEach(bodies, (body) => RustSdk.say(theirs, roomId, body))
            ],
            { concurrency: "unbounded" }
          )
          yield* RustSdk.untilMessage(theirs, roomId, mine.at(-1)!)
          yield* theirs.ask("paginate", { roomId })
          yield* scene.timeline.decrypted(their.at(-1)!.eventId)
          for (const [index, body] of bodies.entries()) {
            yield* Scene.readByRustSdk(context, scene, mine[index]!, body)
            yield* Scene.readInGapByTwinloop(context, scene, their[index]!.eventId, body)
          }
        })
    )

    it.effect("each reads what was said while it was away", (context) =>
      Effect.gen(function* () {
        const scene = yield* Scene.pair({ rotation_period_msgs: 1 }, { name: "Attic" })
        const { ours, roomId, theirs } = scene
        yield* RustSdk.stop(theirs)
        const heard = ["while you sleep", "and dream", "of more"]
        const ids = yield* Effect.forEach(heard, (body) => EncryptionKit.say(ours, roomId, body))
        yield* RustSdk.start(theirs)
        for (const [index, body] of heard.entries()) yield* Scene.readByRustSdk(context, scene, ids[index]!, body)

        // A new process goes on with the store of one that was killed, and speaks to nobody who listens.
        yield* theirs.program.signal("SIGKILL")
        yield* theirs.program.ended
        yield* ours.service.stop()
        const again = { ...scene, theirs: yield* RustSdk.restore(theirs) }
        yield* RustSdk.start(again.theirs)
        const bodies = ["is anybody there?", "I'll wait", "see you"]
        const sent = yield* Effect.forEach(bodies, (body) => RustSdk.say(again.theirs, roomId, body))
        yield* ours.service.start
        yield* Scene.readByTwinloop(context, again, sent.at(-1)!.eventId, bodies.at(-1)!)
        for (const [index, body] of bodies.slice(0, -1).entries())
          yield* Scene.readInGapByTwinloop(context, again, sent[index]!.eventId, body)
        yield* RustSdk.open(again.theirs, roomId)
        const answer = yield* EncryptionKit.say(ours, roomId, "good morning")
        yield* Scene.readByRustSdk(context, again, answer, "good morning")
      })
    )

    it.effect("both take a new key when a member has left", (context) =>
      Effect.gen(function* () {
        const scene = yield* Scene.pair()
        const { anna, ours, rita, roomId, theirs } = scene
        const otto = yield* Kit.newPerson("Otto")
        const third = yield* RustSdk.logIn(otto)
        yield* RustSdk.start(third)
        // His device is there first: Synapse, and so the dev homeserver, tells nobody of a device that an invited user adds.
        yield* Kit.call(anna, "POST", Kit.roomPath(roomId, "invite"), { user_id: otto.userId })
        yield* third.ask("join", { roomId })
        yield* RustSdk.open(third, roomId)
        const three = ({ joined }: { readonly joined: number }) => joined === 3
        yield* RustSdk.untilRoom(theirs, roomId, "three members", three)
        yield* Kit.untilRoom(ours, roomId, "three members", ({ joinedCount }) => joinedCount === 3)

        const both = Effect.fnUntraced(function* (body: string) {
          const mine = yield* EncryptionKit.say(ours, roomId, body)
          yield* Scene.readByRustSdk(context, scene, mine, body)
          const { eventId } = yield* RustSdk.say(theirs, roomId, body)
          yield* Scene.readByTwinloop(context, scene, eventId, body)
          return {
            ids: [mine, eventId],
            sessions: yield* Effect.forEach([mine, eventId], (id) => Scene.sessionOf(rita, roomId, id))
          }
        })
        const before = yield* both("to the three of us")
        const again = yield* both("and again")
        assert.deepStrictEqual(again.sessions, before.sessions)
        for (const id of before.ids) yield* RustSdk.untilMessage(third, roomId, id)

        yield* third.ask("leave", { roomId })
        yield* RustSdk.untilRoom(theirs, roomId, "two members", ({ joined }) => joined === 2)
        yield* Kit.untilRoom(ours, roomId, "two members", ({ joinedCount }) => joinedCount === 2)
        const keys = Scene.isDev ? yield* Scene.ledgerOf(third.session) : []
        const after = yield* both("now that we are alone")
        for (const [index, session] of after.sessions.entries()) assert.notStrictEqual(session, before.sessions[index])
        if (Scene.isDev) assert.lengthOf(yield* Scene.ledgerOf(third.session), keys.length)
      })
    )

    it.effect("neither shows a new device what was said before it came, and both do what is said then", (context) =>
      Effect.gen(function* () {
        const scene = yield* Scene.pair({}, { name: "Cellar" })
        const { ours, rita, roomId } = scene
        const early = yield* EncryptionKit.say(ours, roomId, "before it came")
        yield* Scene.readByRustSdk(context, scene, early, "before it came")

        const second = yield* RustSdk.logIn(rita)
        yield* RustSdk.start(second)
        yield* RustSdk.open(second, roomId)
        const unread = yield* RustSdk.untilEvent(second, roomId, "the early one", ({ eventId }) => eventId === early)
        assert.strictEqual(unread.content.kind, "UnableToDecrypt")
        yield* EncryptionKit.untilDevices(ours, rita.userId, (ids) => ids.includes(second.session.device_id))
        const late = yield* EncryptionKit.say(ours, roomId, "since it came")
        yield* Scene.readByRustSdk(context, { ...scene, theirs: second }, late, "since it came")
        yield* Scene.readByRustSdk(context, scene, late, "since it came")
      })
    )
  })
})
