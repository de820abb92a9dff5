/**
 * Patterns in which `*` stands for any number of characters and `?` for one. Source: appendices, "Glob-style matching".
 *
 * Includes matching a whole value and matching between word boundaries, both without regard to case.
 *
 * Invariants: the time is the product of both lengths over 32, whatever the pattern: all places of the pattern that the
 * text can have reached are followed at once, as bits. A regular expression made of `*a*a*a` would go back and forth.
 *
 * Gotchas: a character is a code point, newlines included. Case is that of single code points, without regard to language;
 * a letter outside ASCII never equals one inside, so that no look-alike of `k` or `s` makes a word.
 *
 * Not here: what is matched against what (`PushConditions.ts`).
 */

/** A value made ready to be matched: its code points in one case. */
export type Text = Uint32Array

/** A pattern made ready. State n means that n of its characters are matched; a set of states has a bit for each. */
export interface Glob {
  /** Its characters, `*` left out: the state in which it has matched. */
  readonly length: number
  /** Bits of the states that a code point leads to, as pairs: index of the word, bits of it. */
  readonly byPoint: ReadonlyMap<number, ReadonlyArray<number>>
  /** Bits of the states that any code point leads to: those of `?`. */
  readonly byAny: Uint32Array
  /** Bits of the states that any code point leaves as they are: those of `*`. */
  readonly staying: Uint32Array
}

const onlyPoint = (text: string): number | undefined => {
  const point = text.codePointAt(0)
  return point !== undefined && String.fromCodePoint(point) === text ? point : undefined
}

const foldPoint = (point: number): number => {
  if (point < 128) return point >= 65 && point <= 90 ? point + 32 : point
  // By way of the upper case, since some letters have two lower ones: σ and ς.
  const upper = onlyPoint(String.fromCodePoint(point).toUpperCase()) ?? point
  const lower = onlyPoint(String.fromCodePoint(upper).toLowerCase()) ?? upper
  return lower < 128 ? point : lower
}

/** Makes a value ready; a value that is matched against many patterns is made ready once. */
export const text = (value: string): Text =>
  Uint32Array.from(value, (character) => foldPoint(character.codePointAt(0) ?? 0))

const STAR = 42
const QUESTION_MARK = 63

interface Building {
  length: number
  readonly byPoint: Map<number, Array<number>>
  readonly byAny: Uint32Array
  readonly staying: Uint32Array
}

const setBit = (bits: Uint32Array, state: number): void => {
  const word = state >>> 5
  bits[word] = (bits[word] ?? 0) | (1 << (state & 31))
}

const addPoint = (glob: Building, point: number): void => {
  const word = glob.length >>> 5
  const bit = 1 << (glob.length & 31)
  const pairs = glob.byPoint.get(point) ?? []
  const last = pairs.length - 2
  if (pairs[last] === word) pairs[last + 1] = (pairs[last + 1] ?? 0) | bit
  else pairs.push(word, bit)
  glob.byPoint.set(point, pairs)
}

const build = (pattern: string, hasWildcards: boolean): Glob => {
  const points = text(pattern)
  const words = (points.length >>> 5) + 1
  const glob: Building = {
    length: 0,
    byPoint: new Map(),
    byAny: new Uint32Array(words),
    staying: new Uint32Array(words)
  }
  for (const point of points) {
    if (hasWildcards && point === STAR) {
      setBit(glob.staying, glob.length)
      continue
    }
    glob.length += 1
    if (hasWildcards && point === QUESTION_MARK) setBit(glob.byAny, glob.length)
    else addPoint(glob, point)
  }
  return glob
}

/** Makes a pattern ready. */
export const glob = (pattern: string): Glob => build(pattern, true)

/** Makes a pattern ready that stands for itself, `*` and `?` included. */
export const literal = (pattern: string): Glob => build(pattern, false)

const wordAt = (bits: Uint32Array, index: number): number => bits[index] ?? 0

const isIn = (states: Uint32Array, state: number): boolean => (wordAt(states, state >>> 5) & (1 << (state & 31))) !== 0

/** Each state moved up by one, a word of it: what the pattern would have matched if its next character fits. */
const movedUp = (states: Uint32Array, word: number): number =>
  (wordAt(states, word) << 1) | (word === 0 ? 0 : wordAt(states, word - 1) >>> 31)

const advance = (glob: Glob, from: Uint32Array, point: number, to: Uint32Array): void => {
  for (let word = 0; word < to.length; word++)
    to[word] = (movedUp(from, word) & wordAt(glob.byAny, word)) | (wordAt(from, word) & wordAt(glob.staying, word))
  const pairs = glob.byPoint.get(point)
  if (pairs === undefined) return
  for (let index = 0; index < pairs.length; index += 2) {
    const word = pairs[index] ?? 0
    to[word] = wordAt(to, word) | (movedUp(from, word) & (pairs[index + 1] ?? 0))
  }
}

/**
 * Whether some part of a text fits that starts and ends where one may.
 *
 * @param isEdge whether a part may start, or end, before the code point with this index
 */
const someFits = (
  glob: Glob,
  value: Text,
  starts: (index: number) => boolean,
  ends: (index: number) => boolean
): boolean => {
  let states = new Uint32Array(glob.staying.length)
  let next = new Uint32Array(glob.staying.length)
  for (let index = 0; index <= value.length; index++) {
    if (starts(index)) setBit(states, 0)
    if (ends(index) && isIn(states, glob.length)) return true
    advance(glob, states, value[index] ?? 0, next)
    ;[states, next] = [next, states]
  }
  return false
}

/** Whether the whole value fits. */
export const matchesWhole = (glob: Glob, value: Text): boolean =>
  someFits(
    glob,
    value,
    (index) => index === 0,
    (index) => index === value.length
  )

const isWordPoint = (point: number): boolean =>
  (point >= 97 && point <= 122) || (point >= 48 && point <= 57) || point === 95 || (point >= 65 && point <= 90)

/**
 * Whether some part of the value fits that starts and ends at a word boundary: the start or the end of the value, or next to
 * a character that is neither an ASCII letter or digit nor `_`. That character may be within the part or outside, as Synapse
 * and Ruma have it: `@room` is in `all@room`.
 */
export const matchesWords = (glob: Glob, value: Text): boolean => {
  const isBoundary = (index: number): boolean =>
    index === 0 || index === value.length || !isWordPoint(value[index - 1] ?? 0) || !isWordPoint(value[index] ?? 0)
  return someFits(glob, value, isBoundary, isBoundary)
}
