/**
 * Looks at processes and at the database: how large they are just then. Linux only, by `/proc`.
 *
 * Writes of leases are counted by triggers, which are added to the database here. Reads can't be counted: SQLite has no trigger
 * for them, and no process tells.
 */
import { readdirSync, readFileSync, statSync } from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import type { ProcessSample, Sample, Table } from "./Figures.ts"

/** A process, or `undefined` when it is gone. */
export const ofProcess = (pid: number): ProcessSample | undefined => {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8")
    const number = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)![1])
    return {
      pid,
      residentMib: number("VmRSS") / 1_024,
      peakMib: number("VmHWM") / 1_024,
      handles: readdirSync(`/proc/${pid}/fd`).length,
      threads: number("Threads")
    }
  } catch {
    return undefined
  }
}

/** Begins to count the writes of leases. */
export const countLeaseWrites = (db: DatabaseSync): void => {
  db.exec("CREATE TABLE soak (lease_writes INTEGER NOT NULL)")
  db.exec("INSERT INTO soak VALUES (0)")
  for (const what of ["INSERT", "UPDATE", "DELETE"]) {
    db.exec(
      `CREATE TRIGGER soak_${what} AFTER ${what} ON lease BEGIN UPDATE soak SET lease_writes = lease_writes + 1; END`
    )
  }
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

const numberIn = (db: DatabaseSync, query: string): number => Number(Object.values(db.prepare(query).get()!)[0])

const rowsIn = (db: DatabaseSync, table: Table): number => numberIn(db, `SELECT COUNT(*) FROM ${table}`)

/** The database at this moment. */
export const ofDatabase = (
  db: DatabaseSync,
  filename: string
): Pick<Sample, "databaseBytes" | "leaseWrites" | "logBytes" | "rows"> => ({
  databaseBytes: sizeOf(filename),
  logBytes: sizeOf(`${filename}-wal`),
  leaseWrites: numberIn(db, "SELECT lease_writes FROM soak"),
  rows: {
    inbox: rowsIn(db, "inbox"),
    encryption_news: rowsIn(db, "encryption_news"),
    push_seen: rowsIn(db, "push_seen"),
    push_queue: rowsIn(db, "push_queue"),
    quarantine: rowsIn(db, "quarantine")
  }
})
