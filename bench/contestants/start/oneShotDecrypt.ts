/**
 * Twinloop as a process that shows a message that is stored encrypted, and ends: `node oneShotDecrypt.cjs <database>`. It opens
 * the account, and decrypts with the keys that are stored there; it asks nobody, and takes no lease.
 */
import { EventDecryptor } from "@twinloop/core"
import { HttpHomeserver, OlmReader, Twinloop } from "@twinloop/platform"
import { Effect, Layer } from "effect"
import { storeKey } from "../crypto/Account.ts"
import { storedMessage } from "../crypto/CryptoStored.ts"
import { say } from "./StartLine.ts"

const program = Effect.gen(function* () {
  const reader = yield* EventDecryptor.EventDecryptor
  const { event, roomId } = yield* storedMessage
  const answer = yield* reader.decrypt(roomId, event)
  if (answer._tag !== "Decrypted") return yield* Effect.die(new Error(answer.message))
  say({ done: "shown" })
})

const account = OlmReader.layer.pipe(
  Layer.provide(storeKey),
  Layer.provideMerge(HttpHomeserver.layer),
  Layer.provideMerge(Twinloop.layerFoundation({ database: process.argv[2] ?? "", config: { role: "push" } }))
)

void Effect.runPromise(Effect.provide(program, account))
