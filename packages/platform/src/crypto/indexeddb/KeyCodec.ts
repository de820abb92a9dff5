/**
 * IndexedDB's keys as bytes that sort like the keys: number < date < string < binary < array, each as the specification
 * compares it.
 *
 * Includes the encoding, its inverse, and the bounds of a key range in bytes.
 *
 * Invariants:
 * - `compare(encode(a), encode(b))` is what `indexedDB.cmp(a, b)` says, byte by byte and unsigned, as SQLite compares BLOBs.
 * - No encoding is the beginning of another one. So two keys after each other sort by the first and then by the second,
 *   and can be taken apart again.
 *
 * Gotchas: -0 and 0 are one key, which is stored as 0.
 */

/** A key that IndexedDB has checked: no NaN, no array inside itself, binary as its own `ArrayBuffer`. */
export type Key = number | Date | string | ArrayBuffer | ReadonlyArray<Key>

/** A range of keys. An absent bound is open on that side. */
export interface KeyRange {
  readonly lower?: Key | undefined
  readonly upper?: Key | undefined
  readonly lowerOpen: boolean
  readonly upperOpen: boolean
}

/** The range of one key. */
export const only = (key: Key): KeyRange => ({ lower: key, upper: key, lowerOpen: false, upperOpen: false })

// Between two types there is room for what a later edition of the specification may add.
const NUMBER = 0x10
const DATE = 0x20
const STRING = 0x30
const BINARY = 0x40
const ARRAY = 0x50
/** Ends strings, binary and arrays: less than anything inside them. */
const END = 0x00
/** Greater than any first byte of a key: behind all that begins with the bytes before it. */
const BEHIND = 0xff

// A UTF-16 code unit takes 1 byte below 0x7f, 2 below 0x407f (nearly all scripts but CJK), else 3.
const TWO_BYTES = 0x7f
const THREE_BYTES = 0x407f

let buffer = Buffer.allocUnsafeSlow(1024)
let used = 0

const reserve = (more: number): void => {
  if (used + more <= buffer.length) return
  const larger = Buffer.allocUnsafeSlow(Math.max(buffer.length * 2, used + more))
  buffer.copy(larger, 0, 0, used)
  buffer = larger
}

const putByte = (byte: number): void => {
  buffer[used++] = byte
}

/** IEEE 754 sorts like its bits if negative numbers have all of theirs inverted, and the others only the sign. */
const putNumber = (tag: number, value: number): void => {
  reserve(9)
  putByte(tag)
  buffer.writeDoubleBE(value === 0 ? 0 : value, used)
  if (value < 0) for (let at = used; at < used + 8; at++) buffer[at] = 255 - buffer[at]!
  else buffer[used] = buffer[used]! | 0x80
  used += 8
}

const putString = (value: string): void => {
  reserve(value.length * 3 + 2)
  putByte(STRING)
  for (let index = 0; index < value.length; index++) {
    const unit = value.charCodeAt(index)
    if (unit < TWO_BYTES) putByte(unit + 1)
    else if (unit < THREE_BYTES) {
      putByte(0x80 | ((unit - TWO_BYTES) >> 8))
      putByte((unit - TWO_BYTES) & 0xff)
    } else {
      putByte(0xc0)
      putByte(unit >> 8)
      putByte(unit & 0xff)
    }
  }
  putByte(END)
}

const putBinary = (value: Uint8Array): void => {
  reserve(value.length * 2 + 2)
  putByte(BINARY)
  for (const byte of value) {
    if (byte < 0x7f) putByte(byte + 1)
    else {
      putByte(0x80)
      putByte(byte)
    }
  }
  putByte(END)
}

const putArray = (value: ReadonlyArray<Key>): void => {
  reserve(1)
  putByte(ARRAY)
  for (const item of value) put(item)
  reserve(1)
  putByte(END)
}

const put = (key: Key): void => {
  if (typeof key === "string") putString(key)
  else if (typeof key === "number") putNumber(NUMBER, key)
  else if (key instanceof Date) putNumber(DATE, key.getTime())
  else if (key instanceof ArrayBuffer) putBinary(new Uint8Array(key))
  else putArray(key)
}

const taken = (): Uint8Array => new Uint8Array(buffer.subarray(0, used))

/** The bytes of a key. */
export const encode = (key: Key): Uint8Array => {
  used = 0
  put(key)
  return taken()
}

/** The bytes of two keys after each other. */
export const encodePair = (first: Key, second: Key): Uint8Array => {
  used = 0
  put(first)
  put(second)
  return taken()
}

/** The least bytes that sort behind everything that begins with this key. */
export const encodeBehind = (key: Key): Uint8Array => {
  used = 0
  put(key)
  reserve(1)
  putByte(BEHIND)
  return taken()
}

/** Where the bytes of a range begin, and (exclusive) end: nowhere when `upper` is absent. */
export interface Bounds {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
}

/** The bounds of a range in bytes, also of pairs whose first key is in it. */
export const bounds = (range: KeyRange | undefined): Bounds => {
  const bound = (key: Key, behind: boolean) => (behind ? encodeBehind(key) : encode(key))
  return {
    lower: range?.lower === undefined ? new Uint8Array(0) : bound(range.lower, range.lowerOpen),
    upper: range?.upper === undefined ? undefined : bound(range.upper, !range.upperOpen)
  }
}

class Decoder {
  private readonly bytes: Buffer
  at: number

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.at = at
  }

  private next(): number {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw new RangeError("a stored key ends in the middle")
    return byte
  }

  private number(): number {
    if (this.at + 8 > this.bytes.length) throw new RangeError("a stored key ends in the middle")
    const raw = Buffer.from(this.bytes.subarray(this.at, this.at + 8))
    this.at += 8
    if ((raw[0]! & 0x80) === 0) raw.forEach((byte, index) => (raw[index] = 255 - byte))
    else raw[0] = raw[0]! & 0x7f
    return raw.readDoubleBE(0)
  }

  /** The code units as one byte each if they all are, which is what nearly every key is made of. */
  private ascii(): string | undefined {
    const end = this.bytes.indexOf(END, this.at)
    if (end < 0) return undefined
    const units = Buffer.from(this.bytes.subarray(this.at, end))
    for (let index = 0; index < units.length; index++) {
      const byte = units[index]!
      if (byte >= 0x80) return undefined
      units[index] = byte - 1
    }
    this.at = end + 1
    return units.toString("latin1")
  }

  private string(): string {
    const ascii = this.ascii()
    if (ascii !== undefined) return ascii
    let text = ""
    for (let byte = this.next(); byte !== END; byte = this.next()) {
      const unit =
        byte < 0x80
          ? byte - 1
          : byte < 0xc0
            ? (((byte & 0x3f) << 8) | this.next()) + TWO_BYTES
            : (this.next() << 8) | this.next()
      text += String.fromCharCode(unit)
    }
    return text
  }

  private binary(): ArrayBuffer {
    const bytes: Array<number> = []
    for (let byte = this.next(); byte !== END; byte = this.next()) bytes.push(byte < 0x80 ? byte - 1 : this.next())
    return Uint8Array.from(bytes).buffer
  }

  private array(): ReadonlyArray<Key> {
    const items: Array<Key> = []
    while (this.bytes[this.at] !== END) items.push(this.key())
    this.at++
    return items
  }

  key(): Key {
    const tag = this.next()
    if (tag === STRING) return this.string()
    if (tag === NUMBER) return this.number()
    if (tag === DATE) return new Date(this.number())
    if (tag === BINARY) return this.binary()
    if (tag === ARRAY) return this.array()
    throw new RangeError(`a stored key has the unknown type ${tag}`)
  }
}

/** The key that these bytes begin with. Throws `RangeError` when they are no key. */
export const decode = (bytes: Uint8Array): Key => new Decoder(bytes, 0).key()

/** The two keys that these bytes are. Throws `RangeError` when they aren't. */
export const decodePair = (bytes: Uint8Array): readonly [Key, Key] => {
  const decoder = new Decoder(bytes, 0)
  return [decoder.key(), decoder.key()]
}
