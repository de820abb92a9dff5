/** The system's monotonic clock, the same for all processes of this host. */
import { Effect } from "effect"

/** Milliseconds with a fraction since some moment of this boot; for differences only. */
export const nowMillis: Effect.Effect<number> = Effect.sync(() => Number(process.hrtime.bigint()) / 1e6)
