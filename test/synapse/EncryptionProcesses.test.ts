/**
 * An account with end-to-end keys in several processes, one after the other and at the same time, on a real Synapse: nobody's
 * words are lost on the way from and to matrix-js-sdk.
 *
 * Each message has a key of its own, so that each goes by the Olm sessions of both sides.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { SyncConfig } from "@twinloop/core"
import { Effect, Fiber, Layer } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as Program from "../processes/Program.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import type { Deed, EncryptedOptions, Said } from "./fixtures/encrypted.ts"
import * as JsSdk from "./JsSdk.ts"
import * as Kit from "./ServiceKit.ts"
import * as Wire from "./Wire.ts"

type Process = Program.Program<Said>

const LIMIT_MILLIS = 60_000

/** Anna's database and Bert with matrix-js-sdk, joined to an encrypted room. */
const pair = Effect.gen(function* () {
  const wire = yield* Wire.start((yield* Synapse).baseUrl)
  const me = EncryptionKit.at(wire.baseUrl, yield* Kit.newPerson("Anna"))
  const theirs = EncryptionKit.at(wire.baseUrl, yield* Kit.newPerson("Bert"))
  const roomId = yield* Kit.createJoined(me, [theirs], EncryptionKit.encrypted({ rotation_period_msgs: 1 }))
  const account = yield* Kit.newAccount(me)
  const bert = yield* JsSdk.start(theirs)
  yield* JsSdk.untilEncrypted(bert, roomId)
  return { account, bert, me, roomId, wire }
})

/** A process of an account, which shows a room. */
const start = Effect.fnUntraced(function* (
  { database }: Kit.Account,
  roomId: string,
  config: Partial<SyncConfig.SyncConfigShape> = {}
) {
  const options: EncryptedOptions = { database, roomId, config }
  const file = new URL("./fixtures/encrypted.ts", import.meta.url)
  const process = yield* Program.startFile<Said>(file, { args: [JSON.stringify(options)] })
  yield* process.until("be ready", ({ said }) => said === "ready", { limitMillis: LIMIT_MILLIS })
  return process
})

const tell = (process: Process, deed: Deed) => process.send(JSON.stringify(deed))

/** Lets a process send a message; its event id. */
const say = Effect.fnUntraced(function* (process: Process, body: string) {
  yield* tell(process, { do: "send", body })
  const { line } = yield* process.until(
    `send ${body}`,
    (line) => (line.said === "sent" || line.said === "notSent") && line.body === body,
    { limitMillis: LIMIT_MILLIS }
  )
  assert(line.said === "sent", JSON.stringify(line))
  return line.eventId
})

/** Waits until a process has shown a message's text. */
const untilShown = (process: Process, eventId: string, body: string) =>
  process.until(
    `show ${eventId} (${body})`,
    (line) => line.said === "shown" && line.eventId === eventId && line.body === body,
    { limitMillis: LIMIT_MILLIS }
  )

type Messages = Map<string, string>

const allShown = (process: Process, messages: Messages) =>
  Effect.forEach(messages, ([eventId, body]) => untilShown(process, eventId, body), { discard: true })

const allDecrypted = (bert: JsSdk.JsSdk, roomId: string, messages: Messages) =>
  Effect.forEach(
    messages,
    ([eventId, body]) =>
      Effect.map(JsSdk.untilDecrypted(bert, roomId, eventId), (event) =>
        assert.strictEqual(event.getContent().body, body)
      ),
    { discard: true }
  )

/** Nothing about keys was refused, above all no one-time key that "already exists". */
const nothingRefused = Effect.fnUntraced(function* (wire: Wire.Wire) {
  const refused = (yield* wire.about("/keys/")).filter(({ status }) => status !== 200)
  assert.deepStrictEqual(refused, [])
  assert.isNotEmpty(yield* wire.about("/keys/upload"))
})

describe("end-to-end keys in several processes on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("go on after a restart: what was, what came meanwhile and what comes is read, on both sides", () =>
      Effect.gen(function* () {
        const { account, bert, me, roomId, wire } = yield* pair
        const messages: Messages = new Map()
        const hear = (number: number) =>
          Effect.map(JsSdk.say(bert, roomId, `theirs ${number}`), (id) => messages.set(id, `theirs ${number}`))
        for (const round of [1, 2, 3]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const anna = yield* EncryptionKit.run(account)
              yield* EncryptionKit.untilEncrypted(anna, roomId)
              yield* Effect.orDie(anna.service.setSubscriptions([roomId]))
              const timeline = yield* EncryptionKit.live(anna, roomId)
              yield* JsSdk.untilKnows(bert, me)
              yield* hear(round * 10)
              for (const number of [1, 2]) {
                const body = `ours ${round} ${number}`
                messages.set(yield* EncryptionKit.say(anna, roomId, body), body)
              }
              for (const [eventId, body] of messages) {
                assert.strictEqual((yield* timeline.decrypted(eventId)).event.content["body"], body)
              }
              yield* allDecrypted(bert, roomId, messages)
            })
          )
          // Nobody of hers is there.
          yield* hear(round * 10 + 1)
        }
        yield* nothingRefused(wire)
      })
    )

    it.effect("go on after a process was killed in the middle of sending and receiving", () =>
      Effect.gen(function* () {
        const { account, bert, me, roomId, wire } = yield* pair
        const messages: Messages = new Map()
        for (const round of [1, 2, 3]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const anna = yield* start(account, roomId)
              yield* JsSdk.untilKnows(bert, me)
              const first = `ours ${round} first`
              messages.set(yield* say(anna, first), first)
              for (const number of [1, 2, 3]) {
                const body = `theirs ${round} ${number}`
                messages.set(yield* JsSdk.say(bert, roomId, body), body)
              }
              yield* allShown(anna, messages)
              yield* allDecrypted(bert, roomId, messages)
              // It is killed with these half sent, and those half received.
              yield* Effect.forEach([1, 2, 3, 4], (number) =>
                tell(anna, { do: "send", body: `maybe ${round} ${number}` })
              )
              const last = `theirs ${round} last`
              messages.set(yield* JsSdk.say(bert, roomId, last), last)
              yield* anna.signal("SIGKILL")
              assert.strictEqual(yield* anna.ended, "SIGKILL")
            })
          )
        }
        const anna = yield* start(account, roomId)
        const last = "ours, at last"
        messages.set(yield* say(anna, last), last)
        yield* allShown(anna, messages)
        yield* allDecrypted(bert, roomId, messages)
        // What was sent before the end is read by both as well.
        const sent = yield* JsSdk.events(bert, roomId)
        const halves = sent.filter((event) => String(event.getContent().body).startsWith("maybe"))
        for (const event of halves) {
          yield* untilShown(anna, event.getId() ?? "", String(event.getContent().body))
        }
        assert.deepStrictEqual(
          sent.filter((event) => event.isDecryptionFailure()).map((event) => event.getId()),
          []
        )
        yield* nothingRefused(wire)
      })
    )

    it.effect("are used by whoever owns the stream, while two processes take turns and everybody talks", () =>
      Effect.gen(function* () {
        const { account, bert, me, roomId, wire } = yield* pair
        const messages: Messages = new Map()
        const main = yield* start(account, roomId, { role: "main" })
        const standby = yield* start(account, roomId, { role: "standby" })
        yield* JsSdk.untilKnows(bert, me)
        const talk = Effect.fnUntraced(function* (by: Process, what: string) {
          const ours = yield* Effect.forkChild(
            Effect.forEach([1, 2, 3], (number) =>
              Effect.map(say(by, `ours ${what} ${number}`), (id) => messages.set(id, `ours ${what} ${number}`))
            )
          )
          for (const number of [1, 2, 3]) {
            const body = `theirs ${what} ${number}`
            messages.set(yield* JsSdk.say(bert, roomId, body), body)
          }
          return ours
        })
        const suspend = Effect.fnUntraced(function* (process: Process) {
          const since = yield* process.said
          yield* tell(process, { do: "suspend" })
          const { line } = yield* process.until("be suspended", ({ said }) => said === "suspended", { since })
          assert.deepStrictEqual(line, { said: "suspended", quiet: true })
        })

        // Each in turn, the other one awake: who sends becomes the owner.
        for (const [what, by] of [
          ["a", main],
          ["b", standby],
          ["c", main]
        ] as const) {
          yield* Effect.flatMap(talk(by, what), Fiber.join)
        }
        // The owner goes to sleep while messages come.
        const before = yield* talk(main, "d")
        yield* Fiber.join(before)
        yield* suspend(main)
        yield* Effect.flatMap(talk(standby, "e"), Fiber.join)
        yield* allShown(standby, messages)
        yield* tell(main, { do: "resume" })
        yield* allShown(main, messages)
        yield* suspend(standby)
        yield* Effect.flatMap(talk(main, "f"), Fiber.join)
        // The owner is killed, and the other one wakes up.
        yield* main.signal("SIGKILL")
        yield* tell(standby, { do: "resume" })
        yield* Effect.flatMap(talk(standby, "g"), Fiber.join)

        yield* allShown(standby, messages)
        yield* allDecrypted(bert, roomId, messages)
        assert.strictEqual(messages.size, 42)
        yield* nothingRefused(wire)
      })
    )
  })
})
