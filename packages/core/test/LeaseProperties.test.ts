import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import * as Lease from "../src/lease/Lease.ts"

/** What one of some simulated processes does, or what happens to it. */
type Move =
  | {
      readonly _tag: "Take"
      readonly who: number
      readonly count: number
      readonly queues: boolean
      readonly urgent: boolean
    }
  | { readonly _tag: "TakeFromDead"; readonly who: number; readonly count: number; readonly dead: number }
  | { readonly _tag: "Renew" | "Release" | "Leave" | "Crash"; readonly who: number }
  | { readonly _tag: "Pass"; readonly millis: number }
  | { readonly _tag: "Skew"; readonly who: number; readonly millis: number }

const name = "stream"
const processes = 4
const leaseMillis = 1_000
const ticketMillis = 1_500
const handoverMillis = 200
const hour = 3_600_000

const who = fc.nat({ max: processes - 1 })
const count = fc.integer({ min: 1, max: 3 })
const [queues, urgent] = [fc.boolean(), fc.boolean()]
const take: fc.Arbitrary<Move> = fc.record({ _tag: fc.constant("Take"), who, count, queues, urgent })
const takeFromDead: fc.Arbitrary<Move> = fc.record({ _tag: fc.constant("TakeFromDead"), who, count, dead: fc.nat(20) })
const plain = (tag: "Renew" | "Release" | "Leave" | "Crash"): fc.Arbitrary<Move> =>
  fc.record({ _tag: fc.constant(tag), who })
const pass: fc.Arbitrary<Move> = fc.record({
  _tag: fc.constant("Pass"),
  millis: fc.constantFrom(1, 100, 250, 900, 1_600)
})
const skew: fc.Arbitrary<Move> = fc.record({
  _tag: fc.constant("Skew"),
  who,
  millis: fc.oneof(fc.integer({ min: -3_000, max: 3_000 }), fc.constantFrom(-hour, hour))
})

const orderly = fc.oneof(
  { arbitrary: take, weight: 5 },
  { arbitrary: plain("Release"), weight: 3 },
  { arbitrary: plain("Renew"), weight: 2 },
  { arbitrary: plain("Leave"), weight: 1 },
  { arbitrary: pass, weight: 3 }
)
const anything = fc.oneof(
  { arbitrary: orderly, weight: 14 },
  { arbitrary: plain("Crash"), weight: 1 },
  { arbitrary: takeFromDead, weight: 2 },
  { arbitrary: skew, weight: 1 }
)
const moves = (move: fc.Arbitrary<Move>) => fc.array(move, { minLength: 1, maxLength: 60, size: "max" })

interface Process {
  holder: string
  skewMillis: number
  /** What it believes to hold. */
  fence: Lease.Fence | undefined
}

/** Processes over one table; each believes what it was told last, and nobody tells it that it lost. */
class World {
  table = Lease.emptyTable
  nowMillis = 10 * hour
  readonly permits: number
  readonly processes: ReadonlyArray<Process>
  readonly dead: Array<string> = []
  /** Every fence that was ever granted, with the number of permits under it. */
  readonly granted = new Map<string, { readonly fence: Lease.Fence; readonly count: number }>()

  constructor(permits: number) {
    this.permits = permits
    this.processes = Array.from({ length: processes }, (_, who) => ({
      holder: `${who}`,
      skewMillis: 0,
      fence: undefined
    }))
  }

  take(process: Process, count: number, more: Partial<Lease.TakeRequest>): Lease.TakeOutcome {
    const request = { name, permits: this.permits, count: Math.min(count, this.permits), leaseMillis, peer: {} }
    const nowMillis = this.nowMillis + process.skewMillis
    const [table, outcome] = Lease.decideTake(this.table, { ...request, holder: process.holder, nowMillis, ...more })
    this.table = table
    if (outcome._tag === "Granted") {
      process.fence = { name, holder: process.holder, generation: outcome.generation }
      this.granted.set(`${outcome.generation}`, { fence: process.fence, count: outcome.slots.length })
    }
    return outcome
  }

  release(process: Process): Lease.ReleaseOutcome {
    if (process.fence === undefined) return { _tag: "NotHeld" }
    const nowMillis = this.nowMillis + process.skewMillis
    const [table, outcome] = Lease.decideRelease(this.table, { fence: process.fence, nowMillis, handoverMillis })
    this.table = table
    process.fence = undefined
    return outcome
  }

  move(move: Move): void {
    if (move._tag === "Pass") this.nowMillis += move.millis
    else this.act(move, this.processes[move.who]!)
  }

  private act(move: Exclude<Move, { _tag: "Pass" }>, process: Process): void {
    const nowMillis = this.nowMillis + process.skewMillis
    switch (move._tag) {
      case "Take":
        this.take(process, move.count, move.queues ? { enqueueMillis: ticketMillis, urgent: move.urgent } : {})
        break
      case "TakeFromDead": {
        const holder = this.dead[move.dead]
        if (holder !== undefined) this.take(process, move.count, { presumedDead: [holder] })
        break
      }
      case "Renew":
        if (process.fence !== undefined) {
          this.table = Lease.decideRenew(this.table, { fence: process.fence, nowMillis, leaseMillis })[0]
        }
        break
      case "Release":
        this.release(process)
        break
      case "Leave":
        this.table = Lease.decideLeave(this.table, { holder: process.holder, nowMillis, handoverMillis })[0]
        break
      case "Crash":
        // It comes back as another holder.
        this.dead.push(process.holder)
        process.holder = `${move.who}.${this.dead.length}`
        process.fence = undefined
        break
      case "Skew":
        process.skewMillis = move.millis
    }
  }

  /** The first waiter whose ticket still counts, on a host where all clocks agree. */
  firstWaiter(): string | undefined {
    return this.table.waiters.find((waiter) => waiter.expiresAtMillis > this.nowMillis)?.holder
  }

  /** Who owns the only permit, expired or not. */
  owner(): string | undefined {
    return this.table.rows.find((row) => row.expiresAtMillis > this.nowMillis)?.holder
  }
}

const owners = (world: World) =>
  world.table.rows.filter((row) => row.holder !== "").map((row) => [row.generation, row.holder] as const)

describe("Lease under any interleaving", () => {
  it("I1: no more permits stand than there are, whatever clocks say and whoever crashes", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), moves(anything), (permits, all) => {
        const world = new World(permits)
        for (const move of all) {
          world.move(move)
          const standing = [...world.granted.values()].filter(({ fence }) => Lease.stands(world.table, fence))
          const taken = standing.reduce((sum, { count }) => sum + count, 0)
          assert.isAtMost(taken, permits)
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it("I1: of one permit, never two fences stand", () => {
    fc.assert(
      fc.property(moves(anything), (all) => {
        const world = new World(1)
        const fences: Array<Lease.Fence> = []
        for (const move of all) {
          world.move(move)
          for (const { fence } of world.processes) if (fence !== undefined) fences.push(fence)
          const standing = new Set(
            fences
              .filter((fence) => Lease.stands(world.table, fence))
              .map(({ holder, generation }) => `${holder}/${generation}`)
          )
          assert.isAtMost(standing.size, 1)
        }
      }),
      { numRuns: 1_000 }
    )
  })

  it("I1: no generation ever goes back, and none belongs to two holders", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), moves(anything), (permits, all) => {
        const world = new World(permits)
        const holderOf = new Map<number, string>()
        const newestOf = new Map<number, number>()
        for (const move of all) {
          world.move(move)
          for (const [generation, holder] of owners(world)) {
            assert.strictEqual(holderOf.get(generation) ?? holder, holder)
            holderOf.set(generation, holder)
          }
          for (const { slot, generation } of world.table.rows) {
            assert.isAtLeast(generation, newestOf.get(slot) ?? 0)
            newestOf.set(slot, generation)
          }
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it("gives the lease to nobody but the first waiter while there is one", () => {
    fc.assert(
      fc.property(moves(orderly), (all) => {
        const world = new World(1)
        for (const move of all) {
          const [first, before] = [world.firstWaiter(), world.owner()]
          world.move(move)
          const after = world.owner()
          // Leaving takes the first out of the queue, and a late renewal by the last owner passes nothing on.
          const passesOn = move._tag !== "Leave" && move._tag !== "Renew" && after !== undefined && after !== before
          if (first !== undefined && passesOn) assert.strictEqual(after, first)
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it("starves nobody: when owners keep releasing, waiters own it in the order of their tickets", () => {
    fc.assert(
      fc.property(moves(orderly), fc.array(who, { maxLength: 30 }), (all, greedy) => {
        const world = new World(1)
        for (const move of all) world.move(move)
        const look = (process: Process) => world.take(process, 1, { enqueueMillis: ticketMillis })
        const before = world.owner()
        const live = world.table.waiters.filter((waiter) => waiter.expiresAtMillis > world.nowMillis)
        // An owner that was late, queued, and then renewed all the same has what it waits for.
        const expected = live.map((waiter) => waiter.holder).filter((holder) => holder !== before)
        const owners: Array<string> = []
        for (let round = 0; round <= expected.length; round++) {
          // Everybody in the queue looks, some who aren't in it push in, and the owner lets go and wants it again.
          for (const process of world.processes) if (expected.includes(process.holder)) look(process)
          for (const one of greedy) look(world.processes[one]!)
          const owner = world.processes.find((process) => process.holder === world.owner())
          if (owner === undefined) break
          owners.push(owner.holder)
          look(owner)
          world.release(owner)
          look(owner)
        }
        const served = owners.filter((owner) => owner !== before)
        assert.deepStrictEqual(served.slice(0, expected.length), expected)
      }),
      { numRuns: 500 }
    )
  })
})
