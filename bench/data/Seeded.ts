/**
 * Reproducible chance, fast enough for hundreds of megabytes: the key stream of AES-128 in counter mode.
 *
 * The same seed always gives the same numbers and texts, on every machine.
 */
import { createCipheriv, createHash } from "node:crypto"

const BLOCK_BYTES = 1 << 16

export class Seeded {
  private readonly cipher
  private readonly zeros = Buffer.alloc(BLOCK_BYTES)
  private block = Buffer.alloc(0)
  private used = 0

  constructor(seed: number) {
    const key = createHash("sha256").update(`twinloop bench ${seed}`).digest().subarray(0, 16)
    this.cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16))
  }

  private take(bytes: number): number {
    if (this.used + bytes > this.block.length) {
      this.block = this.cipher.update(this.zeros)
      this.used = 0
    }
    const at = this.used
    this.used += bytes
    return at
  }

  /** A number from 0 (inclusive) to 1 (exclusive). */
  fraction(): number {
    const at = this.take(4)
    return this.block.readUInt32LE(at) / 0x1_0000_0000
  }

  /** A whole number from 0 (inclusive) to `below` (exclusive). */
  int(below: number): number {
    return Math.floor(this.fraction() * below)
  }

  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  pick<A>(items: ReadonlyArray<A>): A {
    return items[this.int(items.length)]!
  }

  /** An opaque text of so many characters, 60 000 at most: what ids, keys and ciphertexts look like. */
  opaque(characters: number): string {
    const bytes = Math.ceil((characters * 3) / 4)
    const at = this.take(bytes)
    return this.block.toString("base64url", at, at + bytes).slice(0, characters)
  }
}
