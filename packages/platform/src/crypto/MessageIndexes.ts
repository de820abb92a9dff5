/**
 * Which event was the first to show a message of a room's key: a key numbers its messages, so a second event with the same number
 * is a replay. The machine tells no replays; the specification leaves them to the client ("m.megolm.v1.aes-sha2").
 *
 * Invariants: I10 (the oldest are forgotten).
 *
 * Gotchas: it is this process's memory, as in other clients. What was shown before it started, or so long ago that it is
 * forgotten, can be replayed.
 *
 * Not here: decrypting, which comes before (`OlmReader.ts`): the number of a message that can't be decrypted means nothing.
 */

/** A few MB at most; far above what people have on their screens. */
const KEPT = 20_000

/** Spec: "The Megolm message format": a version, then members with a tag each, of which the number is the first. */
const VERSION = 0x03
const INDEX_TAG = 0x08

/** The number of a message within its session; `undefined` when the text doesn't begin as one. */
export const indexOf = (ciphertext: string): number | undefined => {
  const [version, tag, ...digits] = Buffer.from(ciphertext.slice(0, 16), "base64")
  if (version !== VERSION || tag !== INDEX_TAG) return undefined
  const last = digits.findIndex((digit) => digit < 0x80)
  // 7 bits each, the lowest first.
  return last < 0 ? undefined : digits.slice(0, last + 1).reduceRight((sum, digit) => sum * 0x80 + (digit & 0x7f), 0)
}

export class MessageIndexes {
  /** Oldest first. */
  readonly #events = new Map<string, string>()

  /** The event that showed this message first: the given one, when there was none before. */
  firstOf(sessionId: string, ciphertext: string, eventId: string): string {
    // Without a number, which no machine decrypts, the text itself is what may not come twice.
    const message = `${sessionId} ${indexOf(ciphertext) ?? ciphertext}`
    const first = this.#events.get(message)
    if (first !== undefined) return first
    this.#events.set(message, eventId)
    if (this.#events.size > KEPT) this.#events.delete(this.#events.keys().next().value!)
    return eventId
  }
}
