/**
 * What an hour without faults comes to: does anything grow that should not?
 *
 * Pure: samples in, slopes by least squares and a verdict out.
 */

/** One process at one moment. */
export interface ProcessSample {
  readonly pid: number
  /** `VmRSS` and `VmHWM`, MiB. */
  readonly residentMib: number
  readonly peakMib: number
  /** Open file descriptors. */
  readonly handles: number
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

/** A line through points: what it rises in an hour, and how unsure that is (standard error). */
export interface Slope {
  readonly perHour: number
  readonly error: number
}

/** Fits a line by least squares. `undefined` for fewer than three points. */
export const slope = (points: ReadonlyArray<readonly [atMillis: number, value: number]>): Slope | undefined => {
  if (points.length < 3) return undefined
  const mean = (pick: 0 | 1): number => points.reduce((sum, point) => sum + point[pick], 0) / points.length
  const [meanAt, meanValue] = [mean(0), mean(1)]
  const spread = points.reduce((sum, [at]) => sum + (at - meanAt) ** 2, 0)
  if (spread === 0) return undefined
  const perMilli = points.reduce((sum, [at, value]) => sum + (at - meanAt) * (value - meanValue), 0) / spread
  const rest = points.reduce((sum, [at, value]) => sum + (value - meanValue - perMilli * (at - meanAt)) ** 2, 0)
  const error = Math.sqrt(rest / (points.length - 2) / spread)
  return { perHour: perMilli * 3_600_000, error: error * 3_600_000 }
}

/** What counts as flat, and as bounded. */
export const bounds = {
  /** An hour's growth of what a process refers to, MiB: measured about 1. */
  liveMibPerHour: 3,
  /** Of its resident memory, which also has what the allocators keep. */
  residentMibPerHour: 8,
  handlesPerHour: 2,
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

/** The first ten minutes, or the first two fifths of a short run. */
const warmUpOf = (totalMillis: number): number => Math.min(10 * 60_000, totalMillis * 0.4)

const tables: ReadonlyArray<Table> = ["inbox", "encryption_news", "push_seen", "push_queue", "quarantine"]

const mostOf = (values: ReadonlyArray<number>): number => values.reduce((most, value) => Math.max(most, value), 0)

/** Computes everything from the samples, oldest first, one at least. */
export const figures = (samples: ReadonlyArray<Sample>): Figures => {
  const last = samples.at(-1)!
  const warmUpMillis = warmUpOf(last.atMillis)
  const warm = samples.filter(({ atMillis }) => atMillis >= warmUpMillis)
  const first = warm[0] ?? last
  const slopeOf = (value: (sample: Sample) => number | undefined): Slope | undefined =>
    slope(warm.flatMap((sample) => (value(sample) === undefined ? [] : [[sample.atMillis, value(sample)!] as const])))
  const messages = last.messages - first.messages
  const minutes = (last.atMillis - first.atMillis) / 60_000
  return {
    minutes: last.atMillis / 60_000,
    samples: samples.length,
    warmUpMillis,
    isJudged: last.atMillis - warmUpMillis >= JUDGED_MILLIS,
    processes: Object.fromEntries(
      Object.entries(last.processes).map(([name, sample]) => [
        name,
        {
          liveMib: slopeOf(({ processes }) => processes[name]?.liveMib),
          residentMib: slopeOf(({ processes }) => processes[name]?.residentMib),
          handles: slopeOf(({ processes }) => processes[name]?.handles),
          lastLiveMib: sample.liveMib,
          lastMib: sample.residentMib,
          peakMib: sample.peakMib,
          lastHandles: sample.handles
        }
      ])
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
    const { handles, liveMib, residentMib } = found.processes[name] ?? {}
    return [
      ...over(`live heap of ${name} in MiB an hour`, liveMib?.perHour ?? 0, bounds.liveMibPerHour),
      ...over(`memory of ${name} in MiB an hour`, residentMib?.perHour ?? 0, bounds.residentMibPerHour),
      ...over(`open handles of ${name} an hour`, handles?.perHour ?? 0, bounds.handlesPerHour)
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
    `${one.lastLiveMib === undefined ? "" : `live heap ${one.lastLiveMib.toFixed(1)} MiB, ${per(one.liveMib, "MiB")}; `}${one.lastMib.toFixed(0)} MiB (peak ${one.peakMib.toFixed(0)}), ${per(one.residentMib, "MiB")}; ${one.lastHandles} handles, ${per(one.handles, "")}`
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
