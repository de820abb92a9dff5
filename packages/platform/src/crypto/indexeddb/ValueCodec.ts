/**
 * IndexedDB's values as bytes.
 *
 * Includes a compact form for what JSON can say, which is all that the crypto engine stores, and V8's own serialization for
 * everything else that a structured clone can hold.
 *
 * Invariants: `decode(encode(value))` equals the value, and is a new one each time.
 *
 * Gotchas:
 * - The engine's values are encrypted and come as base64. The compact form stores what the base64 stands for, so a room key
 *   takes 1.7 kB instead of 2.2 kB. Only text that comes out of it exactly as it went in is stored so.
 * - Platform objects (a Blob, a MessagePort) can be cloned and yet not be stored: V8 would write an empty object.
 */
import { deserialize, serialize } from "node:v8"

// V8's serialization begins with 0xff.
const COMPACT = 0x01

const NULL = 0x00
const FALSE = 0x01
const TRUE = 0x02
const INTEGER = 0x03
const NEGATIVE = 0x04
const DOUBLE = 0x05
const LATIN1 = 0x06
const UTF16 = 0x07
const BASE64 = 0x08
const ARRAY = 0x09
const OBJECT = 0x0a

/** Base64 that is shorter saves less than what it costs to try. */
const SHORTEST_BASE64 = 24

/** What the value consists of so far: whatever is in it twice, or inside itself, is left to V8, which keeps it one. */
const seen = new Set<object>()
let buffer = Buffer.allocUnsafeSlow(16_384)
let used = 0

const reserve = (more: number): void => {
  if (used + more <= buffer.length) return
  const larger = Buffer.allocUnsafeSlow(Math.max(buffer.length * 2, used + more))
  buffer.copy(larger, 0, 0, used)
  buffer = larger
}

const putTag = (tag: number): void => {
  reserve(1)
  buffer[used++] = tag
}

/** 7 bits a byte, the lowest first; up to `Number.MAX_SAFE_INTEGER`. */
const putInteger = (value: number): void => {
  reserve(8)
  let rest = value
  while (rest >= 0x80) {
    buffer[used++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  buffer[used++] = rest
}

const putNumber = (value: number): void => {
  if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
    putTag(value < 0 ? NEGATIVE : INTEGER)
    putInteger(Math.abs(value))
    return
  }
  putTag(DOUBLE)
  reserve(8)
  used = buffer.writeDoubleLE(value, used)
}

const base64Letters = /^[A-Za-z0-9+/]+$/

/** Tries base64 without padding. What isn't exactly that is left to the other forms. */
const putBase64 = (text: string): boolean => {
  if (text.length < SHORTEST_BASE64 || text.length % 4 === 1 || !base64Letters.test(text)) return false
  const start = used
  const length = Math.floor((text.length * 3) / 4)
  putTag(BASE64)
  putInteger(length)
  reserve(length)
  const written = buffer.write(text, used, length, "base64")
  // The last letter has bits that stand for nothing, and that may not be 0.
  if (written === length && readBase64(buffer, used, length) === text) {
    used += length
    return true
  }
  used = start
  return false
}

const readBase64 = (from: Buffer, at: number, length: number): string => {
  const text = from.toString("base64", at, at + length)
  const padding = (3 - (length % 3)) % 3
  return padding === 0 ? text : text.slice(0, -padding)
}

const wide = /[^\0-\xff]/

const putString = (text: string): void => {
  if (putBase64(text)) return
  const latin1 = !wide.test(text)
  const length = latin1 ? text.length : text.length * 2
  putTag(latin1 ? LATIN1 : UTF16)
  putInteger(length)
  reserve(length)
  used += buffer.write(text, used, length, latin1 ? "latin1" : "utf16le")
}

const putArray = (items: ReadonlyArray<unknown>): boolean => {
  // Properties that have names aren't JSON.
  if (Object.keys(items).length !== items.length) return false
  putTag(ARRAY)
  putInteger(items.length)
  // Not with `every`, which passes over holes: they are undefined here, which isn't JSON either.
  for (let index = 0; index < items.length; index++) if (!put(items[index])) return false
  return true
}

const putObject = (object: object): boolean => {
  if (Object.getPrototypeOf(object) !== Object.prototype) return false
  const entries = Object.entries(object)
  putTag(OBJECT)
  putInteger(entries.length)
  return entries.every(([name, value]) => {
    putString(name)
    return put(value)
  })
}

/** Whether the value could be written; what was written before it turned out is void. */
const put = (value: unknown): boolean => {
  if (typeof value === "string") putString(value)
  else if (typeof value === "number") putNumber(value)
  else if (typeof value === "boolean") putTag(value ? TRUE : FALSE)
  else if (value === null) putTag(NULL)
  else if (typeof value !== "object" || seen.has(value)) return false
  else {
    seen.add(value)
    return Array.isArray(value) ? putArray(value) : putObject(value)
  }
  return true
}

const putCompact = (value: unknown): boolean => {
  used = 0
  seen.clear()
  putTag(COMPACT)
  return put(value)
}

/** The bytes of a value. Throws `DataCloneError` for a value that can't be stored. */
export const encode = (value: unknown): Uint8Array => {
  if (putCompact(value)) return new Uint8Array(buffer.subarray(0, used))
  try {
    return serialize(value)
  } catch (cause) {
    throw dataCloneError(cause instanceof Error ? cause.message : "The value can't be stored.")
  }
}

class Decoder {
  private readonly bytes: Buffer
  private at = 1

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  private byte(): number {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw new RangeError("a stored value ends in the middle")
    return byte
  }

  private integer(): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 0x80
    }
  }

  /** Moves behind so many bytes, and says where they begin. */
  private skip(length: number): number {
    const start = this.at
    this.at += length
    if (this.at > this.bytes.length) throw new RangeError("a stored value ends in the middle")
    return start
  }

  private text(tag: number): string {
    const length = this.integer()
    const start = this.skip(length)
    if (tag === BASE64) return readBase64(this.bytes, start, length)
    return this.bytes.toString(tag === LATIN1 ? "latin1" : "utf16le", start, start + length)
  }

  private array(): Array<unknown> {
    const items: Array<unknown> = []
    for (let left = this.integer(); left > 0; left--) items.push(this.value())
    return items
  }

  private object(): object {
    const object: { [name: string]: unknown } = {}
    for (let left = this.integer(); left > 0; left--) {
      const name = this.text(this.byte())
      // Assigning what the prototype has could call a setter, and `__proto__` is one.
      if (name in object) Object.defineProperty(object, name, { ...property, value: this.value() })
      else object[name] = this.value()
    }
    return object
  }

  value(): unknown {
    const tag = this.byte()
    if (tag >= LATIN1 && tag <= BASE64) return this.text(tag)
    if (tag === OBJECT) return this.object()
    if (tag === INTEGER) return this.integer()
    if (tag === NEGATIVE) return -this.integer()
    if (tag === ARRAY) return this.array()
    if (tag === TRUE || tag === FALSE) return tag === TRUE
    if (tag === NULL) return null
    if (tag === DOUBLE) return this.bytes.readDoubleLE(this.skip(8))
    throw new RangeError(`a stored value has the unknown type ${tag}`)
  }
}

const property = { configurable: true, enumerable: true, writable: true }

/** The value of these bytes, new each time. Throws an `Error` when they are no value. */
export const decode = (bytes: Uint8Array): unknown => {
  if (bytes[0] !== COMPACT) return deserialize(bytes)
  return new Decoder(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).value()
}

const dataCloneError = (message: string): DOMException => new DOMException(message, "DataCloneError")

const builtIns = new Set(
  ["Array", "ArrayBuffer", "BigInt", "Boolean", "Date", "Error", "Map", "Number", "RegExp", "Set", "String"].map(
    (name) => `[object ${name}]`
  )
)

/** Of a clone, which has lost its class and its symbols: so the tag can't be made up. */
const isStorable = (object: object): boolean =>
  Object.getPrototypeOf(object) === Object.prototype ||
  ArrayBuffer.isView(object) ||
  builtIns.has(Object.prototype.toString.call(object))

const assertStorable = (value: unknown, seen: Set<object>): void => {
  if (typeof value !== "object" || value === null || seen.has(value)) return
  seen.add(value)
  if (!isStorable(value)) {
    throw dataCloneError(`${Object.prototype.toString.call(value)} could be cloned, but not be stored.`)
  }
  if (ArrayBuffer.isView(value)) return
  if (value instanceof Map) value.forEach((item, key) => (assertStorable(key, seen), assertStorable(item, seen)))
  else if (value instanceof Set) value.forEach((item) => assertStorable(item, seen))
  for (const item of Object.values(value)) assertStorable(item, seen)
}

/** A structured clone of a value that can be stored. Throws `DataCloneError` for one that can't, and what a getter throws. */
export const clone = (value: unknown): unknown => {
  // A primitive is its own clone, except for a symbol, which has none.
  if ((typeof value !== "object" && typeof value !== "function" && typeof value !== "symbol") || value === null) {
    return value
  }
  const cloned: unknown = structuredClone(value)
  assertStorable(cloned, new Set())
  return cloned
}
