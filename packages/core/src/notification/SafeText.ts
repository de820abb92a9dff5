/**
 * Words of others, made fit for a lock screen: one line, nothing that isn't seen, and no longer than what fits.
 *
 * A control character could move a terminal's cursor, a mark of direction make one name read as another, and a newline begin
 * a line that looks like somebody else's. Such characters are left out and not spelled, since this is read by people.
 *
 * Gotchas: joiners stay, since emoji and several scripts need them. A message of half a megabyte costs one pass.
 *
 * Not here: logs and errors, which show what was there (platform's `Printable.ts`).
 */

// Every kind of space, line end and tab.
const spaces = /\s+/gu

// C0, DEL and C1; marks, embeddings and isolates of direction; and what is never seen: soft hyphen, zero-width space,
// word joiner and invisible operators, byte order mark, annotations.
const unseen =
  /[\p{Cc}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]/gu

/** One line of what can be seen. Half a surrogate pair becomes U+FFFD. */
export const clean = (text: string): string =>
  text.toWellFormed().replace(spaces, " ").replace(unseen, "").replace(/ +/gu, " ").trim()

/** The longest grapheme that is kept whole, in UTF-16 units: a family with skin tones is shorter, "zalgo" is longer. */
const maxGrapheme = 64

/** Where the text may be cut, in UTF-16 units: at `end`, or before the grapheme that `end` is inside of. */
const graphemeStart = (text: string, end: number): number => {
  const start = Math.max(0, end - 2 * maxGrapheme)
  const nearby = text.slice(start, end + maxGrapheme)
  const index = start + (new Intl.Segmenter().segment(nearby).containing(end - start)?.index ?? end - start)
  return end - index < maxGrapheme ? index : end
}

/** The text itself, or its beginning and an ellipsis: `maxCodePoints` at most, both counted. */
export const shortened = (text: string, maxCodePoints: number): string => {
  let [seen, units, end] = [0, 0, 0]
  for (const character of text) {
    if (seen === maxCodePoints - 1) end = units
    seen += 1
    units += character.length
    if (seen > maxCodePoints) return `${text.slice(0, graphemeStart(text, end)).trimEnd()}…`
  }
  return text
}
