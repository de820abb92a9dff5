/** An account of the canned homeserver, as an application that uses Twinloop has it. */
import { SessionStore, Twinloop } from "@twinloop/platform"
import { Effect, Redacted } from "effect"
import { DEVICE, ME } from "../data/SyntheticAccount.ts"

/** Stores a login, as `twinloop login` does. */
export const logIn = Effect.fnUntraced(function* (baseUrl: string) {
  yield* SessionStore.replace(yield* SessionStore.SessionStore, {
    homeserver: baseUrl,
    userId: ME,
    deviceId: DEVICE,
    accessToken: Redacted.make("bench-token")
  })
})

/** Runs an application on the account, whose login is stored already. */
export const run = <A, E>(database: string, app: Effect.Effect<A, E, Twinloop.Twinloop>): Promise<A> =>
  Effect.runPromise(Effect.provide(app, Twinloop.layer({ database })))

/** Stores a login in a new database, and nothing else. */
export const prepare = (database: string, baseUrl: string): Promise<void> =>
  Effect.runPromise(Effect.provide(logIn(baseUrl), Twinloop.layerFoundation({ database })))
