/**
 * A `SyncStore` in memory with the transactions of a real one, and with faults on command.
 *
 * Build it once and share the service between simulated processes: it stands for the database file. It checks fences
 * against the `LeaseStore` that it is given, as a database checks its own lease rows.
 *
 * Invariants: I1, I2 (a refused, failed or interrupted commit has written nothing).
 *
 * Gotchas: check and write are atomic because the fiber is kept from yielding between them; a `LeaseStore` whose `holds`
 * waits for something would break that.
 *
 * Not here: the transactions themselves (`SyncStoreMemoryState.ts`).
 */
import { Clock, Context, Effect, Layer, Ref, References, Result } from "effect"
import * as Lease from "../lease/Lease.ts"
import { LeaseStore } from "../lease/LeaseStore.ts"
import { StaleGeneration, StoreError } from "../sync/StoreError.ts"
import type { StoreErrorReason } from "../sync/StoreError.ts"
import { SyncConfig } from "../sync/SyncConfig.ts"
import { SyncStore } from "../sync/SyncStore.ts"
import * as State from "./SyncStoreMemoryState.ts"

/** A member of the port, by name. */
export type Operation = keyof SyncStore["Service"]

/**
 * `before`: the transaction has not begun, and nothing is written if it fails. `after`: it has committed, and only the
 * answer is lost or late, as when a process dies right after its COMMIT.
 */
export type Moment = "before" | "after"

interface Script {
  readonly operation: Operation
  readonly moment: Moment
  readonly action: Effect.Effect<void, StoreErrorReason>
}

/** The other side of the store: faults, and what the port doesn't show. */
export class SyncStoreMemory extends Context.Service<
  SyncStoreMemory,
  {
    /** Makes the next call of an operation fail. Several scripts for one operation are played one per call, in order. */
    failNext(operation: Operation, reason: StoreErrorReason, moment?: Moment): Effect.Effect<void>
    /** Makes the next call of an operation wait, in milliseconds of `Clock`. */
    delayNext(operation: Operation, millis: number, moment?: Moment): Effect.Effect<void>
    /** The stored records of the crypto engine. */
    readonly cryptoRecords: Effect.Effect<ReadonlyArray<State.CryptoRecord>>
  }
>()("@twinloop/core/testing/SyncStoreMemory") {}

const makeScripts = Effect.map(Ref.make<ReadonlyArray<Script>>([]), (scripts) => ({
  add: (script: Script) => Ref.update(scripts, (all) => [...all, script]),
  play: (operation: Operation, moment: Moment): Effect.Effect<void, StoreErrorReason> =>
    Effect.flatten(
      Ref.modify(scripts, (all) => {
        const next = all.find((script) => script.operation === operation && script.moment === moment)
        return [next?.action ?? Effect.void, all.filter((script) => script !== next)]
      })
    )
}))

const quarantineOptions: Effect.Effect<State.QuarantineOptions> = Effect.gen(function* () {
  const { quarantineKept } = yield* SyncConfig
  return { nowMillis: yield* Clock.currentTimeMillis, kept: quarantineKept }
})

const checkFence = Effect.fnUntraced(function* (
  leases: LeaseStore["Service"],
  fence: Lease.Fence
): Effect.fn.Return<void, StaleGeneration | StoreError> {
  if (yield* leases.holds(fence)) return
  const currentGeneration = Lease.generationOf(yield* leases.inspect(fence.name))
  return yield* new StaleGeneration({
    message: `the lease "${fence.name}" is not ${fence.holder}'s under generation ${fence.generation} any more, nothing was written; take it again and reload before going on`,
    name: fence.name,
    generation: fence.generation,
    ...(currentGeneration === 0 ? {} : { currentGeneration })
  })
})

const make = Effect.gen(function* () {
  const leases = yield* LeaseStore
  const database = yield* Ref.make(State.empty)
  const scripts = yield* makeScripts

  const run = <A>(
    operation: Operation,
    transaction: Effect.Effect<A, StoreErrorReason | StoreError>
  ): Effect.Effect<A, StoreError> =>
    scripts.play(operation, "before").pipe(
      Effect.andThen(Effect.provideService(transaction, References.PreventSchedulerYield, true)),
      Effect.tap(() => scripts.play(operation, "after")),
      Effect.mapError((error) => (error._tag === "StoreError" ? error : new StoreError({ operation, reason: error })))
    )

  const read = <A>(operation: Operation, view: (state: State.State) => A): Effect.Effect<A, StoreError> =>
    run(operation, Effect.map(Ref.get(database), view))

  const apply = <A>(step: (state: State.State) => State.Step<A>) =>
    Effect.flatMap(Ref.get(database), (state) =>
      Result.match(step(state), {
        onFailure: (refusal) => Effect.fail(refusal),
        onSuccess: ([answer, next]) => Effect.as(Ref.set(database, next), answer)
      })
    )

  const store = SyncStore.of({
    extensionPosition: read("extensionPosition", (state) => state.position),
    commitExtension: (fence, commit) =>
      run(
        "commitExtension",
        Effect.gen(function* () {
          const options = yield* quarantineOptions
          yield* checkFence(leases, fence)
          return yield* apply((state) => State.commitExtension(state, fence, commit, options))
        })
      ),
    commitCrypto: (fence, commit) =>
      run(
        "commitCrypto",
        Effect.andThen(
          checkFence(leases, fence),
          Ref.update(database, (state) => State.commitCrypto(state, commit))
        )
      ),
    encryptionNews: ({ after, limit }) =>
      read("encryptionNews", (state) => state.news.filter((entry) => entry.sequence > after).slice(0, limit)),
    encryptionNewsKept: read("encryptionNewsKept", (state) => ({
      first: state.news[0]?.sequence ?? 0,
      last: state.news.at(-1)?.sequence ?? 0
    })),
    expireExtension: (fence) =>
      run("expireExtension", Effect.andThen(checkFence(leases, fence), Ref.update(database, State.expireExtension))),

    mainPosition: (connId) =>
      read("mainPosition", (state) => {
        const { pos, lists } = State.connectionOf(state, connId)
        return { ...(pos === undefined ? {} : { pos }), lists }
      }),
    loadMain: (connId) =>
      read("loadMain", (state) => {
        const { pos, lists, rooms } = State.connectionOf(state, connId)
        return { ...(pos === undefined ? {} : { pos }), lists, rooms: [...rooms.values()].map(({ room }) => room) }
      }),
    commitMain: (commit) =>
      run(
        "commitMain",
        Effect.flatMap(quarantineOptions, (options) => apply((state) => State.commitMain(state, commit, options)))
      ),
    expireMain: (connId) =>
      run(
        "expireMain",
        Ref.update(database, (state) => State.expireMain(state, connId))
      ),

    room: (connId, roomId) => read("room", (state) => State.connectionOf(state, connId).rooms.get(roomId)?.room),
    timeline: ({ connId, roomId, limit, before = Infinity }) =>
      read("timeline", (state) => {
        const entries = State.connectionOf(state, connId).rooms.get(roomId)?.timeline ?? []
        const older = entries.filter((entry) => entry.index < before)
        return older.slice(Math.max(0, older.length - limit))
      }),
    event: (connId, roomId, eventId) =>
      read("event", (state) => {
        const entries = State.connectionOf(state, connId).rooms.get(roomId)?.timeline ?? []
        const found = entries.find((entry) => entry._tag === "Event" && entry.event.event_id === eventId)
        return found?._tag === "Event" ? found.event : undefined
      }),
    state: ({ connId, roomId, type, stateKey }) =>
      read("state", (state) => {
        const events = State.connectionOf(state, connId).rooms.get(roomId)?.state.values() ?? []
        return [...events]
          .filter((event) => event.type === type && (stateKey === undefined || event.state_key === stateKey))
          .sort((a, b) => (a.state_key < b.state_key ? -1 : 1))
      }),
    accountData: ({ connId, type, roomId }) =>
      read("accountData", (state) =>
        State.connectionOf(state, connId).accountData.get(State.accountDataKeyOf(type, roomId))
      ),

    readInbox: ({ after, limit }) =>
      read("readInbox", (state) => state.inbox.filter((entry) => entry.sequence > after).slice(0, limit)),
    inboxCursor: (consumer) => read("inboxCursor", (state) => state.cursors.get(consumer) ?? 0),
    advanceInbox: (request) =>
      run(
        "advanceInbox",
        Ref.update(database, (state) => State.advanceInbox(state, request))
      ),
    forgetConsumer: (consumer) =>
      run(
        "forgetConsumer",
        Ref.update(database, (state) => State.forgetConsumer(state, consumer))
      ),

    quarantine: (limit) => read("quarantine", (state) => state.quarantine.toReversed().slice(0, limit)),
    quarantineCount: read("quarantineCount", (state) => state.quarantineCount)
  })

  const control = SyncStoreMemory.of({
    failNext: (operation, reason, moment = "before") => scripts.add({ operation, moment, action: Effect.fail(reason) }),
    delayNext: (operation, millis, moment = "before") =>
      scripts.add({ operation, moment, action: Effect.sleep(millis) }),
    cryptoRecords: Effect.map(Ref.get(database), (state) => [...state.crypto.values()])
  })
  return Context.make(SyncStore, store).pipe(Context.add(SyncStoreMemory, control))
})

/** A store of its own per build of the layer, which checks fences against the given `LeaseStore`, and its other side. */
export const layer: Layer.Layer<SyncStore | SyncStoreMemory, never, LeaseStore> = Layer.effectContext(make)
