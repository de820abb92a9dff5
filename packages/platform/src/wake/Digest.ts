/**
 * SHA-256 of a text, for names of fixed length.
 *
 * Gotchas: node:crypto is loaded by the first call and not by the first import, since it takes 2 ms, and most processes that
 * live shortly need no digest.
 */

/** SHA-256 in hex: 64 characters. */
export const sha256 = (text: string): string =>
  process.getBuiltinModule("node:crypto").createHash("sha256").update(text).digest("hex")
