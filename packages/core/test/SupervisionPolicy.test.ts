import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import * as CryptoError from "../src/sync/CryptoError.ts"
import * as HomeserverError from "../src/sync/HomeserverError.ts"
import * as StoreError from "../src/sync/StoreError.ts"
import * as SupervisionPolicy from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"

type ErrorClass = SupervisionPolicy.ErrorClass

const message = "why"
const homeserver = (reason: HomeserverError.HomeserverErrorReason) =>
  new HomeserverError.HomeserverError({ operation: "sync", reason })
const crypto = (reason: CryptoError.CryptoErrorReason) => new CryptoError.CryptoError({ operation: "receive", reason })
const store = (reason: StoreError.StoreErrorReason) => new StoreError.StoreError({ operation: "commit", reason })

/** One error for each reason there is; the type sees to it that none is left out. */
const homeserverErrors: {
  [Tag in HomeserverError.HomeserverErrorReason["_tag"]]: readonly [ErrorClass, HomeserverError.HomeserverError]
} = {
  NetworkError: ["network", homeserver(new HomeserverError.NetworkError({ message, timedOut: true }))],
  RateLimited: ["rateLimited", homeserver(new HomeserverError.RateLimited({ message }))],
  UnknownPosition: ["expired", homeserver(new HomeserverError.UnknownPosition({ message }))],
  Unauthorized: ["auth", homeserver(new HomeserverError.Unauthorized({ message, softLogout: false }))],
  Unsupported: ["unsupported", homeserver(new HomeserverError.Unsupported({ message }))],
  Forbidden: ["server", homeserver(new HomeserverError.Forbidden({ message, errcode: "M_FORBIDDEN" }))],
  UserInteractiveAuth: [
    "rejected",
    homeserver(new HomeserverError.UserInteractiveAuth({ message, flows: [], params: {}, completed: [] }))
  ],
  NotFound: ["server", homeserver(new HomeserverError.NotFound({ message }))],
  BadRequest: ["rejected", homeserver(new HomeserverError.BadRequest({ message, status: 400, errcode: "M_UNKNOWN" }))],
  ServerError: ["server", homeserver(new HomeserverError.ServerError({ message, status: 502 }))],
  BadResponse: ["server", homeserver(new HomeserverError.BadResponse({ message }))],
  ResponseTooLarge: ["tooLarge", homeserver(new HomeserverError.ResponseTooLarge({ message, limitBytes: 1 }))]
}

const storeErrors: {
  [Tag in StoreError.StoreErrorReason["_tag"]]: readonly [ErrorClass, StoreError.StoreError]
} = {
  StaleGeneration: ["stale", store(new StoreError.StaleGeneration({ message, name: "stream", generation: 3 }))],
  Moved: ["moved", store(new StoreError.Moved({ message, token: "since" }))],
  StoreBusy: ["store", store(new StoreError.StoreBusy({ message }))],
  StoreFull: ["store", store(new StoreError.StoreFull({ message }))],
  StoreReadOnly: ["storeTerminal", store(new StoreError.StoreReadOnly({ message }))],
  StoreCorrupt: ["storeTerminal", store(new StoreError.StoreCorrupt({ message }))],
  StoreNewer: ["storeTerminal", store(new StoreError.StoreNewer({ message, storedVersion: 2, knownVersion: 1 }))],
  StoreUnavailable: ["storeTerminal", store(new StoreError.StoreUnavailable({ message }))]
}

const decide = (failure: Partial<SupervisionPolicy.Failure>, attempt = 0, random = 0) =>
  SupervisionPolicy.decide(defaults, { class: "network", message, ...failure }, attempt, random)

const attempts = fc.nat({ max: 1_000 })
const cryptoErrors: {
  [Tag in CryptoError.CryptoErrorReason["_tag"]]: readonly [ErrorClass, CryptoError.CryptoError]
} = {
  CryptoWrongKey: ["storeTerminal", crypto(new CryptoError.CryptoWrongKey({ message }))],
  CryptoForeignStore: ["storeTerminal", crypto(new CryptoError.CryptoForeignStore({ message }))],
  CryptoStoreNewer: ["storeTerminal", crypto(new CryptoError.CryptoStoreNewer({ message }))],
  CryptoNoStore: ["crypto", crypto(new CryptoError.CryptoNoStore({ message }))],
  CryptoStoreFailed: [
    "store",
    crypto(new CryptoError.CryptoStoreFailed({ message, error: store(new StoreError.StoreBusy({ message })) }))
  ],
  CryptoTrapped: ["crypto", crypto(new CryptoError.CryptoTrapped({ message }))],
  CryptoBadAnswer: ["crypto", crypto(new CryptoError.CryptoBadAnswer({ message }))],
  CryptoUnavailable: ["crypto", crypto(new CryptoError.CryptoUnavailable({ message }))],
  CryptoFailed: ["crypto", crypto(new CryptoError.CryptoFailed({ message }))]
}

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const { backoffMinMillis, backoffMaxMillis, retryAfterMaxMillis } = defaults

describe("SupervisionPolicy.classify", () => {
  for (const [tag, [expected, error]] of Object.entries({ ...homeserverErrors, ...storeErrors, ...cryptoErrors })) {
    it(`says ${expected} of ${tag}, in the error's own words`, () => {
      assert.deepStrictEqual(SupervisionPolicy.classify(error), { class: expected, message: error.message })
      assert.include(error.message, message)
    })
  }

  it("keeps how long the homeserver asked to wait", () => {
    const error = homeserver(new HomeserverError.RateLimited({ message, retryAfterMillis: 7_000 }))
    assert.strictEqual(SupervisionPolicy.classify(error).retryAfterMillis, 7_000)
  })
})

describe("SupervisionPolicy.decide", () => {
  for (const one of ["network", "server", "store", "crypto", "tooLarge", "stale", "rateLimited"] as const) {
    it(`I9: tries the same again after ${one}, with backoff`, () => {
      for (const attempt of [0, 1, 5]) {
        const delayMillis = SupervisionPolicy.backoffMillis(defaults, attempt, 0.5)
        assert.deepStrictEqual(decide({ class: one }, attempt, 0.5), { _tag: "Retry", delayMillis })
      }
    })
  }

  it("I9: gives the position up when the homeserver goes on rejecting what is sent, and never without backoff", () => {
    for (const attempt of [0, 1, 2]) assert.strictEqual(decide({ class: "rejected" }, attempt, 0.5)._tag, "Retry")
    for (const attempt of [3, 10]) {
      const delayMillis = SupervisionPolicy.backoffMillis(defaults, attempt, 0.5)
      assert.deepStrictEqual(decide({ class: "rejected" }, attempt, 0.5), { _tag: "Restart", delayMillis })
    }
  })

  for (const one of ["expired", "moved"] as const) {
    it(`starts afresh after ${one}: at once, but not twice in a row`, () => {
      assert.deepStrictEqual(decide({ class: one }, 0, 0.5), { _tag: "Restart", delayMillis: 0 })
      const delayMillis = SupervisionPolicy.backoffMillis(defaults, 0, 0.5)
      assert.deepStrictEqual(decide({ class: one }, 1, 0.5), { _tag: "Restart", delayMillis })
      assert.isAbove(delayMillis, 0)
    })
  }

  for (const one of ["auth", "unsupported", "storeTerminal"] as const) {
    it(`I9: gives up after ${one}, however often it was tried`, () => {
      for (const attempt of [0, 100]) assert.deepStrictEqual(decide({ class: one }, attempt), { _tag: "GiveUp" })
    })
  }
})

describe("SupervisionPolicy waits", () => {
  it("I10: between half and the whole of a delay that doubles up to a limit", () => {
    fc.assert(
      fc.property(attempts, chance, (attempt, random) => {
        const millis = SupervisionPolicy.backoffMillis(defaults, attempt, random)
        const whole = Math.min(backoffMaxMillis, backoffMinMillis * 2 ** attempt)
        assert.isAtLeast(millis, whole / 2)
        assert.isAtMost(millis, whole)
        assert.isTrue(Number.isInteger(millis))
      })
    )
  })

  it("I9: spread by chance over the half, so that many clients don't come back at once", () => {
    const millis = [0, 0.5, 1].map((random) => SupervisionPolicy.backoffMillis(defaults, 2, random))
    const whole = backoffMinMillis * 4
    assert.deepStrictEqual(millis, [whole / 2, (whole * 3) / 4, whole])
  })

  it("never less after more failures, for the same chance", () => {
    fc.assert(
      fc.property(attempts, chance, (attempt, random) => {
        const [one, next] = [attempt, attempt + 1].map((n) => SupervisionPolicy.backoffMillis(defaults, n, random))
        assert.isAtLeast(next!, one!)
      })
    )
  })

  it("never less than the homeserver asks for, up to a limit, and little more", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1_000, max: 10 ** 9 }), attempts, chance, (retryAfterMillis, attempt, random) => {
        const decision = decide({ class: "rateLimited", retryAfterMillis }, attempt, random)
        if (decision._tag !== "Retry") return assert.fail(decision._tag)
        const honoured = Math.min(retryAfterMillis, retryAfterMaxMillis)
        assert.isAtLeast(decision.delayMillis, Math.max(0, honoured))
        assert.isAtMost(decision.delayMillis, Math.max(0, honoured) + backoffMinMillis)
      })
    )
  })
})
