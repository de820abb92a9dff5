/** Many accounts in one process: what each one more costs. */
import { Effect } from "effect"
import type { Benchmark, Contestant, Make } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import { type AccountsTask, ROOMS } from "../contestants/AccountsTask.ts"

const FLAGS = ["--expose-gc", "--max-old-space-size=8000"]

const ACTORS = "both actors"
const WHOLE = "whole"
const LIMIT = "node:sqlite and node:http"

type One = readonly [name: string, role: Contestant["role"], parts: AccountsTask["parts"]]

/** Contestants that run so many accounts at one canned homeserver. */
const contestants = Effect.fnUntraced(function* (ones: ReadonlyArray<One>, accounts: number) {
  const baseUrl = yield* Child.homeserver({ rooms: ROOMS, timeline: 1, news: 0, batches: 1 })
  const us = yield* Child.bundled("contestants/accounts.ts")
  const limit = yield* Child.bundled("contestants/accountsLimit.ts")
  return ones.map(([name, role, parts]): Contestant => ({
    name,
    role,
    run: Effect.flatMap(Child.temporaryDirectory, (directory) => {
      const task: AccountsTask = { accounts, baseUrl, directory, parts }
      return Child.figures(role === "limit" ? limit : us, task, FLAGS)
    })
  }))
})

const all = [
  [ACTORS, "us", "actors"],
  ["both actors, SQLite", "us", "sqlite"],
  [WHOLE, "us", "whole"],
  ["whole, single process", "us", "single"],
  [LIMIT, "limit", "whole"]
] as const

export const make: Make = ({ quick }) => {
  const accounts = quick ? 50 : 1_000
  const memory: Benchmark = {
    name: "accounts-memory",
    title: `Memory per idle account, ${accounts.toLocaleString("en-US")} accounts in one process`,
    how: `The difference between ${accounts} accounts and one, each of ${ROOMS} rooms, in sync and in its long polls, after a forced garbage collection, per account: so what all share (code, the HTTP agent) isn't in it. "Resident" is what the operating system counts (RSS), "heap" is JavaScript's part of it. "Both actors" is a started SyncService with its main loop, its extension loop, its lease and its ${ROOMS} rooms, over ports in memory; it has no database and no connection. With SQLite, a database file per account is opened, written and followed. "Whole" is Twinloop.layer: SQLite, two HTTP/1.1 connections without TLS, a wake-up socket; "single process" has neither that socket nor a lease in the database. The limit is without Twinloop: an open node:sqlite connection with the same tables, and two requests that the homeserver holds. "Idle" is the processor time of all accounts together, of one core.`,
    repetitions: quick ? 1 : 3,
    contestants: contestants(all, accounts),
    aims: [
      {
        what: "resident memory per account, both actors",
        value: (median) => median(ACTORS, "residentKilobytes"),
        is: "at most",
        bound: 60,
        unit: "KB"
      }
    ]
  }
  const growth: Benchmark = {
    name: "growth-accounts",
    title: `Time to get an account in sync, alone and as one of ${accounts.toLocaleString("en-US")}`,
    how: `Accounts of ${ROOMS} rooms are started one after the other, each when the one before is in sync: Twinloop.layer over SQLite and HTTP, from opening the database until both loops are in their long polls. "Alone" is the mean of 20 accounts that are stopped again, "together" the mean of ${accounts} that stay, whose long polls and lease renewals go on meanwhile. Before that, 20 accounts warm the code up.`,
    repetitions: quick ? 1 : 3,
    contestants: contestants([[WHOLE, "us", "whole"]], accounts),
    aims: [
      {
        what: "time per account, of the time alone",
        value: (median) => median("us", "togetherMillis") / median("us", "aloneMillis"),
        is: "at most",
        bound: 1.3,
        unit: "×"
      }
    ]
  }
  return [memory, growth]
}
