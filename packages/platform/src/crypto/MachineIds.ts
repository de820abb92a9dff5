/**
 * Ids as the machine takes them. They are strangers' words: what can't be one is `undefined`, and told by who asks.
 *
 * Gotchas: the machine keeps what it is given, so each call makes its own.
 */
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import type { CryptoSdk } from "./CryptoWasm.ts"

const made = <A>(make: () => A): A | undefined => {
  try {
    return make()
  } catch {
    // The package throws for an id that is none, and for nothing else.
    return undefined
  }
}

export const userIdOf = (sdk: CryptoSdk, text: string): Sdk.UserId | undefined => made(() => new sdk.UserId(text))

/** Those that are some. */
export const userIdsOf = (sdk: CryptoSdk, texts: ReadonlyArray<string>): Array<Sdk.UserId> =>
  texts.flatMap((text) => userIdOf(sdk, text) ?? [])

export const roomIdOf = (sdk: CryptoSdk, text: string): Sdk.RoomId | undefined => made(() => new sdk.RoomId(text))
