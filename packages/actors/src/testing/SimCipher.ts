/**
 * The end-to-end machine of a simulated process: the simulated cipher, watched for how it is used.
 *
 * Whoever uses memory that is void, begins a batch before the one before is committed or discarded, or commits what was
 * made of memory that is outdated, breaks invariant I5 and is written down. Using outdated memory without committing is
 * allowed: a process that was frozen can't know, and the fence refuses what it makes of it.
 *
 * Gotchas: a count among the cipher's records, in a collection of its own, says how many changes were committed.
 *
 * Not here: an engine that only counts, and plays scripts (`ScriptedEngine.ts`).
 */
import { CryptoEngine, type CryptoError, type EventDecryptor } from "@twinloop/core"
import { SimulatedCrypto } from "@twinloop/core/testing"
import { Effect } from "effect"
import type { World } from "./Simulation.ts"

/** One-time keys that the homeserver is to have: few, so that stories use them up. */
const ONE_TIME_KEYS = 8

const COUNT = "count"
const KEY = new Uint8Array([1])

const encode = (count: number): Uint8Array => new TextEncoder().encode(`${count}`)
const decode = (value: Uint8Array): number => Number(new TextDecoder().decode(value))

const cipherRecords = ({ faults }: World) =>
  Effect.map(faults.cryptoRecords, (records) => records.filter(({ collection }) => collection !== COUNT))

/** Reads what is committed, for any process of the account. */
export const decryptorOf = (world: World): EventDecryptor.EventDecryptor["Service"] =>
  SimulatedCrypto.makeDecryptor(world.session, cipherRecords(world))

export interface WatchedEngine {
  readonly service: CryptoEngine.CryptoEngine["Service"]
  readonly violations: ReadonlyArray<string>
}

/** A new engine of one process. */
export const watchedEngine = (world: World): WatchedEngine => {
  const engine = SimulatedCrypto.makeEngine(world.session, cipherRecords(world), { oneTimeKeys: ONE_TIME_KEYS })
  const violations: Array<string> = []
  let memory: { readonly count: number; readonly isPending: boolean; readonly isOutdated: boolean } | undefined
  const stored = Effect.map(world.faults.cryptoRecords, (records) => {
    const record = records.find(({ collection }) => collection === COUNT)
    return record === undefined ? 0 : decode(record.value)
  })

  /** Counts a change up, unless it is none, and has that written with it. */
  const changed = <A>(
    step: string,
    call: Effect.Effect<CryptoEngine.Changed<A>, CryptoError.CryptoError>
  ): Effect.Effect<CryptoEngine.Changed<A>, CryptoError.CryptoError> =>
    Effect.gen(function* () {
      const before = memory
      if (before === undefined || before.isPending) {
        violations.push(`${step} with memory ${before === undefined ? "void" : "uncommitted"}`)
        return yield* call
      }
      memory = { ...before, isPending: true }
      const result = yield* call
      if (result.writes.length === 0 && result.news.length === 0) return result
      const count = before.count + 1
      memory = { count, isPending: true, isOutdated: before.count !== (yield* stored) }
      return { ...result, writes: [...result.writes, { collection: COUNT, key: KEY, value: encode(count) }] }
    })

  const service = CryptoEngine.CryptoEngine.of({
    reload: (fence) =>
      Effect.gen(function* () {
        const count = yield* stored
        yield* engine.reload(fence)
        memory = { count, isPending: false, isOutdated: false }
      }),
    committed: Effect.andThen(
      Effect.sync(() => {
        if (memory?.isPending !== true) return void violations.push("committed without a change")
        if (memory.isOutdated) violations.push("committed what was made of outdated memory")
        memory = { ...memory, isPending: false }
      }),
      engine.committed
    ),
    discard: Effect.andThen(
      Effect.sync(() => void (memory = undefined)),
      engine.discard
    ),
    receive: (fence, batch) => changed("receive", engine.receive(fence, batch)),
    outgoing: (fence) => changed("outgoing", engine.outgoing(fence)),
    markSent: (fence, request, answer) => changed("markSent", engine.markSent(fence, request, answer)),
    track: (fence, users) => changed("track", engine.track(fence, users)),
    claim: (fence, users) => changed("claim", engine.claim(fence, users)),
    shareRoomKey: (fence, room) => changed("shareRoomKey", engine.shareRoomKey(fence, room)),
    encrypt: (fence, event) => changed("encrypt", engine.encrypt(fence, event)),
    bootstrapCrossSigning: (fence, options) =>
      changed("bootstrapCrossSigning", engine.bootstrapCrossSigning(fence, options)),
    setLocalTrust: (fence, device) => changed("setLocalTrust", engine.setLocalTrust(fence, device))
  })
  return { service, violations }
}
