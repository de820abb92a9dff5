/**
 * Port to where the one login of this installation is kept, shared by its processes.
 *
 * Adapters: `layerMemory` (here), `SqliteSessionStore`.
 *
 * Gotchas: `save` compares and sets, so that a process that refreshed on outdated knowledge can't overwrite newer tokens:
 * a lost refresh token is a lost login.
 */
import { Context, Effect, Layer, Ref } from "effect"
import type { StoreError } from "@twinloop/core"
import type { AccountSession } from "./Session.ts"

/** A login as it is stored. `revision` grows with every save and is never used again, not even after `clear`. */
export interface StoredSession {
  readonly session: AccountSession
  readonly revision: number
}

export class SessionStore extends Context.Service<
  SessionStore,
  {
    /** The stored login, or `undefined` when nobody is logged in. */
    readonly load: Effect.Effect<StoredSession | undefined, StoreError.StoreError>
    /**
     * Stores a login if what is stored still has this revision (`undefined`: if nothing is stored). Gives what was stored,
     * or `undefined` when somebody else was first: load again and decide anew.
     */
    save(
      session: AccountSession,
      revision: number | undefined
    ): Effect.Effect<StoredSession | undefined, StoreError.StoreError>
    /** Forgets the login if it still has this revision; whether it had. */
    clear(revision: number): Effect.Effect<boolean, StoreError.StoreError>
  }
>()("@twinloop/platform/SessionStore") {}

interface Memory {
  readonly stored: StoredSession | undefined
  readonly lastRevision: number
}

/** A store in memory, with a login in it or none. */
export const makeMemory = (session?: AccountSession): Effect.Effect<SessionStore["Service"]> =>
  Effect.gen(function* () {
    const memory = yield* Ref.make<Memory>({
      stored: session === undefined ? undefined : { session, revision: 1 },
      lastRevision: 1
    })
    return SessionStore.of({
      load: Effect.map(Ref.get(memory), ({ stored }) => stored),
      save: (next, revision) =>
        Ref.modify(memory, (now): readonly [StoredSession | undefined, Memory] => {
          if (now.stored?.revision !== revision) return [undefined, now]
          const stored = { session: next, revision: now.lastRevision + 1 }
          return [stored, { stored, lastRevision: stored.revision }]
        }),
      clear: (revision) =>
        Ref.modify(memory, (now): readonly [boolean, Memory] =>
          now.stored?.revision === revision ? [true, { ...now, stored: undefined }] : [false, now]
        )
    })
  })

/** A store in memory: for tests, and for processes that log in anew at every start. */
export const layerMemory = (session?: AccountSession): Layer.Layer<SessionStore> =>
  Layer.effect(SessionStore, makeMemory(session))

/** Stores a login over whatever is stored, for a person who logs in and means it. */
export const replace = (
  store: SessionStore["Service"],
  session: AccountSession
): Effect.Effect<StoredSession, StoreError.StoreError> =>
  Effect.gen(function* () {
    const before = yield* store.load
    const stored = yield* store.save(session, before?.revision)
    return stored ?? (yield* replace(store, session))
  })
