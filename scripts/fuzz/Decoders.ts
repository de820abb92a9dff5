/**
 * Which target fuzzes which decoder: each source file that reads what it has not written itself, with how many places in it do
 * so, and the targets that go through them. A test compares it with the sources, so that a new decoder gets a target.
 */

/** How often a file decodes, and who fuzzes that; or why nobody does. */
export type Decoder =
  | { readonly places: number; readonly targets: ReadonlyArray<string> }
  | { readonly places: number; readonly why: string }

/** What counts as decoding. */
export const place = /\bSchema\.(?:decode\w+|fromJsonString|is)\(|\bJSON\.parse\(|\bdeserialize\(|\bparseArgs\(/g

/** Sources that nothing hostile reaches: test kits, the homeserver for development, the story, a Synapse for tests. */
export const excepted = /\/src\/(?:testing|dev|story|synapse)\//

const stored = ["room summary", "timeline row", "state row", "account data row", "lists of a connection"]

/** By source file. */
export const decoders: { readonly [file: string]: Decoder } = {
  "packages/core/src/matrix/SlidingSyncWireRequest.ts": { places: 2, targets: ["sync request"] },
  "packages/core/src/matrix/SlidingSyncWireResponse.ts": { places: 1, targets: ["http unstable", "http v4"] },
  "packages/core/src/matrix/Pusher.ts": { places: 1, targets: ["http pushers"] },
  "packages/platform/src/http/MatrixHttp.ts": {
    places: 2,
    targets: ["versions", "context", "members", "keys", "other", "refresh", "login", "flows", "whoami"].map(
      (name) => `http ${name}`
    )
  },
  "packages/platform/src/push/PushGateway.ts": { places: 2, targets: ["push body"] },
  "packages/platform/src/push/sinks/JsonLinesSink.ts": { places: 2, targets: ["sink lines"] },
  "packages/platform/src/sqlite/ExtensionTables.ts": {
    places: 2,
    targets: ["stored inbox row", "stored encryption news"]
  },
  "packages/platform/src/sqlite/RoomTables.ts": { places: 1, targets: stored.map((name) => `stored ${name}`) },
  "packages/platform/src/sqlite/SqliteLeaseStore.ts": { places: 2, targets: ["stored lease row"] },
  "packages/platform/src/sqlite/QuarantineTable.ts": { places: 1, targets: ["stored quarantine row"] },
  "packages/platform/src/crypto/OlmReader.ts": { places: 1, targets: ["ciphertext with its key", "encrypted event"] },
  "packages/platform/src/crypto/OlmCrypto.ts": { places: 1, targets: ["to-device with its session"] },
  "packages/platform/src/crypto/indexeddb/ValueCodec.ts": { places: 1, targets: ["crypto record"] },
  "packages/platform/src/crypto/indexeddb/RecordSpace.ts": {
    places: 1,
    why: "the schema of the crypto store, which is read when it is opened: BadStore.test.ts spoils it"
  },
  "packages/platform/src/cli/NotifyInput.ts": { places: 1, why: "a command line of this user's" },
  "packages/actors/src/CryptoTurn.ts": { places: 1, why: "tells our own errors apart" },
  "packages/platform/src/sqlite/StoreFault.ts": { places: 2, why: "tells our own errors apart" }
}

/** What decodes without one of these calls: its own scanner, or a library's. */
export const byHand: { readonly [file: string]: ReadonlyArray<string> } = {
  "packages/core/src/notification/PushNotification.ts": ["push body"],
  "packages/core/src/matrix/PushRules.ts": ["push rules"],
  "packages/platform/src/control/ControlProtocol.ts": ["control status", "control line"],
  "packages/platform/src/crypto/StoreKey.ts": ["key file"],
  "packages/platform/src/crypto/MessageIndexes.ts": ["ciphertext with its key"],
  "packages/platform/src/crypto/indexeddb/KeyCodec.ts": ["crypto record's key"],
  "packages/platform/src/http/SqliteSessionStore.ts": ["stored session row"]
}
