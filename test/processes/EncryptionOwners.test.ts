/** Two processes of an account that both send encrypted messages, which only the owner of the stream can. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Encrypted from "./fixtures/EncryptedAccount.ts"
import type { Fenced } from "./fixtures/encrypted.ts"

const TURNS = 20
const ROUNDS = 100

/** A take-over by expiry takes a third of a second, and an owner has four chances to renew before. */
const shortestLease = { leaseMillis: 300, renewMillis: 75, waitPollMillis: 50 }

/** A process that owns the stream, and one that waits for it. */
const startTwo = Effect.fnUntraced(function* (account: Encrypted.Account) {
  const first = yield* Encrypted.start(account)
  yield* Encrypted.begin(account, first, { config: { ...shortestLease, role: "first" } })
  yield* first.until("own the stream", Encrypted.owns)
  yield* first.until("upload keys", (line) => line.event === "uploads")
  const second = yield* Encrypted.start(account)
  yield* Encrypted.begin(account, second, { config: { ...shortestLease, role: "second" } })
  yield* second.until("wait for the lock", Encrypted.waits)
  return [first, second] as const
})

const generation = (account: Encrypted.Account) => Effect.map(Encrypted.lease(account), ([row]) => row?.generation ?? 0)

/**
 * Freezes whoever owns the stream right before it commits, lets the other one take over and apply everything, and wakes the
 * old owner while the new one is frozen. Gives what is on disk before and after its attempt to write.
 */
const freezeAndWake = Effect.fnUntraced(function* (
  account: Encrypted.Account,
  [first, second]: readonly [Encrypted.Process, Encrypted.Process],
  commit: Fenced,
  round: number
) {
  const point = { step: `store.${commit}:before`, count: 1, signal: "SIGSTOP" } as const
  const met = (process: Encrypted.Process, other: Encrypted.Process) =>
    Effect.gen(function* () {
      const since = yield* process.said
      yield* Encrypted.tell(process, { do: "arm", point })
      const { next } = yield* process.until("stop at a commit", (line) => line.event === "met", { since })
      yield* Encrypted.tell(other, { do: "arm" })
      return { old: process, heir: other, since: next }
    })
  // Both are told, since the lease is short enough to be lost on a busy machine, and only an owner comes to the point.
  const frozen = yield* Effect.forkChild(Effect.raceFirst(met(first, second), met(second, first)))
  yield* Encrypted.aliceSays(account, `alice ${round}`, round)
  // A new device, whose keys are asked for after the batch and committed by themselves.
  yield* Encrypted.carolSays(account, `carol ${round}`)
  const { heir, old, since } = yield* Fiber.join(frozen)
  yield* Encrypted.untilApplied(account)
  const heard = yield* heir.said
  yield* Encrypted.tell(heir, { do: "freeze" })
  yield* heir.until("freeze", (line) => line.event === "freezes", { since: heard })
  const generationBefore = yield* generation(account)
  const before = yield* Encrypted.written(account)
  yield* old.signal("SIGCONT")
  // What it says next is of what it tried to write, or of the lease that it has lost.
  const { line } = yield* old.until("wake up", ({ event }) => event === "refused" || event === "state", { since })
  const after = yield* Encrypted.written(account)
  // Read last: nobody who owned the stream by right has written before.
  const generationAfter = yield* generation(account)
  yield* heir.signal("SIGCONT")
  const reason = line.event === "refused" && line.commit === commit ? line.reason : `not refused: ${line.event}`
  return { reason, before, after, generationBefore, generation: generationAfter }
})

describe("Two processes with end-to-end keys", () => {
  it.live("I1, I2: send in turns, and each time the stream goes to and fro, with nothing lost or doubled", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const first = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, first, { config: { role: "first" } })
      yield* first.until("own the stream", Encrypted.owns)
      yield* first.until("upload keys", (line) => line.event === "uploads")
      const second = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, second, { config: { role: "second" } })
      yield* second.until("wait for the lock", Encrypted.waits)

      const bodies: Array<string> = []
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [name, process] of [
          ["first", first],
          ["second", second]
        ] as const) {
          const body = `${name} ${turn}`
          bodies.push(body)
          const since = yield* process.said
          yield* Encrypted.aliceSays(account, `alice, while ${body}`, turn)
          yield* Encrypted.tell(process, { do: "send", messages: Encrypted.want(account, [body]) })
          yield* process.until(`send ${body}`, (line) => line.event === "sent" && line.body === body, { since })
        }
      }
      yield* Encrypted.untilApplied(account)
      yield* Encrypted.hear(account, first)
      yield* Encrypted.hear(account, second)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, bodies)
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
      // Each message was sent by another owner than the one before, but for the first.
      const [row] = yield* Encrypted.lease(account)
      assert.isAtLeast(row?.generation ?? 0, 2 * TURNS)
      console.log(`to and fro: ${bodies.length} messages, ${row?.generation} owners, 0 lost, 0 duplicated`)
    })
  )

  it.live("I1, I2: alternate 100 times, and the owner that wakes up late each time writes nothing", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const processes = yield* startTwo(account)
      const refused: Record<Fenced, number> = { commitExtension: 0, commitCrypto: 0 }
      let compared = 0
      let rounds = 0
      while (compared < ROUNDS) {
        assert.isBelow(rounds, 2 * ROUNDS, `${compared} rounds went as they should`)
        const commit = rounds % 2 === 0 ? "commitExtension" : "commitCrypto"
        const woken = yield* freezeAndWake(account, processes, commit, rounds++)
        // On a slow machine it may own the stream again by now, and write by right.
        if (woken.generation === woken.generationBefore) {
          assert.deepStrictEqual(woken.after, woken.before)
          compared++
        }
        assert.strictEqual(woken.reason, "StaleGeneration")
        refused[commit]++
      }
      yield* Encrypted.untilApplied(account)
      for (const process of processes) yield* Encrypted.hear(account, process)
      const { conflicts, duplicated, lost, messages, toDevice } = yield* Encrypted.judge(account, [])
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
      const [row] = yield* Encrypted.lease(account)
      console.log(
        `woken late: ${rounds} rounds by SIGSTOP, ${row?.generation} owners, ${refused.commitExtension} commitExtension and ${refused.commitCrypto} commitCrypto refused, ${compared} times all records compared, ${messages} messages and ${toDevice} to-device, ${lost.length} lost, ${duplicated.length} duplicated, ${conflicts} key conflicts`
      )
    })
  )
})
