/**
 * Makes something hostile of a good JSON text: by its structure (values and names are replaced, taken away, repeated, nested),
 * or by its characters (cut, flipped, spelled otherwise).
 *
 * Gotchas: what is written as raw text can hold what `JSON.stringify` never writes, such as 1e400, -0, names that come twice
 * and `__proto__`.
 */
import { below, type Chance, one } from "./Chance.ts"

/** Names that objects have by themselves, and others that code might take for something. */
export const names: ReadonlyArray<string> = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "valueOf",
  "toJSON",
  "then",
  "length",
  "",
  "\0",
  "\ud800",
  ".",
  "content",
  "type",
  "event_id"
]

/** Values as JSON texts. */
const values: ReadonlyArray<string> = [
  "null true false 0 -0 -1 1.5 1e400 -1e400 1e308 5e-324 9007199254740993 18446744073709551616".split(" "),
  ['""', "{}", "[]", "[[]]", '"\\ud800"', '"\\udfff\\u0000"', '"\\u202e"'],
  names.map((name) => JSON.stringify(name)),
  names.map((name) => `{${JSON.stringify(name)}:{${JSON.stringify(name)}:1}}`),
  ['{"__proto__":null}', '{"toString":null,"valueOf":null,"toJSON":null}', '{"then":{},"length":1e9,"0":{}}'],
  ['"!room:x"', '"@user:x"', '"$event"', '"m.room.encrypted"', '"m.megolm.v1.aes-sha2"', '"*?*?*?*"', '"(a+)+$"']
].flat()

/** Values that are large, and rare for it. */
const large: ReadonlyArray<() => string> = [
  () => JSON.stringify("x".repeat(65_536)),
  () => `${"[".repeat(20_000)}${"]".repeat(20_000)}`,
  () => `${'{"a":'.repeat(3_000)}1${"}".repeat(3_000)}`,
  () => JSON.stringify(Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`key${index}`, index]))),
  () => JSON.stringify(Array.from({ length: 5_000 }, () => "@a:x")),
  () => JSON.stringify("\ud800".repeat(20_000)),
  () => JSON.stringify("a*".repeat(5_000)),
  () => "9".repeat(20_000)
]

const valueOf = (chance: Chance): string => (chance() < 0.01 ? one(chance, large)() : one(chance, values))

/** Where a JSON value begins in a text: after each of these. */
const starts = /[[{:,]/g

/** The end of the value that begins at a place of a good JSON text. */
const endOfValue = (text: string, start: number): number => {
  let depth = 0
  let isQuoted = false
  for (let at = start; at < text.length; at++) {
    const character = text[at]!
    if (isQuoted) {
      if (character === "\\") at++
      else if (character === '"') isQuoted = false
    } else if (character === '"') isQuoted = true
    else if (character === "{" || character === "[") depth++
    else if (character === "}" || character === "]") {
      if (depth === 0) return at
      depth--
    } else if ((character === "," || character === ":") && depth === 0) return at
  }
  return text.length
}

/** A place where a value or a name begins, and where it ends. */
const place = (chance: Chance, text: string): readonly [start: number, end: number] => {
  const from = below(chance, text.length)
  starts.lastIndex = from
  const found = starts.exec(text)
  const start = found === null ? 0 : found.index + 1
  return [start, endOfValue(text, start)]
}

type Mutation = (chance: Chance, text: string) => string

const replace: Mutation = (chance, text) => {
  const [start, end] = place(chance, text)
  return text.slice(0, start) + valueOf(chance) + text.slice(end)
}

const remove: Mutation = (chance, text) => {
  const [start, end] = place(chance, text)
  return text.slice(0, start) + text.slice(text[end] === "," ? end + 1 : end)
}

const repeat: Mutation = (chance, text) => {
  const [start, end] = place(chance, text)
  const times = one(chance, [1, 2, 50])
  return text.length > 200_000
    ? text
    : text.slice(0, end) + `,${text.slice(start, end)}`.repeat(times) + text.slice(end)
}

const add: Mutation = (chance, text) => {
  const at = text.indexOf("{", below(chance, text.length))
  const member = `${JSON.stringify(one(chance, names))}:${valueOf(chance)},`
  return at < 0 ? text : text.slice(0, at + 1) + member + text.slice(at + 1)
}

const rename: Mutation = (chance, text) => {
  const at = text.indexOf('":', below(chance, text.length))
  const start = at < 0 ? -1 : text.lastIndexOf('"', at - 1)
  return start < 0 ? text : text.slice(0, start) + JSON.stringify(one(chance, names)) + text.slice(at + 1)
}

const move: Mutation = (chance, text) => {
  const [start, end] = place(chance, text)
  const [to, until] = place(chance, text)
  return text.slice(0, to) + text.slice(start, end) + text.slice(until)
}

const flip: Mutation = (chance, text) => {
  const at = below(chance, text.length)
  return text.slice(0, at) + String.fromCharCode(below(chance, 256)) + text.slice(at + 1)
}

const cut: Mutation = (chance, text) => text.slice(0, below(chance, text.length))

/** By their structure mostly: what is no JSON is told by one line of every decoder. */
const mutations: ReadonlyArray<Mutation> = [
  [replace, replace, replace, replace, remove, remove, repeat],
  [add, add, rename, rename, move, move, flip, cut]
].flat()

/** A text after one to eight changes, one as often as several. */
export const mutated = (chance: Chance, text: string): string => {
  const times = chance() < 0.5 ? 1 : 1 + below(chance, 8)
  let made = text
  for (let time = 0; time < times && made.length > 0; time++) made = one(chance, mutations)(chance, made)
  return made
}
