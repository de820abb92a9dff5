/**
 * Finds a request's secrets in words that are not ours: a homeserver, or a proxy before it, may repeat what it was told, in the
 * way that it writes things down.
 *
 * Includes `holds`, and `without`, which takes secrets out.
 *
 * Gotchas: JSON within JSON escapes what is escaped, a log quotes an address, a page has entities. So signs don't count, and
 * neither does the case: two texts are alike when their letters and digits are. Who wants a secret to be shown can spell it as
 * nobody foresees, and knows it anyway.
 *
 * Not here: which secrets a request has (`MatrixHttp.ts`).
 */
import { Result } from "effect"

/** A shorter secret is a part of common words; where one were taken out, what is left would give it away. */
const REDACTABLE_LENGTH = 8

const REDACTED = "<redacted>"

/** A text that is longer counts as holding everything: nobody reads it, and looking takes its time. */
const READ_CHARACTERS = 100_000

/** Entities of HTML that stand for signs and have letters. What `&amp;` stands for may begin another one. */
const entity = /&(?:(amp)|lt|gt|quot|apos|nbsp);/g

const fromCode = (radix: number) => (whole: string, digits: string) => {
  const code = Number.parseInt(digits, radix)
  return code <= 0x10ffff ? String.fromCodePoint(code) : whole
}

/** Runs of percent-encoded bytes; those that are no text stay as they are. */
const decodePercent = (text: string): string =>
  text.replace(/(?:%[0-9a-f]{2})+/gi, (run) =>
    Result.getOrElse(
      Result.try(() => decodeURIComponent(run)),
      () => run
    )
  )

const decodeOnce = (text: string): string =>
  decodePercent(text)
    .replace(/\\u([0-9a-f]{4})/gi, fromCode(16))
    .replace(/&#x([0-9a-f]{1,6});/gi, fromCode(16))
    .replace(/&#(\d{1,7});/g, fromCode(10))
    .replace(entity, (_, amp?: string) => (amp === undefined ? " " : "&"))

/** How often something that is encoded may be encoded again. */
const LAYERS = 3

/** Letters and digits alone, of the text as it was before it was escaped. */
const bare = (text: string): string => {
  let plain = text
  for (let layer = 0; layer < LAYERS; layer++) plain = decodeOnce(plain)
  return plain.replace(/[^\p{L}\p{N}]/gu, "").toLowerCase()
}

/** Base64 of a text, wherever it begins in what was encoded as a whole: without the letters that its neighbours have a part in. */
const base64Of = (bytes: Buffer): ReadonlyArray<string> =>
  [0, 1, 2].map((offset) => {
    const whole = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString("base64")
      .replace(/=+$/, "")
    return whole.slice(offset === 0 ? 0 : offset + 1, (offset + bytes.length) % 3 === 0 ? undefined : -1)
  })

/** As bytes are written down; `+` and `/` of base64 have other signs where they would mean something. */
const encodingsOf = (secret: string): ReadonlyArray<string> => {
  const bytes = Buffer.from(secret)
  return [bytes.toString("hex"), ...base64Of(bytes).map(bare)]
}

/** Whether a text holds a secret, as it is or as something else writes it down. An empty one is held by none. */
export const holds = (text: string, secret: string): boolean => {
  if (secret === "") return false
  if (text.length > READ_CHARACTERS || text.includes(secret)) return true
  const [where, what] = [bare(text), bare(secret)]
  // Of a secret that is mostly signs too little is left to tell it by.
  const isTold = what.length >= REDACTABLE_LENGTH
  return (
    (isTold && where.includes(what)) ||
    (secret.length >= REDACTABLE_LENGTH && encodingsOf(secret).some((encoded) => where.includes(encoded)))
  )
}

/**
 * The text with secrets that it repeats as they are taken out; `undefined` when nothing of it may be repeated: a secret is too
 * short, or is there in another way.
 */
export const without = (text: string, secrets: ReadonlyArray<string>): string | undefined => {
  if (secrets.some((secret) => secret.length < REDACTABLE_LENGTH)) return undefined
  const clean = secrets.reduce((left, secret) => left.replaceAll(secret, REDACTED), text)
  return secrets.some((secret) => holds(clean, secret)) ? undefined : clean
}
