/**
 * What an hour without faults comes to: does anything grow that should not?
 *
 * Pure: samples in, slopes by least squares and a verdict out.
 *
 * A thread that a process starts once, as the first long log does (`CheckpointThread.ts`), lifts its memory and its handles to
 * another level, once; that is no growth. So its samples are put in groups with the same number of threads, each with a level of
 * its own and all with one slope; and the number of threads has a bound itself, so that no growth can hide behind it.
 */

/** One process at one moment. */
export interface ProcessSample {
  readonly pid: number
  /** `VmRSS` and `VmHWM`, MiB. */
  readonly residentMib: number
  readonly peakMib: number
  /** Open file descriptors. */
  readonly handles: number
  readonly threads: number
  /** Of JavaScript's heap, what is left when the garbage is collected, MiB; absent where it isn't asked. */
  readonly liveMib?: number
}

/** Tables that must stay bounded; `inbox` while all its consumers run. */
export type Table = "inbox" | "encryption_news" | "push_seen" | "push_queue" | "quarantine"

export interface Sample {
  /** Since the beginning. */
  readonly atMillis: number
  readonly processes: { readonly [name: string]: ProcessSample }
  readonly databaseBytes: number
  /** Of `-wal`. */
  readonly logBytes: number
  /** Changes of the row of any lease since the beginning. */
  readonly leaseWrites: number
  readonly rows: { readonly [table in Table]: number }
  /** Messages that Bob has written since the beginning. */
  readonly messages: number
}

/** What rises in an hour, and how unsure that is (standard error). */
export interface Slope {
  readonly perHour: number
  readonly error: number
}

/** A value at a moment; points of the same `level` are on the same line. */
export interface Point {
  readonly atMillis: number
  readonly value: number
  readonly level: number
}

const meanOf = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** Fits parallel lines by least squares, one for each level. `undefined` for fewer than two points more than there are levels. */
export const slope = (points: ReadonlyArray<Point>): Slope | undefined => {
  const levels = Object.values(Object.groupBy(points, ({ level }) => level)).map((found) => found ?? [])
  const free = points.length - levels.length - 1
  if (free < 1) return undefined
  const centred = levels.flatMap((found) => {
    const at = meanOf(found.map(({ atMillis }) => atMillis))
    const middle = meanOf(found.map(({ value }) => value))
    return found.map(({ atMillis, value }) => ({ x: atMillis - at, y: value - middle }))
  })
  const spread = centred.reduce((sum, { x }) => sum + x ** 2, 0)
  if (spread === 0) return undefined
  const perMilli = centred.reduce((sum, { x, y }) => sum + x * y, 0) / spread
  const rest = centred.reduce((sum, { x, y }) => sum + (y - perMilli * x) ** 2, 0)
  return { perHour: perMilli * 3_600_000, error: Math.sqrt(rest / free / spread) * 3_600_000 }
}

/** What counts as flat, and as bounded. */
export const bounds = {
  /** An hour's growth of what a process refers to, MiB: measured about 1. */
  liveMibPerHour: 3,
  /** Of its resident memory, which also has what the allocators keep. */
  residentMibPerHour: 8,
  handlesPerHour: 2,
  /** Threads that a process starts after its warm-up: the one that copies the log, and one to spare. */
  threadsStarted: 2,
  /** SQLite's log is copied at 4 MB; `journal_size_limit` is 64. */
  logBytes: 64 * 1_048_576,
  /** Of the database, for each encrypted message: its event as two processes see it, and its share of a key. */
  bytesPerMessage: 16_384,
  /** Two leases are renewed, each every 3.3 s; hand-overs and workers add some. */
  leaseWritesPerMinute: 90,
  /** `SyncConfig.inboxKept`, and what comes between two looks of a consumer. */
  inbox: 1_000 + 500,
  /** `SyncStore.ENCRYPTION_NEWS_KEPT`, `PushTables.SEEN_KEPT`, `SyncConfig.quarantineKept`. */
  encryption_news: 1_000,
  push_seen: 10_000,
  push_queue: 50,
  quarantine: 10_000
} as const

/** Shortest time after the warm-up from which a slope says something. */
const JUDGED_MILLIS = 20 * 60_000

export interface Figures {
  readonly minutes: number
  readonly samples: number
  /** Samples before this moment count for no slope. */
  readonly warmUpMillis: number
  /** Whether the time after the warm-up is long enough for slopes to be held to their bounds. */
  readonly isJudged: boolean
  readonly processes: {
    readonly [name: string]: {
      readonly liveMib: Slope | undefined
      readonly residentMib: Slope | undefined
      readonly handles: Slope | undefined
      readonly lastLiveMib: number | undefined
      readonly lastMib: number
      readonly peakMib: number
      readonly lastHandles: number
      readonly lastThreads: number
      /** More than there were after the warm-up. */
      readonly threadsStarted: number
    }
  }
  readonly databaseBytes: Slope | undefined
  readonly logBytes: Slope | undefined
  readonly lastDatabaseBytes: number
  readonly mostLogBytes: number
  readonly bytesPerMessage: number
  readonly leaseWritesPerMinute: number
  readonly mostRows: { readonly [table in Table]: number }
}

/** The first ten minutes, or the first two fifths of a short run: until everything that has a bound is full. */
export const warmUpOf = (totalMillis: number): number => Math.min(10 * 60_000, totalMillis * 0.4)

const tables: ReadonlyArray<Table> = ["inbox", "encryption_news", "push_seen", "push_queue", "quarantine"]

const mostOf = (values: ReadonlyArray<number>): number => values.reduce((most, value) => Math.max(most, value), 0)

/** Computes everything from the samples, oldest first, one at least. */
export const figures = (samples: ReadonlyArray<Sample>): Figures => {
  const last = samples.at(-1)!
  const warmUpMillis = warmUpOf(last.atMillis)
  const warm = samples.filter(({ atMillis }) => atMillis >= warmUpMillis)
  const first = warm[0] ?? last
  const slopeOf = (
    pick: (sample: Sample) => number | undefined,
    level: (sample: Sample) => number = () => 0
  ): Slope | undefined =>
    slope(
      warm.flatMap((sample) => {
        const value = pick(sample)
        return value === undefined ? [] : [{ atMillis: sample.atMillis, value, level: level(sample) }]
      })
    )
  const messages = last.messages - first.messages
  const minutes = (last.atMillis - first.atMillis) / 60_000
  return {
    minutes: last.atMillis / 60_000,
    samples: samples.length,
    warmUpMillis,
    isJudged: last.atMillis - warmUpMillis >= JUDGED_MILLIS,
    processes: Object.fromEntries(
      Object.entries(last.processes).map(([name, sample]) => {
        const threads = ({ processes }: Sample): number => processes[name]?.threads ?? 0
        return [
          name,
          {
            liveMib: slopeOf(({ processes }) => processes[name]?.liveMib, threads),
            residentMib: slopeOf(({ processes }) => processes[name]?.residentMib, threads),
            handles: slopeOf(({ processes }) => processes[name]?.handles, threads),
            lastLiveMib: sample.liveMib,
            lastMib: sample.residentMib,
            peakMib: sample.peakMib,
            lastHandles: sample.handles,
            lastThreads: sample.threads,
            threadsStarted: mostOf(warm.map(threads)) - threads(first)
          }
        ]
      })
    ),
    databaseBytes: slopeOf(({ databaseBytes }) => databaseBytes),
    logBytes: slopeOf(({ logBytes }) => logBytes),
    lastDatabaseBytes: last.databaseBytes,
    mostLogBytes: mostOf(samples.map(({ logBytes }) => logBytes)),
    bytesPerMessage: messages === 0 ? 0 : (last.databaseBytes - first.databaseBytes) / messages,
    leaseWritesPerMinute: minutes === 0 ? 0 : (last.leaseWrites - first.leaseWrites) / minutes,
    mostRows: Object.fromEntries(
      tables.map((table) => [table, mostOf(samples.map(({ rows }) => rows[table]))])
    ) as Figures["mostRows"]
  }
}

/** What grows, or is larger than it may be, in words; `judged` names the processes that are ours. */
export const failures = (found: Figures, judged: ReadonlyArray<string>): ReadonlyArray<string> => {
  const over = (what: string, is: number, bound: number): ReadonlyArray<string> =>
    is <= bound ? [] : [`${what}: ${is.toFixed(1)}, more than its bound of ${bound}`]
  const slopes = judged.flatMap((name) => {
    const { handles, liveMib, residentMib, threadsStarted = 0 } = found.processes[name] ?? {}
    return [
      ...over(`live heap of ${name} in MiB an hour`, liveMib?.perHour ?? 0, bounds.liveMibPerHour),
      ...over(`memory of ${name} in MiB an hour`, residentMib?.perHour ?? 0, bounds.residentMibPerHour),
      ...over(`open handles of ${name} an hour`, handles?.perHour ?? 0, bounds.handlesPerHour),
      ...over(`threads that ${name} started after its warm-up`, threadsStarted, bounds.threadsStarted)
    ]
  })
  return [
    ...judged.flatMap((name) => (name in found.processes ? [] : [`${name} was not there at the end`])),
    ...(found.isJudged
      ? [...slopes, ...over("bytes of the database a message", found.bytesPerMessage, bounds.bytesPerMessage)]
      : []),
    ...over("bytes of the log", found.mostLogBytes, bounds.logBytes),
    ...over("writes of leases a minute", found.leaseWritesPerMinute, bounds.leaseWritesPerMinute),
    ...tables.flatMap((table) => over(`rows of ${table}`, found.mostRows[table], bounds[table]))
  ]
}

const per = (found: Slope | undefined, unit: string): string =>
  found === undefined ? "" : `${found.perHour.toFixed(1)} ± ${found.error.toFixed(1)} ${unit} an hour`

/** The table for people. */
export const table = (found: Figures): ReadonlyArray<string> => {
  const processes = Object.entries(found.processes).map(([name, one]): readonly [string, string] => [
    name,
    `${one.lastLiveMib === undefined ? "" : `live heap ${one.lastLiveMib.toFixed(1)} MiB, ${per(one.liveMib, "MiB")}; `}${one.lastMib.toFixed(0)} MiB (peak ${one.peakMib.toFixed(0)}), ${per(one.residentMib, "MiB")}; ${one.lastHandles} handles, ${per(one.handles, "")}; ${one.lastThreads} threads, ${one.threadsStarted} of them late`
  ])
  const rows: ReadonlyArray<readonly [string, string]> = [
    [
      "minutes",
      `${found.minutes.toFixed(1)}, ${found.samples} samples, slopes after ${(found.warmUpMillis / 60_000).toFixed(1)} minutes`
    ],
    ...processes,
    [
      "database",
      `${(found.lastDatabaseBytes / 1e6).toFixed(2)} MB, ${found.bytesPerMessage.toFixed(0)} bytes a message`
    ],
    ["log", `at most ${(found.mostLogBytes / 1e6).toFixed(2)} MB`],
    ["lease writes", `${found.leaseWritesPerMinute.toFixed(1)} a minute`],
    ...tables.map((name): readonly [string, string] => [
      `rows of ${name}`,
      `at most ${found.mostRows[name]} of ${bounds[name]}`
    ])
  ]
  const width = Math.max(...rows.map(([what]) => what.length))
  return rows.map(([what, is]) => `  ${what.padEnd(width)}  ${is}`)
}
