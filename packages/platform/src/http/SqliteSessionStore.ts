/**
 * `SessionStore` in the table `account_session` of the SQLite database that the processes share.
 *
 * Gotchas: a save is synced to disk before the tokens are used. If a power loss undid it after that, the store would be
 * left with a refresh token that the homeserver has voided, and the login would be lost. The file is private to its user
 * (`SqliteFile.ts`), since it holds tokens in the clear.
 *
 * Not here: the table (`sqlite/Migrations.ts`).
 */
import { Clock, Effect, Layer, Redacted, Result } from "effect"
import * as SqliteClient from "../sqlite/SqliteClient.ts"
import * as StoreFault from "../sqlite/StoreFault.ts"
import type { AccountSession, Device } from "./Session.ts"
import { SessionStore, type StoredSession } from "./SessionStore.ts"

interface SessionRecord {
  readonly homeserver: string
  readonly user_id: string
  readonly device_id: string
  readonly access_token: string
  readonly refresh_token: string | null
  readonly expires_at_millis: number | null
  readonly revision: number
}

const select = `SELECT homeserver, user_id, device_id, access_token, refresh_token, expires_at_millis, revision
  FROM account_session WHERE id = 1`
const selectRevision = `SELECT revision FROM account_session WHERE id = 1`
const replace = `INSERT OR REPLACE INTO account_session
  (id, homeserver, user_id, device_id, access_token, refresh_token, expires_at_millis, revision)
  VALUES (1, ?, ?, ?, ?, ?, ?, ?)`
const selectDevice = `SELECT user_id, device_id FROM account_device WHERE id = 1`
const insertDevice = `INSERT OR IGNORE INTO account_device (id, user_id, device_id) VALUES (1, ?, ?)`
const remove = `DELETE FROM account_session WHERE id = 1 AND revision = ?`

type DeviceRecord = Pick<SessionRecord, "user_id" | "device_id">

const toDevice = ({ device_id: deviceId, user_id: userId }: DeviceRecord): Device => ({ userId, deviceId })

const toStored = (record: SessionRecord): StoredSession => ({
  revision: record.revision,
  session: {
    homeserver: record.homeserver,
    userId: record.user_id,
    deviceId: record.device_id,
    accessToken: Redacted.make(record.access_token, { label: "access token" }),
    ...(record.refresh_token === null
      ? {}
      : { refreshToken: Redacted.make(record.refresh_token, { label: "refresh token" }) }),
    ...(record.expires_at_millis === null ? {} : { expiresAtMillis: record.expires_at_millis })
  }
})

const write = (transaction: SqliteClient.SyncTransaction, session: AccountSession, revision: number): void => {
  transaction.run(
    replace,
    session.homeserver,
    session.userId,
    session.deviceId,
    Redacted.value(session.accessToken),
    session.refreshToken === undefined ? null : Redacted.value(session.refreshToken),
    session.expiresAtMillis ?? null,
    revision
  )
  transaction.run(insertDevice, session.userId, session.deviceId)
}

/** The store in the database of the `SqliteClient` in scope; its migrations must have run. */
export const make: Effect.Effect<SessionStore["Service"], never, SqliteClient.SqliteClient> = Effect.gen(function* () {
  const sql = yield* SqliteClient.SqliteClient
  const guard = (operation: string) => StoreFault.guard(sql.config.filename, operation)
  return SessionStore.of({
    load: sql
      .readSync((reader) => reader.get<SessionRecord>(select))
      .pipe(
        Effect.map((record) => (record === undefined ? undefined : toStored(record))),
        guard("load the login")
      ),
    device: sql
      .readSync((reader) => reader.get<DeviceRecord>(selectDevice))
      .pipe(
        Effect.map((record) => (record === undefined ? undefined : toDevice(record))),
        guard("load the device")
      ),
    save: (session, revision) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
        sql.transactionSync({ durable: true }, (transaction) => {
          const found = transaction.get<Pick<SessionRecord, "revision">>(selectRevision)
          if (found?.revision !== revision) return Result.succeed(undefined)
          // The first revision is a time, so that a login after a logout never repeats an old one's number.
          const next = revision === undefined ? nowMillis : revision + 1
          write(transaction, session, next)
          return Result.succeed({ session, revision: next })
        })
      ).pipe(guard("save the login")),
    clear: (revision) =>
      sql
        .transactionSync({ durable: true }, (transaction) =>
          Result.succeed(transaction.run(remove, revision).changes > 0)
        )
        .pipe(guard("forget the login"))
  })
})

/** {@link make} as a layer. */
export const layer: Layer.Layer<SessionStore, never, SqliteClient.SqliteClient> = Layer.effect(SessionStore, make)
