/**
 * What a simulation has seen happen: commits, what was told, faults that have hit, and what was wrong.
 *
 * Includes the watch that stands around the database itself, inside of all faults, so that it sees what is so and not what
 * a process was told.
 *
 * Invariants: I1 and I6 are looked at here, in the step in which they would be broken.
 */
import { ExtensionLoopMachine, type LeaseStore, type Room, type SyncStore } from "@twinloop/core"
import { Effect, Hash, References } from "effect"
import * as Checkers from "./SimCheckers.ts"
import type { FaultKind } from "./SimFaults.ts"
import type { World } from "./Simulation.ts"

/** Something that must never be. */
export interface Violation {
  /** The invariant and the checker's name. */
  readonly checker: string
  /** What is wrong, in a sentence. */
  readonly message: string
  /** Virtual milliseconds after the beginning. */
  readonly atMillis: number
}

export interface SimRecord {
  violate(checker: string, message: string): void
  /** Takes a checker's verdict. */
  check(checker: string, message: string | undefined): void
  /** A fault has been met. `detail`: by whom, and where. */
  hit(kind: FaultKind, detail: string): void
  /** Something that happened, for the comparison of two runs. */
  note(what: string): void
  /** A process is about to tell its application of these rooms. */
  published(name: string, rooms: ReadonlyArray<Room.Room>): void
  readonly violations: ReadonlyArray<Violation>
  /** How often each fault was met. */
  readonly hits: ReadonlyMap<FaultKind, number>
  /** Verdicts that were taken. */
  readonly checks: () => number
  /** Two runs of one schedule have the same digest (invariant I8). */
  readonly digest: () => number
  /** Rows of the inbox that were committed so far. */
  readonly lastSequence: () => number
  /** When the key of a session was committed. */
  readonly keyCommittedAt: (sessionId: string) => number | undefined
  /** The world, watched. */
  watch(world: World): World
}

/** Makes an empty record over the host's clock. */
export const makeRecord = (now: () => number): SimRecord => {
  const violations: Array<Violation> = []
  const hits = new Map<FaultKind, number>()
  const keys = new Map<string, number>()
  const committedRooms = new Map<string, string>()
  const known = new Set<string>()
  let digest = 0
  let lastSequence = 0
  let checks = 0

  const note = (what: string): void => {
    digest = Hash.combine(digest, Hash.string(`${now()} ${what}`))
  }
  const violate = (checker: string, message: string): void => {
    // Once is enough: what is wrong stays wrong at every step that follows.
    if (known.has(checker)) return
    known.add(checker)
    violations.push({ checker, message, atMillis: now() })
  }
  const check = (checker: string, message: string | undefined): void => {
    checks += 1
    if (message !== undefined) violate(checker, message)
  }

  /** Looks at the lease in the same step in which a fenced commit was done. */
  const afterCommit =
    (leases: LeaseStore["Service"], fence: { readonly holder: string; readonly generation: number }, what: string) =>
    <A, E>(commit: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.tap(commit, () =>
        Effect.map(Effect.orDie(leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE)), ({ rows: [row] }) => {
          note(`${what} ${fence.holder} ${fence.generation}`)
          check("I1 oneOwner", Checkers.oneOwner(fence, row, what))
        })
      ).pipe(Effect.provideService(References.PreventSchedulerYield, true))

  const tellKeys = (news: SyncStore.CryptoCommit["news"] = []): void => {
    for (const piece of news)
      if (piece._tag === "RoomKey" && !keys.has(piece.sessionId)) keys.set(piece.sessionId, now())
  }

  const watchStore = (store: SyncStore.SyncStore["Service"], leases: LeaseStore["Service"]) =>
    ({
      ...store,
      commitExtension: (fence, commit) =>
        store.commitExtension(fence, commit).pipe(
          Effect.tap((entries) =>
            Effect.sync(() => {
              lastSequence = entries.at(-1)?.sequence ?? lastSequence
              tellKeys(commit.news)
            })
          ),
          afterCommit(leases, fence, "commitExtension")
        ),
      commitCrypto: (fence, commit) =>
        Effect.tap(store.commitCrypto(fence, commit), () => Effect.sync(() => tellKeys(commit.news))).pipe(
          afterCommit(leases, fence, "commitCrypto")
        ),
      expireExtension: (fence) => afterCommit(leases, fence, "expireExtension")(store.expireExtension(fence)),
      commitMain: (commit) =>
        Effect.tap(store.commitMain(commit), () =>
          Effect.sync(() => {
            note(`commitMain ${commit.connId} ${commit.pos}`)
            for (const { room } of commit.rooms) committedRooms.set(Checkers.roomText(room), commit.connId)
          })
        )
    }) satisfies SyncStore.SyncStore["Service"] as SyncStore.SyncStore["Service"]

  return {
    violate,
    note,
    check,
    hit: (kind, detail) => {
      hits.set(kind, (hits.get(kind) ?? 0) + 1)
      note(`${kind} ${detail}`)
    },
    published: (name, rooms) =>
      check(
        "I6 publishedIsStored",
        Checkers.publishedIsStored(name, rooms, (text) => committedRooms.has(text))
      ),
    violations,
    hits,
    digest: () => digest,
    checks: () => checks,
    lastSequence: () => lastSequence,
    keyCommittedAt: (sessionId) => keys.get(sessionId),
    watch: (world) => ({ ...world, store: watchStore(world.store, world.leases) })
  }
}
