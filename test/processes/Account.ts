/**
 * An account on a scripted homeserver, and the processes that follow it.
 */
import type { SyncConfig } from "@twinloop/core"
import { SessionStore, Twinloop } from "@twinloop/platform"
import { assert } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { Scope } from "effect"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import type { RunOptions } from "./fixtures/run.ts"
import * as Program from "./Program.ts"
import * as ScriptedHomeserver from "./ScriptedHomeserver.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

export interface Account {
  readonly database: string
  readonly homeserver: ScriptedHomeserver.ScriptedHomeserver
}

/** A row of the inbox. */
export interface InboxRow {
  readonly sequence: number
  readonly generation: number
  readonly number: number
}

/** A lease's row, and who waits. */
export interface LeaseRow {
  readonly holder: string
  readonly generation: number
  readonly expiresAtMillis: number
}

/** Keeps a login in the database, as `twinloop login` does. */
export const logIn = Effect.fnUntraced(function* (account: Account, refreshToken?: string) {
  const { baseUrl, tokens } = account.homeserver
  yield* Effect.gen(function* () {
    yield* SessionStore.replace(yield* SessionStore.SessionStore, {
      homeserver: baseUrl,
      userId: ScriptedHomeserver.USER,
      deviceId: "DEVICE",
      accessToken: Redacted.make(tokens.access),
      ...(refreshToken === undefined ? {} : { refreshToken: Redacted.make(refreshToken) })
    })
  }).pipe(Effect.provide(Twinloop.layerFoundation({ database: account.database })), Effect.orDie)
})

/** A homeserver, and a database with a login there. Both are gone when the scope closes. */
export const make: Effect.Effect<Account, never, Scope.Scope> = Effect.gen(function* () {
  const account = { homeserver: yield* ScriptedHomeserver.make, database: yield* TemporaryDatabase.make }
  yield* logIn(account)
  return account
})

export type Process = Program.Program<RunEvent>

/** Starts a process of a role with other limits than the defaults. */
export const start = (
  { database }: Account,
  role: string,
  options: Pick<RunOptions, "clockOffsetMillis" | "freePages"> & {
    readonly config?: Partial<SyncConfig.SyncConfigShape>
  } = {}
): Effect.Effect<Process, never, Scope.Scope> => {
  const all: RunOptions = { database, ...options, config: { ...options.config, role } }
  return Program.start<RunEvent>("./fixtures/run.ts", JSON.stringify(all))
}

/** Starts a process of a role as a user does. */
export const startCommand = ({ database }: Account, role: string): Effect.Effect<Process, never, Scope.Scope> =>
  Program.start<RunEvent>(Program.TWINLOOP, "run", "--json", "--with-parent", "--role", role, "--database", database)

/** The states that a process can be waited for. */
export const owns = (event: RunEvent): boolean => event.event === "state" && event.extension._tag === "Syncing"
export const waits = (event: RunEvent): boolean => event.event === "state" && event.extension._tag === "WaitingForLock"
export const isLoaded = (event: RunEvent): boolean => event.event === "state" && event.main._tag === "Syncing"
export const isSuspended = (event: RunEvent): boolean => event.event === "quiet" && event.by === "suspend"

/** Waits until an event of this number has been printed from the inbox. */
export const untilApplied = (program: Process, sequence: number, limitMillis?: number) =>
  program.until(
    `apply event ${sequence}`,
    (event) => event.event === "inbox" && event.sequence >= sequence,
    limitMillis === undefined ? {} : { limitMillis }
  )

/** Everything that has been applied, in order. */
export const inbox = ({ database }: Account) =>
  TemporaryDatabase.all<InboxRow>(
    database,
    `SELECT sequence, generation, json_extract(event, '$.content.number') AS number FROM inbox ORDER BY sequence`
  )

/** Waits until so many events have been applied. */
export const untilInbox = (account: Account, count: number) =>
  TemporaryDatabase.until(
    `${count} events in the inbox`,
    Effect.map(inbox(account), (rows) => rows.at(-1)?.sequence ?? 0),
    (last) => last >= count
  )

/** The lease of the extension stream. */
export const lease = ({ database }: Account) =>
  Effect.map(
    TemporaryDatabase.all<LeaseRow>(
      database,
      `SELECT holder, generation, expires_at_millis AS expiresAtMillis FROM lease WHERE name = 'extension'`
    ),
    ([row]) => row
  )

/** How many wait for the extension stream. */
export const waiters = ({ database }: Account) => TemporaryDatabase.waiters(database, "extension")

/**
 * I2: every event that was sent has been applied once, in the order in which it was sent; generations only grow.
 *
 * Row `n` holds the event with number `n`: one event that was lost, doubled or moved would shift all that follow. The oldest
 * rows may be gone, since what every consumer has read is deleted.
 */
export const assertExactlyOnce = (rows: ReadonlyArray<InboxRow>, sent: number): void => {
  const first = rows[0]?.sequence ?? 1
  const expected = Array.from({ length: sent - first + 1 }, (_, index) => first + index)
  assert.deepStrictEqual(
    rows.map((row) => row.sequence),
    expected
  )
  assert.deepStrictEqual(
    rows.map((row) => row.number),
    expected
  )
  const generations = rows.map((row) => row.generation)
  assert.deepStrictEqual(
    generations,
    [...generations].sort((a, b) => a - b)
  )
}

/** Monotonic milliseconds, comparable with `atMillis` of what processes say. */
export const nowMillis = Effect.sync(() => Number(process.hrtime.bigint()) / 1e6)
