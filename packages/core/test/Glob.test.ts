import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Glob from "../src/matrix/Glob.ts"

const whole = (pattern: string, value: string): boolean => Glob.matchesWhole(Glob.glob(pattern), Glob.text(value))
const words = (pattern: string, value: string): boolean => Glob.matchesWords(Glob.glob(pattern), Glob.text(value))

/** The same by the definition alone: slow, and right. */
const fits = (pattern: ReadonlyArray<string>, value: ReadonlyArray<string>): boolean => {
  const [first, ...rest] = pattern
  if (first === undefined) return value.length === 0
  if (first === "*") return fits(rest, value) || (value.length > 0 && fits(pattern, value.slice(1)))
  return value.length > 0 && (first === "?" || first === value[0]) && fits(rest, value.slice(1))
}

const isWord = (character: string | undefined): boolean => /^[a-z0-9_]$/i.test(character ?? "")

/** Some part fits whose ends are word boundaries, by trying all parts. */
const somePartFits = (pattern: ReadonlyArray<string>, value: ReadonlyArray<string>): boolean => {
  const edges = Array.from({ length: value.length + 1 }, (_, index) => index).filter(
    (index) => !(isWord(value[index - 1]) && isWord(value[index]))
  )
  return edges.some((start) => edges.some((end) => end >= start && fits(pattern, value.slice(start, end))))
}

const patterns = fc.array(fc.constantFrom("a", "b", " ", "*", "?", "😀"), { maxLength: 7 })
const values = fc.array(fc.constantFrom("a", "b", " ", "é", "😀", "\n"), { maxLength: 9 })

describe("Glob", () => {
  it("matches what the definition says", () => {
    fc.assert(
      fc.property(patterns, values, (pattern, value) => {
        assert.strictEqual(whole(pattern.join(""), value.join("")), fits(pattern, value))
        assert.strictEqual(words(pattern.join(""), value.join("")), somePartFits(pattern, value))
      }),
      { numRuns: 5_000 }
    )
  })

  it("matches patterns whose places need several words of bits", () => {
    const long = "abcdefghij".repeat(20)
    assert.isTrue(whole(long, long))
    assert.isTrue(whole(`*${long}?*`, `${long}${long}x`))
    assert.isTrue(words(`${long}*${long}`, `so ${long} and ${long}!`))
    assert.isFalse(whole(`${long}k`, `${long}j`))
    fc.assert(
      fc.property(fc.nat(99), fc.nat(99), fc.array(fc.constantFrom("a", "?"), { maxLength: 90 }), (few, many, tail) => {
        const [pattern, value] = ["a".repeat(few) + tail.join(""), "a".repeat(many)]
        assert.strictEqual(whole(pattern, value), few + tail.length === many)
        assert.strictEqual(whole(`${pattern}*`, value), few + tail.length <= many)
      })
    )
  })

  it("knows the case of letters of every script, and takes none of them for an ASCII one", () => {
    for (const [one, other] of [
      ["É", "é"],
      ["ΟΔΟΣ", "οδος"],
      ["σ", "ς"],
      ["ЖЁ", "жё"],
      ["𐐀", "𐐨"],
      ["ẞ", "ß"]
    ] as const) {
      assert.isTrue(whole(one, other), `${one} and ${other}`)
      assert.isTrue(whole(other, one), `${other} and ${one}`)
    }
    for (const [one, other] of [
      ["k", "\u212A"],
      ["s", "ſ"],
      ["i", "ı"],
      ["i", "İ"]
    ] as const)
      assert.isFalse(whole(one, other), `${one} and ${other}`)
  })

  it("takes a code point for one character, half a pair and a line's end too", () => {
    assert.isTrue(whole("?", "😀"))
    assert.isFalse(whole("??", "😀"))
    assert.isTrue(whole("a?*", "a\n\u2028b"))
    assert.isTrue(whole("?x", "\uD83Dx"))
  })

  it("stands for itself where the pattern is a literal", () => {
    assert.isTrue(Glob.matchesWords(Glob.literal("*the* ?"), Glob.text("so *the* ?!")))
    assert.isFalse(Glob.matchesWords(Glob.literal("a*b"), Glob.text("axb")))
  })

  // With a matcher that goes back and forth, each of these would take longer than the universe has existed, or hours.
  it("ends for patterns made to take forever", () => {
    const value = `${"a".repeat(65_536)}b`
    assert.isFalse(whole(`${"*a".repeat(2_000)}*c`, value))
    assert.isFalse(words(`${"*a?".repeat(2_000)}*c*`, value))
    assert.isFalse(whole(`*${"a".repeat(20_000)}c*`, value))
    assert.isFalse(words(`${"a".repeat(20_000)}?`, value))
    assert.isTrue(whole(`${"*".repeat(20_000)}b`, value))
    assert.isFalse(
      whole(Array.from({ length: 20_000 }, (_, index) => String.fromCodePoint(0x4e00 + index)).join(""), value)
    )
  })
})
