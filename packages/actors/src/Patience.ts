/** A store that is busy or full just then (invariant I9). */
import { type StoreError, SupervisionPolicy, type SyncConfig } from "@twinloop/core"
import { Effect, Schedule } from "effect"

/** Asks the store again for as long as it is busy or full, with backoff; any other fault is the caller's. */
export const patiently =
  ({ backoffMaxMillis, backoffMinMillis }: SyncConfig.SyncConfigShape) =>
  <A>(effect: Effect.Effect<A, StoreError.StoreError>): Effect.Effect<A, StoreError.StoreError> =>
    Effect.retry(effect, {
      while: (error) => SupervisionPolicy.classify(error).class === "store",
      schedule: Schedule.min([Schedule.exponential(backoffMinMillis), Schedule.spaced(backoffMaxMillis)]).pipe(
        Schedule.jittered
      )
    })
