/**
 * A judged dev homeserver with an address for each kind of client, in which a story is told.
 *
 * Gotchas: people log in at our client's address; who uses another client is moved to that one's (`EncryptionKit.at`). What
 * people do by plain requests is a tester's.
 *
 * Not here: the stories (`Stories.ts`, `AccountStories.ts`).
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { Synapse } from "../../../packages/platform/src/synapse/Synapse.ts"
import * as DevHarness from "../../../packages/platform/test/DevHarness.ts"
import * as Notifying from "../../synapse/NotificationKit.ts"
import type * as Kit from "../../synapse/ServiceKit.ts"
import * as Judge from "./Judge.ts"
import * as JudgedHomeserver from "./JudgedHomeserver.ts"

/** Whose requests are judged. */
export const OURS = "twinloop"
export const THEIRS = "matrix-js-sdk"
/** Asks push gateways. */
export const HOMESERVER = "the dev homeserver"

/** A homeserver with an address for each kind of client. */
export const town = Effect.fnUntraced(function* (judge: Judge.Judge) {
  const homeserver = yield* Effect.orDie(JudgedHomeserver.start(judge))
  const ours = yield* homeserver.at(OURS)
  const theirs = yield* homeserver.at(THEIRS)
  const anybody = yield* homeserver.at(Judge.TESTER)
  return { ours, theirs, anybody, people: Notifying.devAt(ours.baseUrl, anybody.baseUrl) }
})

export type Town = Effect.Success<ReturnType<typeof town>>

/** Tells a story in a town of its own. */
export const told =
  <A, E, R>(story: (town: Town) => Effect.Effect<A, E, R>) =>
  (judge: Judge.Judge): Effect.Effect<A, E, Exclude<R, Synapse> | Scope.Scope> =>
    Effect.flatMap(town(judge), (at) => Effect.provideService(story(at), Synapse, at.people))

/** The homeserver forgets all positions of a person's device. */
export const expire = ({ anybody }: Town, { session, userId }: Kit.Person) =>
  Effect.asVoid(
    DevHarness.ask(anybody, "/_twinloop/expire", { body: { user_id: userId, device_id: session.deviceId } })
  )
