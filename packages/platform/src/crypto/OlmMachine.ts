/**
 * One Olm machine of matrix-rust-sdk, opened over the keys in our database, and the one way to call it.
 *
 * Includes `makeHost` (the WebAssembly that machines live in, remade after a trap) and `open`. What a call rejects with
 * becomes a `CryptoError`.
 *
 * Invariants: I8 (the machine's clock is Effect's), I9 (a trap costs a machine, and nothing else), I10 (a call that doesn't
 * end is given up after `SyncConfig.cryptoCallMillis`).
 *
 * Gotchas: a call can't be taken back. When it is interrupted, or the machine is closed meanwhile, the Rust code may run on,
 * and what it then stores stays in a database object that nobody asks any more. Whoever interrupts must close the machine.
 * Opening can't be interrupted: it takes milliseconds, and ends with its host at the latest.
 *
 * Not here: what is called (`OlmCrypto.ts`, `OlmReader.ts`), records (`indexeddb/IndexedDb.ts`).
 */
import { CryptoError, type Homeserver, SyncConfig } from "@twinloop/core"
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import { Clock, Context, Effect, Predicate, Redacted } from "effect"
import * as SqliteClient from "../sqlite/SqliteClient.ts"
import * as CryptoRecords from "../sqlite/CryptoRecords.ts"
import * as StoreFault from "../sqlite/StoreFault.ts"
import * as CryptoWasm from "./CryptoWasm.ts"
import { fakeIndexedDb } from "./indexeddb/FakeIndexedDb.ts"
import * as IndexedDb from "./indexeddb/IndexedDb.ts"
import { StoreKey } from "./StoreKey.ts"

/** Name of the store. Every account has its own database file, so one name does. */
const STORE = "twinloop"

type Fail = (reason: CryptoError.CryptoErrorReason) => CryptoError.CryptoError

const failing =
  (operation: string): Fail =>
  (reason) =>
    new CryptoError.CryptoError({ operation, reason })

/** The WebAssembly that machines live in. */
export interface Host {
  readonly sdk: CryptoWasm.CryptoSdk
  /** What it died of, once it has. */
  readonly trapped: () => string | undefined
  /** Calls back when it dies; gives what takes the call back. */
  readonly onTrap: (listener: (detail: string) => void) => () => void
  /** Where the next store is opened. */
  readonly use: (database: IndexedDb.IndexedDb) => void
  /** For a call that has trapped where nobody watches. */
  readonly die: (detail: string) => void
}

const noHost = (cause: unknown): CryptoError.CryptoError =>
  failing("start the end-to-end machine")(
    new CryptoError.CryptoFailed({
      message: `the WebAssembly of @matrix-org/matrix-sdk-crypto-wasm can't be run (${messageOf(cause)}); install the package beside this one, also beside a bundle`,
      cause
    })
  )

/** A new host. What Rust logs is logged at level Debug, and its panics at level Error. */
export const makeHost: Effect.Effect<Host, CryptoError.CryptoError> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  let database: IndexedDb.IndexedDb | undefined
  let trapped: string | undefined
  const listeners = new Set<(detail: string) => void>()
  const die = (detail: string): void => {
    if (trapped !== undefined) return
    trapped = detail
    runFork(
      Effect.logError(
        `The end-to-end machine has trapped; it is thrown away, and the next call makes another. ${detail}`
      )
    )
    for (const listener of listeners) listener(detail)
    listeners.clear()
  }
  const sdk = yield* Effect.tryPromise({
    try: () =>
      CryptoWasm.instantiate({
        indexedDB: () => database?.factory,
        classes: () => fakeIndexedDb().globals,
        now: () => clock.currentTimeMillisUnsafe(),
        log: (_level, text) => void runFork(Effect.logDebug(text)),
        onTrap: die
      }),
    catch: noHost
  })
  return {
    sdk,
    die,
    trapped: () => trapped,
    onTrap: (listener) => {
      if (trapped === undefined) listeners.add(listener)
      else listener(trapped)
      return () => void listeners.delete(listener)
    },
    use: (next) => void (database = next)
  }
})

/** An open machine. */
export interface OlmMachine {
  readonly sdk: CryptoWasm.CryptoSdk
  readonly database: IndexedDb.IndexedDb
  /**
   * Calls the machine. Fails with `CryptoError`: `CryptoTrapped` when the WebAssembly trapped or didn't answer in time,
   * `CryptoStoreFailed` when the database failed under it, otherwise what `explain` makes of the error (`CryptoFailed`).
   */
  call<A>(
    operation: string,
    body: (olm: Sdk.OlmMachine, sdk: CryptoWasm.CryptoSdk) => Promise<A> | A,
    explain?: (cause: unknown) => CryptoError.CryptoErrorReason | undefined
  ): Effect.Effect<A, CryptoError.CryptoError>
  /** Whether the WebAssembly has died under it. */
  readonly isDead: () => boolean
  /** Lets go of its memory; nothing is written. Closing twice is closing once. */
  readonly close: () => void
}

/** What the Rust code says, or whatever was thrown instead. */
export const messageOf = (cause: unknown): string => {
  if (Predicate.hasProperty(cause, "message") && typeof cause.message === "string") return cause.message
  if (Predicate.hasProperty(cause, "description") && typeof cause.description === "string") return cause.description
  return String(cause)
}

const trappedBy = (detail: string): CryptoError.CryptoTrapped =>
  new CryptoError.CryptoTrapped({
    message: `the end-to-end machine trapped and was thrown away (${detail}); what was in its memory is void, what is stored is as it was, and the next call makes another machine`,
    detail
  })

const timedOut = (millis: number): CryptoError.CryptoTrapped =>
  new CryptoError.CryptoTrapped({
    message: `the end-to-end machine didn't answer within ${millis} ms and was thrown away; what is stored is as it was, and the next call makes another machine`
  })

interface Surroundings {
  readonly host: Host
  readonly database: IndexedDb.IndexedDb
  readonly filename: string
}

/** What a rejected call means: the database's own error if it had one, since the Rust code hides it. */
const reasonOf = (
  { database, filename }: Surroundings,
  operation: string,
  cause: unknown
): CryptoError.CryptoErrorReason => {
  const fault = database.takeError()
  if (fault !== undefined) {
    const error = StoreFault.toStoreError(filename, operation, fault)
    return new CryptoError.CryptoStoreFailed({ message: error.message, error })
  }
  return new CryptoError.CryptoFailed({ message: messageOf(cause), cause })
}

/** Runs Rust code to its end: an answer, an error, or the death of its host. */
const run = <A>(
  surroundings: Surroundings,
  operation: string,
  body: () => Promise<A> | A,
  explain: (cause: unknown) => CryptoError.CryptoErrorReason | undefined = () => undefined
): Effect.Effect<A, CryptoError.CryptoError> => {
  const { database, host } = surroundings
  const fail = failing(operation)
  return Effect.callback<A, CryptoError.CryptoError>((resume) => {
    const dead = host.trapped()
    if (dead !== undefined) return resume(Effect.fail(fail(trappedBy(dead))))
    const forget = host.onTrap((detail) => resume(Effect.fail(fail(trappedBy(detail)))))
    const rejected = (cause: unknown): void => {
      forget()
      if (CryptoWasm.isTrap(cause)) host.die(messageOf(cause))
      const died = host.trapped()
      resume(
        Effect.fail(
          fail(died === undefined ? (explain(cause) ?? reasonOf(surroundings, operation, cause)) : trappedBy(died))
        )
      )
    }
    database.takeError()
    // A call that throws before it gives a promise is one that rejects.
    new Promise<A>((resolve) => resolve(body())).then((answer) => {
      forget()
      resume(Effect.succeed(answer))
    }, rejected)
    return Effect.sync(forget)
  })
}

/** Gives a call up that takes too long, together with its host: the Rust code may hold a lock for ever. */
const within =
  (host: Host, operation: string, millis: number) =>
  <A>(call: Effect.Effect<A, CryptoError.CryptoError>): Effect.Effect<A, CryptoError.CryptoError> =>
    Effect.raceFirst(
      call,
      // The death of its host ends also a call that can't be interrupted.
      Effect.interruptible(Effect.sleep(millis)).pipe(
        Effect.andThen(Effect.sync(() => host.die(`${operation} took longer than ${millis} ms`))),
        // Made when it is needed: an error writes its stack down, and nearly no call ends so.
        Effect.andThen(Effect.suspend(() => Effect.fail(failing(operation)(timedOut(millis)))))
      )
    )

const OPEN = "open the end-to-end keys"

/** What opening the store was refused with, in the words of the package's 18.9.0 (the contract test holds it to them). */
const whyNotOpen =
  (session: Homeserver.Session, filename: string) =>
  (cause: unknown): CryptoError.CryptoErrorReason | undefined => {
    const message = messageOf(cause)
    // Refused by our own IndexedDB, which a reader may not create or upgrade.
    if (message.includes("NotFoundError")) {
      return new CryptoError.CryptoNoStore({
        message: `the database ${filename} holds no end-to-end keys yet; start the sync service, whose first owner of the extension stream makes them`
      })
    }
    if (message.includes("ReadOnlyError")) {
      return new CryptoError.CryptoNoStore({
        message: `the end-to-end keys in ${filename} were written by an older version of this software, and the owner of the extension stream hasn't upgraded them yet; start the sync service with this version`
      })
    }
    if (message.includes("too new") || message.includes("VersionError")) {
      return new CryptoError.CryptoStoreNewer({
        message: `the end-to-end keys in ${filename} were written by a newer version of this software (${message}); nothing was changed: update this one`
      })
    }
    if (message.includes("failed to be decrypted while unpickling")) {
      return new CryptoError.CryptoWrongKey({
        message: `the key doesn't open the end-to-end keys in ${filename}; nothing was changed: give the key that they were stored with`
      })
    }
    if (message.includes("doesn't match the account in the constructor")) {
      return new CryptoError.CryptoForeignStore({
        message: `the end-to-end keys in ${filename} are not those of ${session.userId}'s device ${session.deviceId} (${message}); nothing was changed: log in as the device that they belong to, or use another database`
      })
    }
    return undefined
  }

const makeMachine = (surroundings: Surroundings, olm: Sdk.OlmMachine, callMillis: number): OlmMachine => {
  const { database, host } = surroundings
  let isClosed = false
  return {
    sdk: host.sdk,
    database,
    call: (operation, body, explain) =>
      run(surroundings, operation, () => body(olm, host.sdk), explain).pipe(within(host, operation, callMillis)),
    isDead: () => host.trapped() !== undefined,
    close: () => {
      if (isClosed) return
      isClosed = true
      // Of a dead host nothing is touched again.
      if (host.trapped() === undefined) olm.close()
    }
  }
}

/** What a machine is opened over. */
export interface Account {
  readonly session: Homeserver.Session
  readonly client: SqliteClient.SqliteClient
  readonly keys: StoreKey["Service"]
}

/** The account of this process, from its services. */
export const accountOf = (
  session: Homeserver.Session
): Effect.Effect<Account, never, SqliteClient.SqliteClient | StoreKey> =>
  Effect.map(Effect.context<SqliteClient.SqliteClient | StoreKey>(), (context) => ({
    session,
    client: Context.get(context, SqliteClient.SqliteClient),
    keys: Context.get(context, StoreKey)
  }))

const keyOf = ({ client, keys }: Account) =>
  Effect.try({
    try: () => CryptoRecords.areNone(client.now),
    catch: (cause) => StoreFault.toStoreError(client.config.filename, OPEN, cause)
  }).pipe(
    Effect.mapError((error) => new CryptoError.CryptoStoreFailed({ message: error.message, error })),
    Effect.flatMap((isNew) =>
      Effect.mapError(
        keys.key({ isNew }),
        ({ message }): CryptoError.CryptoErrorReason => new CryptoError.CryptoWrongKey({ message })
      )
    ),
    Effect.mapError(failing(OPEN))
  )

/**
 * Opens the account's machine, and makes its keys if there are none and it may write. Nothing is durable by that.
 *
 * Fails with `CryptoError`: `CryptoWrongKey`, `CryptoForeignStore`, `CryptoStoreNewer`, `CryptoNoStore` (only when it may not
 * write), `CryptoStoreFailed`, `CryptoTrapped`, `CryptoFailed`.
 */
export const open = (
  account: Account,
  host: Host,
  options: { readonly writable: boolean }
): Effect.Effect<OlmMachine, CryptoError.CryptoError> =>
  Effect.gen(function* () {
    const { cryptoCallMillis } = yield* SyncConfig.SyncConfig
    const { client, session } = account
    const { filename } = client.config
    const key = yield* keyOf(account)
    const database = IndexedDb.make({ reader: CryptoRecords.reader(client.now), writable: options.writable })
    const surroundings: Surroundings = { host, database, filename }
    const opened = run(
      surroundings,
      OPEN,
      async () => {
        host.use(database)
        const { DeviceId, OlmMachine, StoreHandle, UserId } = host.sdk
        // The Rust code keeps the array that it is given, so it is given a copy.
        const handle = await StoreHandle.openWithKey(STORE, Redacted.value(key).slice())
        try {
          const olm = await OlmMachine.initFromStore(new UserId(session.userId), new DeviceId(session.deviceId), handle)
          // A reader asks nobody for keys: asking is a write.
          if (!options.writable) olm.roomKeyRequestsEnabled = false
          return olm
        } finally {
          handle.free()
        }
      },
      whyNotOpen(session, filename)
    )
    // Opening goes on when it is interrupted, and the rest of it would find the next one's database.
    const olm = yield* Effect.uninterruptible(within(host, OPEN, cryptoCallMillis)(opened))
    return makeMachine(surroundings, olm, cryptoCallMillis)
  })
