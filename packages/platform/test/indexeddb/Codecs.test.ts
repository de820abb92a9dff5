import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as KeyCodec from "../../src/crypto/indexeddb/KeyCodec.ts"
import type { Key } from "../../src/crypto/indexeddb/KeyCodec.ts"
import * as ValueCodec from "../../src/crypto/indexeddb/ValueCodec.ts"
import { plain } from "./IndexedDbKit.ts"

const { cmp } = plain().indexedDB

const binary = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer

/** Code units where the encoding changes its length, and halves of surrogate pairs. */
const unit = fc.oneof(
  fc.constantFrom(0, 1, 0x7e, 0x7f, 0x80, 0xff, 0x407e, 0x407f, 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xffff),
  fc.integer({ min: 0, max: 0xffff })
)
const text = fc.array(unit, { maxLength: 4 }).map((units) => String.fromCharCode(...units))
const number = fc.oneof(
  fc.constantFrom(0, -0, 1, -1, Infinity, -Infinity, Number.MIN_VALUE, -Number.MIN_VALUE, Number.MAX_VALUE),
  fc.double({ noNaN: true })
)
const date = fc.oneof(
  fc.constantFrom(0, 1, -1, 8.64e15, -8.64e15).map((millis) => new Date(millis)),
  fc.date({ noInvalidDate: true })
)
const { key } = fc.letrec<{ key: Key; leaf: Key }>((tie) => ({
  leaf: fc.oneof(number, date, text, fc.string(), fc.uint8Array({ minLength: 1, maxLength: 4 }).map(binary)),
  key: fc.oneof({ depthSize: "small" }, tie("leaf"), fc.array(tie("key"), { maxLength: 3 }))
}))

const sign = (value: number): number => Math.sign(value)

describe("KeyCodec", () => {
  it("sorts bytes as IndexedDB sorts keys", () => {
    fc.assert(
      fc.property(key, key, (a, b) => {
        assert.strictEqual(sign(Buffer.compare(KeyCodec.encode(a), KeyCodec.encode(b))), cmp(a, b))
      }),
      { numRuns: 5_000 }
    )
  })

  it("sorts pairs by the first key and then by the second", () => {
    fc.assert(
      fc.property(key, key, key, key, (a, b, c, d) => {
        const bytes = Buffer.compare(KeyCodec.encodePair(a, b), KeyCodec.encodePair(c, d))
        assert.strictEqual(sign(bytes), cmp(a, c) === 0 ? cmp(b, d) : cmp(a, c))
      }),
      { numRuns: 2_000 }
    )
  })

  it("gives keys back", () => {
    fc.assert(
      fc.property(key, key, (a, b) => {
        const [first, second] = KeyCodec.decodePair(KeyCodec.encodePair(a, b))
        assert.strictEqual(cmp(first, a), 0)
        assert.strictEqual(cmp(second, b), 0)
        assert.strictEqual(cmp(KeyCodec.decode(KeyCodec.encode(a)), a), 0)
      }),
      { numRuns: 2_000 }
    )
  })

  it("bounds a range so that exactly its keys are inside, also with a second key behind them", () => {
    const { KeyRange } = plain()
    fc.assert(
      fc.property(key, key, fc.boolean(), fc.boolean(), key, key, (a, b, lowerOpen, upperOpen, probe, behind) => {
        const [lower, upper] = cmp(a, b) < 0 ? [a, b] : [b, a]
        fc.pre(cmp(lower, upper) !== 0)
        const range = KeyRange.bound(lower, upper, lowerOpen, upperOpen) as { includes(key: unknown): boolean }
        const bounds = KeyCodec.bounds({ lower, upper, lowerOpen, upperOpen })
        for (const candidate of [probe, lower, upper]) {
          for (const bytes of [KeyCodec.encode(candidate), KeyCodec.encodePair(candidate, behind)]) {
            const inside = Buffer.compare(bytes, bounds.lower) >= 0 && Buffer.compare(bytes, bounds.upper!) < 0
            assert.strictEqual(inside, range.includes(candidate))
          }
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it("grows for long keys", () => {
    const long = "é中".repeat(5_000)
    assert.strictEqual(KeyCodec.decode(KeyCodec.encode(long)), long)
  })

  it("refuses bytes that are no key", () => {
    for (const bytes of [[], [0x99], [0x10, 1, 2], [0x30, 0x90], [0x40, 0x80]]) {
      assert.throws(() => KeyCodec.decode(Uint8Array.from(bytes)), RangeError)
    }
  })
})

describe("ValueCodec", () => {
  const json = fc.jsonValue({ maxDepth: 4 })

  it("gives back what JSON can say, in the compact form", () => {
    fc.assert(
      fc.property(json, (value) => {
        const bytes = ValueCodec.encode(value)
        assert.notStrictEqual(bytes[0], 0xff)
        assert.deepStrictEqual(ValueCodec.decode(bytes), value)
      }),
      { numRuns: 2_000 }
    )
  })

  it("gives back numbers and text of every kind", () => {
    fc.assert(
      fc.property(fc.oneof(fc.double(), fc.maxSafeInteger(), text, fc.base64String({ maxLength: 80 })), (value) => {
        assert.deepStrictEqual(ValueCodec.decode(ValueCodec.encode(value)), value)
      }),
      { numRuns: 5_000 }
    )
  })

  it("stores base64 as what it stands for, and what only looks like it as it is", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 30, maxLength: 200 }), fc.constantFrom(..."AbZ9+/"), (bytes, last) => {
        const base64 = Buffer.from(bytes).toString("base64").replace(/=+$/, "")
        const encoded = ValueCodec.encode({ ciphertext: base64 })
        assert.isBelow(encoded.length, bytes.length + 20)
        assert.deepStrictEqual(ValueCodec.decode(encoded), { ciphertext: base64 })
        const other = base64.slice(0, -1) + last
        assert.strictEqual(ValueCodec.decode(ValueCodec.encode(other)), other)
      }),
      { numRuns: 1_000 }
    )
  })

  it("leaves to V8 what JSON can't say", () => {
    const shared = { x: 1 }
    const circle: { self?: unknown } = {}
    circle.self = circle
    const values = [
      undefined,
      10n,
      new Date(5),
      /a/gi,
      new Map<unknown, unknown>([[1, { a: new Set([2]) }]]),
      Uint8Array.of(1, 2),
      Uint8Array.of(3).buffer,
      [undefined, 1],
      { nothing: undefined },
      { a: shared, b: shared },
      circle,
      Object.assign([1], { name: "x" })
    ]
    for (const value of values) assert.deepStrictEqual(ValueCodec.decode(ValueCodec.encode(value)), value)
    const back = ValueCodec.decode(ValueCodec.encode({ a: shared, b: shared })) as { a: unknown; b: unknown }
    assert.strictEqual(back.a, back.b)
    // A hole stays a hole.
    const holes = [1, 2, 3]
    delete holes[1]
    assert.deepStrictEqual(Object.keys(ValueCodec.decode(ValueCodec.encode(holes)) as object), ["0", "2"])
  })

  it("keeps a property that is called __proto__", () => {
    const value: unknown = JSON.parse(`{"__proto__": {"a": 1}}`)
    const back = ValueCodec.decode(ValueCodec.encode(value))
    assert.deepStrictEqual(Object.getOwnPropertyNames(back), ["__proto__"])
  })

  it("gives a new value each time", () => {
    const bytes = ValueCodec.encode({ list: [1] })
    assert.notStrictEqual(ValueCodec.decode(bytes), ValueCodec.decode(bytes))
  })

  it("clones what it can store, and refuses the rest with DataCloneError", () => {
    for (const value of [{ a: [1, new Date(1), new Map([[1, 2]])] }, Object(1n), new Error("x")]) {
      assert.notStrictEqual(ValueCodec.clone(value), value)
    }
    const refused = [() => 1, Symbol("x"), new Blob(["x"]), { inside: [new Blob(["x"])] }, new Map([[1, new Blob([])]])]
    for (const value of refused) {
      const error = (() => {
        try {
          return ValueCodec.clone(value)
        } catch (thrown) {
          return thrown
        }
      })()
      assert.strictEqual((error as Error).name, "DataCloneError")
    }
  })

  it("refuses bytes that are no value", () => {
    for (const bytes of [[1], [1, 99], [1, 6, 5, 1], [1, 5, 0]]) {
      assert.throws(() => ValueCodec.decode(Uint8Array.from(bytes)), RangeError)
    }
  })
})
