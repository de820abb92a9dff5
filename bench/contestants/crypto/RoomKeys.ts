/**
 * Room keys that nobody has used, as the specification exports them ("Key exports"): as many as an account of years has.
 *
 * The public part of each is a point of the curve, since the machine refuses others; everything else is any bytes.
 */
import { createPrivateKey, createPublicKey } from "node:crypto"
import { Seeded } from "../../data/Seeded.ts"

const CURVE25519_BYTES = 32
const RATCHET_BYTES = 128

/** An Ed25519 private key in PKCS #8 is this, and its 32 bytes. */
const pkcs8 = Buffer.from("302e020100300506032b657004220420", "hex")

const publicKeyOf = (secret: Buffer): Buffer => {
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8, secret]), format: "der", type: "pkcs8" })
  return createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-CURVE25519_BYTES)
}

const base64 = (bytes: Buffer): string => bytes.toString("base64").replace(/=+$/, "")

/** So many of them, always the same for the same seed. */
export const make = (count: number, seed: number): ReadonlyArray<object> => {
  const seeded = new Seeded(seed)
  const bytes = (length: number): Buffer => Buffer.from(seeded.opaque(Math.ceil((length * 4) / 3)), "base64url")
  return Array.from({ length: count }, (_, number) => {
    const publicKey = publicKeyOf(bytes(CURVE25519_BYTES))
    const header = Buffer.from([1, 0, 0, 0, 0])
    return {
      algorithm: "m.megolm.v1.aes-sha2",
      room_id: `!old${number % 500}:bench`,
      sender_key: base64(bytes(CURVE25519_BYTES)),
      session_id: base64(publicKey),
      session_key: base64(Buffer.concat([header, bytes(RATCHET_BYTES), publicKey])),
      sender_claimed_keys: { ed25519: base64(publicKey) },
      forwarding_curve25519_key_chain: []
    }
  })
}
