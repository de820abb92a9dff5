/**
 * Words that are not ours, made fit for a terminal and a log: other users choose event types, homeservers their messages.
 *
 * A control character could move the cursor, recolour or rename the terminal, or begin a line that looks like ours; one that
 * changes the direction of writing could make a name read as another.
 */

// C0, DEL and C1, line and paragraph separator, marks and isolates of direction.
const unprintable = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu

const spelled = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** One line that shows control characters as `\uXXXX` instead of obeying them. */
export const line = (text: string): string => text.replace(unprintable, spelled)

/** The same for a text of several lines. */
export const lines = (text: string): string => text.split("\n").map(line).join("\n")

/**
 * JSON of a value in one line that also readers that know more line ends than JSON does take for one (`node:readline` ends one at U+2028),
 * and that does nothing to a terminal: what JSON leaves as it is, although it is unprintable, is escaped too.
 */
export const json = (value: object | string, replacer?: (key: string, value: unknown) => unknown): string =>
  line(JSON.stringify(value, replacer))
