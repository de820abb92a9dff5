import { cryptoEngineContract, type CryptoEngineUnderTest } from "@twinloop/core/testing"
import { Effect } from "effect"
import { openHomeserver, openProcess, own, rows } from "./CryptoKit.ts"

cryptoEngineContract("OlmCrypto", {
  clock: "live",
  open: Effect.gen(function* () {
    const process = yield* openProcess(yield* openHomeserver, "alice", "ALICE")
    yield* own(process)
    const under: CryptoEngineUnderTest = {
      engine: process.engine,
      commit: (writes) =>
        Effect.orDie(Effect.suspend(() => process.store.commitCrypto(process.fence, { crypto: writes }))),
      stored: rows(process)
    }
    return under
  }).pipe(Effect.orDie)
})
