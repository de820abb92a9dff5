import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as ListDiff from "../src/rooms/ListDiff.ts"

/** An entry with a key that stays and a value that changes. */
interface Entry {
  readonly key: number
  readonly value: number
}

const byKey = (entry: Entry): number => entry.key

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

const distinct = fc.uniqueArray(fc.nat(60), { maxLength: 60 })

const led = <A>(previous: ReadonlyArray<A>, next: ReadonlyArray<A>, key?: (entry: A) => unknown): ReadonlyArray<A> =>
  ListDiff.applyAll(previous, ListDiff.diff(previous, next, key))

describe("ListDiff", () => {
  it("leads from any list to any other", () => {
    fc.assert(fc.property(distinct, distinct, (previous, next) => assert.deepStrictEqual(led(previous, next), next)))
  })

  it("leads to any list that a few moves, insertions, removals and replacements make", () => {
    const step = fc.record({
      kind: fc.constantFrom("move", "insert", "remove", "set"),
      from: fc.nat(39),
      to: fc.nat(39)
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 15 }), (steps) => {
        const previous: ReadonlyArray<Entry> = numbers(40).map((key) => ({ key, value: 0 }))
        const next = previous.slice()
        for (const [index, { from, kind, to }] of steps.entries()) {
          const key = kind === "insert" ? 100 + index : (next[from]?.key ?? 200 + index)
          if (kind === "move") next.splice(to, 0, ...next.splice(from, 1))
          else if (kind === "remove") next.splice(from, 1)
          else next.splice(from, kind === "set" ? 1 : 0, { key, value: kind === "set" ? 1 : 0 })
        }
        assert.deepStrictEqual(led(previous, next, byKey), next)
      }),
      { numRuns: 500 }
    )
  })

  it("leads to any permutation of a long list with a few rooms displaced", () => {
    const displacement = fc.array(fc.tuple(fc.nat(199), fc.nat(199)), { maxLength: 40 })
    fc.assert(
      fc.property(displacement, (displaced) => {
        const next = numbers(200).slice()
        for (const [from, to] of displaced) next.splice(to, 0, ...next.splice(from, 1))
        assert.deepStrictEqual(led(numbers(200), next), next)
        assert.isTrue(ListDiff.diff(numbers(200), next).length <= displaced.length)
      })
    )
  })

  it("leads to lists that hold an entry twice, by a Reset", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5)), fc.array(fc.nat(5)), (previous, next) =>
        assert.deepStrictEqual(led(previous, next), next)
      )
    )
    assert.deepStrictEqual(ListDiff.diff([1, 2, 1, 3], [2, 1, 3, 1]), [{ _tag: "Reset", entries: [2, 1, 3, 1] }])
  })

  it("says nothing when nothing changed", () => {
    assert.deepStrictEqual(ListDiff.diff([1, 2, 3], [1, 2, 3]), [])
    assert.deepStrictEqual(ListDiff.diff([], []), [])
  })

  it("is one Move when one room comes to the top or goes to the bottom", () => {
    assert.deepStrictEqual(ListDiff.diff([1, 2, 3, 4], [4, 1, 2, 3]), [{ _tag: "Move", from: 3, to: 0 }])
    assert.deepStrictEqual(ListDiff.diff([1, 2, 3, 4], [2, 3, 4, 1]), [{ _tag: "Move", from: 0, to: 3 }])
  })

  it("is a Move and a Set when the room that moves has changed too", () => {
    const [one, two, three] = [1, 2, 3].map((key) => ({ key, value: 0 }))
    const changed = { key: 3, value: 1 }
    assert.deepStrictEqual(ListDiff.diff([one!, two!, three!], [changed, one!, two!], byKey), [
      { _tag: "Move", from: 2, to: 0 },
      { _tag: "Set", index: 0, entry: changed }
    ])
  })

  it("is an Insert, a Remove or a Set for a room that comes, goes or changes", () => {
    assert.deepStrictEqual(ListDiff.diff([1, 2], [1, 9, 2]), [{ _tag: "Insert", index: 1, entry: 9 }])
    assert.deepStrictEqual(ListDiff.diff([1, 9, 2], [1, 2]), [{ _tag: "Remove", index: 1 }])
    const changed = { key: 2, value: 1 }
    const first = { key: 1, value: 0 }
    assert.deepStrictEqual(ListDiff.diff([first, { key: 2, value: 0 }], [first, changed], byKey), [
      { _tag: "Set", index: 1, entry: changed }
    ])
  })

  it("is one Reset when more than half of a long list changed, and diffs when fewer did", () => {
    const previous = numbers(100)
    const shifted = numbers(100).map((number) => number + 60)
    assert.deepStrictEqual(
      ListDiff.diff(previous, shifted).map(({ _tag }) => _tag),
      ["Reset"]
    )
    const few = previous.map((number) => (number % 4 === 0 ? number + 1000 : number))
    assert.isFalse(ListDiff.diff(previous, few).some(({ _tag }) => _tag === "Reset"))
  })

  it("finds 2000 moves among 10 000 rooms without comparing each with each", () => {
    const moving = new Set(numbers(2000).map((number) => number * 5))
    const previous = numbers(10_000)
    const next = [
      ...previous.filter((number) => moving.has(number)).toReversed(),
      ...previous.filter((n) => !moving.has(n))
    ]
    let keys = 0
    const changes = ListDiff.diff(previous, next, (entry) => {
      keys++
      return entry
    })
    assert.isTrue(changes.length <= 2000)
    assert.isTrue(keys <= 40_000)
    assert.deepStrictEqual(ListDiff.applyAll(previous, changes), next)
  })
})
