/**
 * An end-to-end machine that only counts, keeps its count in the store, and watches how it is used.
 *
 * Whoever uses memory that is void, begins a batch before the one before is committed or discarded, or commits what was
 * made of memory that is outdated, breaks invariant I5 and is written down. Using outdated memory without committing is
 * allowed: a process that was frozen can't know, and the fence refuses what it makes of it.
 */
import { CryptoEngine, type CryptoError, type MatrixEvent } from "@twinloop/core"
import { Effect, Layer } from "effect"
import type { World } from "./Simulation.ts"

type Step = "reload" | "receive" | "committed" | "outgoing" | "markSent" | "track"

const KEY = new Uint8Array([1])

const encode = (count: number): Uint8Array => new TextEncoder().encode(`${count}`)
const decode = (value: Uint8Array): number => Number(new TextDecoder().decode(value))

const unscripted = Effect.die("the scripted engine encrypts nothing")

export interface ScriptedEngine {
  readonly layer: Layer.Layer<CryptoEngine.CryptoEngine>
  /** Generations under which memory was loaded. */
  readonly reloads: Array<number>
  readonly batches: Array<CryptoEngine.ReceiveBatch>
  /** Ids of requests whose answers were taken. */
  readonly sent: Array<string>
  /** Users whose devices are followed. */
  readonly tracked: Array<MatrixEvent.UserId>
  readonly violations: Array<string>
  /** Requests to be sent; a taken answer removes one. */
  readonly queue: Array<CryptoEngine.OutgoingRequest>
  /** Events and answers that were counted in memory, `undefined` while memory is void. */
  readonly count: () => number | undefined
  /** Does this at the next step of that kind, before it. */
  script(step: Step, action: Effect.Effect<void, CryptoError.CryptoError>): void
}

/** A new engine of one process. */
export const makeEngine = (world: World): ScriptedEngine => {
  let memory: { count: number; pending: boolean; outdated: boolean } | undefined
  const scripts = new Map<Step, Array<Effect.Effect<void, CryptoError.CryptoError>>>()
  const engine: Omit<ScriptedEngine, "layer" | "count" | "script"> = {
    reloads: [],
    batches: [],
    sent: [],
    tracked: [],
    violations: [],
    queue: []
  }
  const play = (step: Step): Effect.Effect<void, CryptoError.CryptoError> =>
    Effect.suspend(() => scripts.get(step)?.shift() ?? Effect.void)
  const stored = Effect.map(world.faults.cryptoRecords, ([record]) => (record === undefined ? 0 : decode(record.value)))

  /** Counts up in memory, and gives what must be written. */
  const countUp = Effect.fnUntraced(function* (step: string, by: number) {
    if (memory === undefined || memory.pending) {
      engine.violations.push(`${step} with memory ${memory === undefined ? "void" : "uncommitted"}`)
      return []
    }
    memory = { count: memory.count + by, pending: true, outdated: memory.count !== (yield* stored) }
    return [{ collection: "count", key: KEY, value: encode(memory.count) }]
  })

  const service = CryptoEngine.CryptoEngine.of({
    reload: (fence) =>
      Effect.gen(function* () {
        yield* play("reload")
        engine.reloads.push(fence.generation)
        memory = { count: yield* stored, pending: false, outdated: false }
      }),
    receive: (_fence, batch) =>
      Effect.gen(function* () {
        yield* play("receive")
        engine.batches.push(batch)
        const writes = yield* countUp("receive", batch.toDevice.length)
        const inbox = batch.toDevice.map((event) => ({
          type: event.type,
          sender: event.sender,
          event,
          encryption: "none" as const
        }))
        return { value: { inbox, quarantined: [] }, writes, news: [] }
      }),
    committed: Effect.andThen(
      Effect.orDie(play("committed")),
      Effect.sync(() => {
        if (memory?.pending !== true) return void engine.violations.push("committed without a batch")
        if (memory.outdated) engine.violations.push("committed what was made of outdated memory")
        memory = { ...memory, pending: false }
      })
    ),
    discard: Effect.sync(() => (memory = undefined)),
    outgoing: () =>
      Effect.gen(function* () {
        yield* play("outgoing")
        return { value: [...engine.queue], writes: yield* countUp("outgoing", 0), news: [] }
      }),
    markSent: (_fence, request) =>
      Effect.gen(function* () {
        yield* play("markSent")
        const writes = yield* countUp("markSent", 1)
        engine.sent.push(request.id)
        engine.queue.splice(engine.queue.indexOf(request), 1)
        return { value: undefined, writes, news: [] }
      }),
    track: (_fence, users) =>
      Effect.gen(function* () {
        yield* play("track")
        engine.tracked.push(...users)
        return { value: undefined, writes: yield* countUp("track", 1), news: [] }
      }),
    claim: () => unscripted,
    shareRoomKey: () => unscripted,
    encrypt: () => unscripted,
    bootstrapCrossSigning: () => unscripted,
    setLocalTrust: () => unscripted
  })
  return {
    ...engine,
    layer: Layer.succeed(CryptoEngine.CryptoEngine, service),
    count: () => memory?.count,
    script: (step, action) => void scripts.set(step, [...(scripts.get(step) ?? []), action])
  }
}
