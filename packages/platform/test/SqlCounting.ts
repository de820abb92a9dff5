/** Counts what node:sqlite is asked for, below everything of ours, so that no production code knows of it; and groups it. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { DatabaseSync, StatementSync } from "node:sqlite"

export interface Counted {
  /** The statements that ran since the last call, in order, on all databases or on one. */
  take(on?: DatabaseSync): ReadonlyArray<string>
  /** How many statements were prepared since the last call. */
  takePrepared(): number
  /** The connections on which something was prepared, in the order in which they were opened. */
  readonly databases: ReadonlyArray<DatabaseSync>
}

const make = () => {
  const { prepare } = DatabaseSync.prototype
  const { all, get, run } = StatementSync.prototype
  const origins = new WeakMap<StatementSync, { readonly database: DatabaseSync; readonly sql: string }>()
  const databases: Array<DatabaseSync> = []
  let ran: Array<{ readonly database: DatabaseSync; readonly sql: string }> = []
  let prepared = 0
  const note = (statement: StatementSync): void => {
    const origin = origins.get(statement)
    if (origin !== undefined) ran.push(origin)
  }
  DatabaseSync.prototype.prepare = function (sql, ...others) {
    const statement = prepare.call(this, sql, ...others)
    if (!databases.includes(this)) databases.push(this)
    origins.set(statement, { database: this, sql })
    prepared += 1
    return statement
  }
  Object.assign(StatementSync.prototype, {
    run(this: StatementSync, ...values: Parameters<typeof run>) {
      note(this)
      return run.apply(this, values)
    },
    get(this: StatementSync, ...values: Parameters<typeof get>) {
      note(this)
      return get.apply(this, values)
    },
    all(this: StatementSync, ...values: Parameters<typeof all>) {
      note(this)
      return all.apply(this, values)
    }
  })
  const counted: Counted = {
    databases,
    take: (on) => {
      const taken = ran.filter(({ database }) => on === undefined || database === on)
      ran = ran.filter(({ database }) => on !== undefined && database !== on)
      return taken.map(({ sql }) => sql)
    },
    takePrepared: () => {
      const taken = prepared
      prepared = 0
      return taken
    }
  }
  const restore = (): void => {
    DatabaseSync.prototype.prepare = prepare
    Object.assign(StatementSync.prototype, { all, get, run })
  }
  return { counted, restore }
}

/** Counts for as long as the scope is open; what was prepared before isn't counted. */
export const counting: Effect.Effect<Counted, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(Effect.sync(make), ({ restore }) => Effect.sync(restore)),
  ({ counted }) => counted
)

/** What happened between BEGIN and COMMIT. */
export interface Transaction {
  readonly mode: "read" | "write" | "durable"
  readonly statements: ReadonlyArray<string>
}

const DURABLE = "PRAGMA synchronous = FULL"
/** Belong to a transaction, and stand outside of it. */
const around = [DURABLE, "PRAGMA synchronous = NORMAL", "PRAGMA wal_checkpoint(NOOP)"]

/** The transactions of one connection; what ran outside of any gives the test up. */
export const transactionsOf = (ran: ReadonlyArray<string>): ReadonlyArray<Transaction> => {
  const transactions: Array<Transaction> = []
  let open: Array<string> | undefined
  let mode: Transaction["mode"] = "read"
  let isDurable = false
  for (const sql of ran) {
    if (around.includes(sql)) isDurable = sql === DURABLE
    else if (sql.startsWith("BEGIN")) {
      open = []
      mode = sql !== "BEGIN IMMEDIATE" ? "read" : isDurable ? "durable" : "write"
    } else if (open === undefined) throw new Error(`outside of any transaction: ${sql}`)
    else if (sql === "COMMIT") {
      transactions.push({ mode, statements: open })
      open = undefined
    } else open.push(sql)
  }
  return transactions
}

/** Those that touch one of these tables, by a word in a statement. */
export const touching = (transactions: ReadonlyArray<Transaction>, tables: RegExp): ReadonlyArray<Transaction> =>
  transactions.filter(({ statements }) => statements.some((sql) => tables.test(sql)))
