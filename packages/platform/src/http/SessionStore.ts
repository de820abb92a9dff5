/**
 * Port to where the one login of this installation is kept, shared by its processes.
 *
 * Adapters: `layerMemory` (here), `SqliteSessionStore`.
 *
 * Gotchas: `save` compares and sets, so that a process that refreshed on outdated knowledge can't overwrite newer tokens:
 * a lost refresh token is a lost login. What is stored beside a login belongs to its device: another device that went on
 * from its `since` would acknowledge, unread, whatever was sent to itself up to there, and would show the other account's
 * rooms. So a store keeps to its first device, also after a logout (invariant I2).
 */
import { Context, Effect, Layer, Ref, Schema } from "effect"
import type { StoreError } from "@twinloop/core"
import type { AccountSession, Device } from "./Session.ts"

/** The store belongs to another device. Nothing was changed; keep this login in a database of its own. */
export class OtherDevice extends Schema.TaggedError<OtherDevice>("@twinloop/platform/OtherDevice")("OtherDevice", {
  message: Schema.String,
  userId: Schema.String,
  deviceId: Schema.String
}) {}

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
    /** The device of the first login that was ever stored, to which everything beside it belongs. */
    readonly device: Effect.Effect<Device | undefined, StoreError.StoreError>
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
  readonly device: Device | undefined
  readonly lastRevision: number
}

/** A store in memory, with a login in it or none. */
export const makeMemory = (session?: AccountSession): Effect.Effect<SessionStore["Service"]> =>
  Effect.gen(function* () {
    const memory = yield* Ref.make<Memory>({
      stored: session === undefined ? undefined : { session, revision: 1 },
      device: session,
      lastRevision: 1
    })
    return SessionStore.of({
      load: Effect.map(Ref.get(memory), ({ stored }) => stored),
      device: Effect.map(Ref.get(memory), ({ device }) => device),
      save: (next, revision) =>
        Ref.modify(memory, (now): readonly [StoredSession | undefined, Memory] => {
          if (now.stored?.revision !== revision) return [undefined, now]
          const stored = { session: next, revision: now.lastRevision + 1 }
          return [stored, { stored, device: now.device ?? next, lastRevision: stored.revision }]
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

const isOther = (device: Device | undefined, { userId, deviceId }: Device): device is Device =>
  device !== undefined && (device.userId !== userId || device.deviceId !== deviceId)

/**
 * Stores a login over whatever login is stored, for a person who logs in and means it. Fails with `OtherDevice` when the
 * store belongs to another device.
 */
export const replace = (
  store: SessionStore["Service"],
  session: AccountSession
): Effect.Effect<StoredSession, StoreError.StoreError | OtherDevice> =>
  Effect.gen(function* () {
    const before = yield* store.load
    const device = yield* store.device
    if (isOther(device, session)) {
      const { userId, deviceId } = device
      return yield* new OtherDevice({
        message: `This database holds the data of ${userId}, device ${deviceId}, so the login as ${session.userId}, device ${session.deviceId}, can't be kept in it. Log in as that device again, or name another database.`,
        userId,
        deviceId
      })
    }
    const stored = yield* store.save(session, before?.revision)
    return stored ?? (yield* replace(store, session))
  })
