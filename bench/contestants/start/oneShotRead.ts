/**
 * `oneShotDecrypt.ts` without encryption: opens the account, reads the same stored message, says so and ends:
 * `node oneShotRead.cjs <database>`.
 */
import { HttpHomeserver, Twinloop } from "@twinloop/platform"
import { Effect, Layer } from "effect"
import { storedMessage } from "../crypto/CryptoStored.ts"
import { say } from "./StartLine.ts"

const program = Effect.andThen(
  storedMessage,
  Effect.sync(() => say({ done: "shown" }))
)

const account = HttpHomeserver.layer.pipe(
  Layer.provideMerge(Twinloop.layerFoundation({ database: process.argv[2] ?? "", config: { role: "push" } }))
)

void Effect.runPromise(Effect.provide(program, account))
