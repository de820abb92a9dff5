/** Real Ed25519 keys, for homeservers that verify. */
import type { SigningKey } from "@twinloop/core/testing"
import { Effect } from "effect"
import { generateKeyPairSync, sign } from "node:crypto"

const unpadded = (bytes: Buffer): string => bytes.toString("base64").replaceAll("=", "")

/** A new key pair each time. */
export const newKey: Effect.Effect<SigningKey> = Effect.sync(() => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  return {
    publicKey: unpadded(Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url")),
    sign: (text) => unpadded(sign(null, Buffer.from(text), privateKey))
  }
})
