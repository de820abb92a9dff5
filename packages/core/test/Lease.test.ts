import { assert, describe, it } from "@effect/vitest"
import * as Lease from "../src/lease/Lease.ts"

const name = "stream"
const hour = 3_600_000
/** When each test begins: far enough from 0 that a clock can be set back. */
const start = 10 * hour
const leaseMillis = 1_000
const ticketMillis = 1_500
const handoverMillis = 200

type Asked = Partial<Omit<Lease.TakeRequest, "nowMillis" | "holder">>

/** One name's table, changed by the rules alone. */
const makeTable = (permits = 1) => {
  let table = Lease.emptyTable
  const keep = <A>([next, outcome]: readonly [Lease.LeaseTable, A]): A => {
    table = next
    return outcome
  }
  const take = (holder: string, nowMillis: number, more: Asked = {}) =>
    keep(Lease.decideTake(table, { name, permits, count: 1, holder, peer: {}, nowMillis, leaseMillis, ...more }))
  return {
    table: () => table,
    take,
    /** Takes, and queues when refused. */
    queue: (holder: string, nowMillis: number, more: Asked = {}) =>
      take(holder, nowMillis, { enqueueMillis: ticketMillis, ...more }),
    /** Takes and must succeed; gives the fence. */
    own: (holder: string, nowMillis: number, more: Asked = {}): Lease.Fence => {
      const outcome = take(holder, nowMillis, more)
      if (outcome._tag === "Busy") return assert.fail(`${outcome.blocker.holder} stands in the way of ${holder}`)
      return { name, holder, generation: outcome.generation }
    },
    /** The new expiry, or `undefined` when it is refused. */
    renew: (fence: Lease.Fence, nowMillis: number) => {
      const outcome = keep(Lease.decideRenew(table, { fence, nowMillis, leaseMillis }))
      return outcome._tag === "Renewed" ? outcome.expiresAtMillis : undefined
    },
    release: (fence: Lease.Fence, nowMillis: number) =>
      keep(Lease.decideRelease(table, { fence, nowMillis, handoverMillis })),
    leave: (holder: string, nowMillis: number) => keep(Lease.decideLeave(table, { holder, nowMillis, handoverMillis })),
    stands: (fence: Lease.Fence) => Lease.stands(table, fence)
  }
}

const blockerOf = (outcome: Lease.TakeOutcome) => (outcome._tag === "Busy" ? outcome.blocker.holder : undefined)
const queueOf = (table: Lease.LeaseTable) => table.waiters.map((waiter) => waiter.holder)

describe("Lease: the generation", () => {
  it("I1: grows when ownership passes to another holder, and never else", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    assert.strictEqual(a.generation, 1)
    assert.strictEqual(lease.own("a", start + 10).generation, 1)

    // Released and taken again, expired and taken again: nobody owned it in between.
    lease.release(a, start + 20)
    assert.strictEqual(lease.own("a", start + 30).generation, 1)
    assert.strictEqual(lease.own("a", start + 30 + 5 * leaseMillis).generation, 1)

    lease.release(a, start + 6 * leaseMillis)
    assert.strictEqual(lease.own("b", start + 6 * leaseMillis).generation, 2)
    assert.strictEqual(lease.own("a", start + 7 * leaseMillis).generation, 3)
  })

  it("I1: stands until somebody else takes the lease, expired, released or not", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    lease.release(a, start + hour)
    assert.isTrue(lease.stands(a))
    const b = lease.own("b", start + hour)
    assert.isFalse(lease.stands(a))
    assert.isTrue(lease.stands(b))
    assert.strictEqual(Lease.generationOf(lease.table()), 2)
  })

  it("keeps the generation of a lease that expired, was not taken, and is renewed", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    assert.strictEqual(lease.renew(a, start + 9 * leaseMillis), start + 10 * leaseMillis)
    assert.strictEqual(blockerOf(lease.take("b", start + 9 * leaseMillis + 1)), "a")
    assert.strictEqual(lease.own("a", start + 9 * leaseMillis + 2).generation, 1)
  })

  it("I1: renews only for this holder under this generation, and changes nothing otherwise", () => {
    const lease = makeTable()
    const old = lease.own("a", start)
    const b = lease.own("b", start + leaseMillis)
    const before = lease.table()
    for (const fence of [old, { ...b, generation: b.generation - 1 }, { ...b, holder: "a" }]) {
      assert.isUndefined(lease.renew(fence, start + leaseMillis + 1))
      assert.deepStrictEqual(lease.release(fence, start + leaseMillis + 1), { _tag: "NotHeld" })
    }
    assert.strictEqual(lease.table(), before)
  })
})

describe("Lease: the queue", () => {
  it("serves waiters in the order in which they came", () => {
    const lease = makeTable()
    let owner = lease.own("a", start)
    for (const holder of ["b", "c", "d"]) lease.queue(holder, start)
    const served: Array<string> = []
    for (let turn = 1; turn <= 3; turn++) {
      const outcome = lease.release(owner, start + turn)
      const [next = "nobody"] = outcome._tag === "Released" ? outcome.handedTo : []
      served.push(next)
      owner = lease.own(next, start + turn)
    }
    assert.deepStrictEqual(served, ["b", "c", "d"])
    assert.strictEqual(owner.generation, 4)
  })

  it("refuses a greedy holder that takes again at once after a release with a waiter", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    lease.queue("b", start)
    assert.deepStrictEqual(lease.release(a, start + 1), { _tag: "Released", handedTo: ["b"] })
    assert.isFalse(lease.stands(a))
    assert.strictEqual(blockerOf(lease.queue("a", start + 1)), "b")
    assert.strictEqual(lease.own("b", start + 2).generation, 2)
    assert.deepStrictEqual(queueOf(lease.table()), ["a"])
  })

  it("gives neither a newcomer nor the late owner an expired lease while a waiter is there", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.queue("b", start + leaseMillis - 1)
    assert.strictEqual(blockerOf(lease.take("c", start + leaseMillis)), "b")
    assert.strictEqual(blockerOf(lease.take("a", start + leaseMillis)), "b")
    assert.strictEqual(lease.own("b", start + leaseMillis).generation, 2)
  })

  it("gives a newcomer no free lease while a waiter is there", () => {
    const lease = makeTable(2)
    const a = lease.own("a", start)
    lease.own("x", start)
    lease.queue("large", start, { count: 2 })
    // One permit is free; the one who waits for two is first, so nobody may have it.
    assert.deepStrictEqual(lease.release(a, start + 1), { _tag: "Released", handedTo: [] })
    assert.strictEqual(blockerOf(lease.take("late", start + 2)), "x")
    assert.strictEqual(blockerOf(lease.queue("later", start + 2)), "x")
  })

  it("takes a lease back from a waiter that doesn't confirm it", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    for (const holder of ["b", "c"]) lease.queue(holder, start)
    lease.release(a, start)
    assert.strictEqual(blockerOf(lease.queue("c", start + handoverMillis - 1)), "b")
    assert.strictEqual(lease.own("c", start + handoverMillis).generation, 3)
    // Who comes too late to confirm queues like everybody else.
    assert.strictEqual(blockerOf(lease.queue("b", start + handoverMillis + 1)), "c")
  })

  it("gives a confirmed hand-over a whole lease", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    lease.queue("b", start)
    lease.release(a, start)
    // It begins with what it was handed, and its first renewal confirms it.
    const b = lease.own("b", start + 10)
    assert.strictEqual(blockerOf(lease.take("c", start + handoverMillis - 1)), "b")
    lease.renew(b, start + 10)
    assert.strictEqual(blockerOf(lease.take("c", start + 10 + leaseMillis - 1)), "b")
    assert.isUndefined(blockerOf(lease.take("c", start + 10 + leaseMillis)))
  })

  it("I10: forgets a ticket that isn't refreshed, and keeps the place of one that is", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    for (const holder of ["gone", "b", "c"]) lease.queue(holder, start)
    for (const holder of ["b", "c"]) lease.queue(holder, start + 1_000)
    lease.renew(a, start + 1_000)
    assert.deepStrictEqual(lease.release(a, start + ticketMillis), { _tag: "Released", handedTo: ["b"] })
    assert.deepStrictEqual(queueOf(lease.table()), ["c"])
  })

  it("writes nothing for a waiter that looks again while its ticket is fresh", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.queue("b", start)
    const [ticket] = lease.table().waiters
    lease.queue("b", start + ticketMillis / 2 - 1)
    assert.strictEqual(lease.table().waiters[0], ticket)
    lease.queue("b", start + ticketMillis / 2)
    assert.strictEqual(lease.table().waiters[0]?.expiresAtMillis, start + 1.5 * ticketMillis)
  })

  it("passes on what was handed to a waiter that leaves", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    for (const holder of ["b", "c", "d"]) lease.queue(holder, start)
    // Behind others: only the place goes.
    assert.deepStrictEqual(lease.leave("c", start + 1), { _tag: "Released", handedTo: [] })
    lease.release(a, start + 2)
    assert.deepStrictEqual(lease.leave("b", start + 3), { _tag: "Released", handedTo: ["d"] })
    assert.deepStrictEqual(lease.leave("b", start + 4), { _tag: "NotHeld" })
    assert.strictEqual(lease.own("d", start + 5).generation, 3)
  })

  it("leaves nothing behind of who only tries once", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.take("b", start)
    assert.deepStrictEqual(queueOf(lease.table()), [])
  })

  it("names whom to watch: the holder, or the waiter who was handed the lease", () => {
    const lease = makeTable()
    const peers = { a: { pid: 1 }, b: { endpoint: "/run/b" } }
    const a = lease.own("a", start, { peer: peers.a })
    const blocker = (outcome: Lease.TakeOutcome) => (outcome._tag === "Busy" ? outcome.blocker : undefined)
    assert.deepStrictEqual(blocker(lease.queue("b", start, { peer: peers.b })), {
      kind: "holder",
      holder: "a",
      peer: peers.a,
      expiresAtMillis: start + leaseMillis
    })
    lease.release(a, start + 1)
    assert.deepStrictEqual(blocker(lease.queue("c", start + 1)), {
      kind: "holder",
      holder: "b",
      peer: peers.b,
      expiresAtMillis: start + 1 + handoverMillis
    })
  })

  it("names the waiter ahead as the one to watch when the lease has expired", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.queue("b", start + leaseMillis - 1, { peer: { pid: 2 } })
    assert.deepStrictEqual(lease.queue("c", start + leaseMillis), {
      _tag: "Busy",
      blocker: {
        kind: "waiter",
        holder: "b",
        peer: { pid: 2 },
        expiresAtMillis: start + leaseMillis - 1 + ticketMillis
      }
    })
  })
})

describe("Lease: clocks and the dead", () => {
  for (const [direction, step] of [
    ["forward", hour],
    ["back", -hour]
  ] as const) {
    it(`counts a lease as expired when the clock is set ${direction} by an hour`, () => {
      const lease = makeTable()
      const a = lease.own("a", start)
      assert.strictEqual(lease.own("b", start + step).generation, 2)
      assert.isFalse(lease.stands(a))
      // The new lease is measured by the new clock.
      assert.strictEqual(blockerOf(lease.take("a", start + step + 1)), "b")
    })

    it(`counts tickets as expired when the clock is set ${direction} by an hour`, () => {
      const lease = makeTable()
      lease.own("a", start)
      lease.queue("b", start)
      assert.strictEqual(lease.own("c", start + step).generation, 2)
      assert.deepStrictEqual(queueOf(lease.table()), [])
    })

    it(`lets an owner renew after the clock was set ${direction} by an hour`, () => {
      const lease = makeTable()
      const a = lease.own("a", start)
      assert.strictEqual(lease.renew(a, start + step), start + step + leaseMillis)
      assert.strictEqual(blockerOf(lease.take("b", start + step + 1)), "a")
    })
  }

  it("respects a lease that was renewed after the asker had read the clock", () => {
    const lease = makeTable()
    const a = lease.own("a", start)
    lease.queue("b", start)
    // c read the clock and then waited for a busy database, during which the others wrote.
    lease.renew(a, start + 900)
    lease.queue("b", start + 900)
    assert.strictEqual(blockerOf(lease.queue("c", start + 1)), "a")
    assert.deepStrictEqual(queueOf(lease.table()), ["b", "c"])
    assert.isTrue(lease.stands(a))
  })

  it("counts an expiry as a clock step from one lease and the age of a clock reading on", () => {
    const limit = leaseMillis + Lease.STALE_CLOCK_MILLIS
    const lease = makeTable()
    const { rows } = (lease.own("a", start), lease.table())
    assert.isTrue(Lease.isHeld(rows[0]!, start + leaseMillis - limit))
    assert.isFalse(Lease.isHeld(rows[0]!, start + leaseMillis - limit - 1))
    assert.isTrue(Lease.isHeld(rows[0]!, start + leaseMillis - 1))
    assert.isFalse(Lease.isHeld(rows[0]!, start + leaseMillis))
  })

  it("takes from a dead holder, and from nobody else, before the lease expires", () => {
    const lease = makeTable()
    lease.own("a", start)
    assert.strictEqual(blockerOf(lease.take("b", start + 1, { presumedDead: ["c"] })), "a")
    assert.strictEqual(lease.own("b", start + 1, { presumedDead: ["a"] }).generation, 2)
  })

  it("lets nobody pass the first waiter when the holder is dead", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.queue("b", start)
    assert.strictEqual(blockerOf(lease.queue("c", start + 1, { presumedDead: ["a"] })), "b")
    assert.strictEqual(lease.own("b", start + 2, { presumedDead: ["a"] }).generation, 2)
  })

  it("passes a dead waiter", () => {
    const lease = makeTable()
    lease.own("a", start)
    lease.queue("b", start)
    lease.queue("c", start + 1, { presumedDead: ["b"] })
    assert.deepStrictEqual(queueOf(lease.table()), ["c"])
    assert.strictEqual(lease.own("c", start + leaseMillis).generation, 2)
  })
})

describe("Lease: several permits", () => {
  it("gives all the permits that are asked for, or none", () => {
    const lease = makeTable(3)
    const two = lease.own("a", start, { count: 2 })
    assert.strictEqual(blockerOf(lease.queue("b", start, { count: 2 })), "a")
    assert.strictEqual(lease.table().rows.filter((row) => Lease.isHeld(row, start)).length, 2)

    // Handed over under one new generation, which both rows carry.
    lease.leave("b", start + 1)
    lease.queue("c", start + 1, { count: 2 })
    assert.deepStrictEqual(lease.release(two, start + 2), { _tag: "Released", handedTo: ["c"] })
    const generations = lease
      .table()
      .rows.filter((row) => row.holder === "c")
      .map((row) => row.generation)
    assert.deepStrictEqual(generations, [2, 2])
  })

  it("hands the permits of one release to as many waiters as they reach", () => {
    const lease = makeTable(3)
    const three = lease.own("a", start, { count: 3 })
    for (const holder of ["b", "c", "d", "e"]) lease.queue(holder, start)
    assert.deepStrictEqual(lease.release(three, start + 1), { _tag: "Released", handedTo: ["b", "c", "d"] })
    assert.deepStrictEqual(queueOf(lease.table()), ["e"])
    assert.strictEqual(new Set(lease.table().rows.map((row) => row.generation)).size, 3)
  })

  it("lets no smaller request pass a larger one that came first", () => {
    const lease = makeTable(2)
    const a = lease.own("a", start)
    const b = lease.own("b", start)
    lease.queue("large", start, { count: 2 })
    lease.queue("small", start)
    lease.release(a, start + 1)
    assert.strictEqual(blockerOf(lease.queue("small", start + 2)), "b")
    assert.deepStrictEqual(lease.release(b, start + 3), { _tag: "Released", handedTo: ["large"] })
  })

  it("I1: lets a fence over several permits stand as a whole or not at all", () => {
    const lease = makeTable(2)
    const both = lease.own("a", start, { count: 2 })
    lease.own("b", start + leaseMillis)
    // One of the two is b's; a is not left with the other.
    assert.isFalse(lease.stands(both))
    assert.isUndefined(lease.renew(both, start + leaseMillis))
    assert.isUndefined(blockerOf(lease.take("c", start + leaseMillis)))
  })

  it("I1: frees what a holder doesn't take again, and the fence of the whole stands for no part", () => {
    const lease = makeTable(2)
    const both = lease.own("a", start, { count: 2 })
    const one = lease.own("a", start + 1)
    assert.strictEqual(one.generation, both.generation + 1)
    const other = lease.own("b", start + 1)
    assert.isFalse(lease.stands(both))
    assert.isTrue(lease.stands(one))
    assert.isTrue(lease.stands(other))
  })
})
