/** Loading an account, following its news, and taking its to-device messages. */
import { Effect } from "effect"
import type { Aim, Benchmark, Contestant, Make, Medians, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import type { SyncTask } from "../contestants/SyncTask.ts"

type Work = Pick<SyncTask, "rooms" | "timeline" | "news" | "latencies" | "toDevice">

/** js-sdk and the limit hold all of 10 000 rooms at once, which is more than Node allows by default. */
const HEAP = ["--max-old-space-size=8000"]

/** For an application that would rather be small than as fast as it can be (`docs/guides/operating.md`). */
const SMALL = ["--max-semi-space-size=8"]

/** A canned homeserver with so many rooms, and a way to let contestants do the work there. */
const arena = Effect.fnUntraced(function* (work: Work) {
  const { latencies, news, rooms, timeline } = work
  const baseUrl = yield* Child.homeserver({ rooms, timeline, news: news + latencies, batches: 100 })
  return (
    name: string,
    role: Contestant["role"],
    bundle: Child.Bundle,
    flags: ReadonlyArray<string> = []
  ): Contestant => ({
    name,
    role,
    run: Effect.flatMap(Child.newDatabase, (database) => {
      const task: SyncTask = { ...work, baseUrl, database }
      return Child.figures(bundle, task, flags)
    })
  })
})

const contestants = Effect.fnUntraced(function* (work: Work) {
  const contestant = yield* arena(work)
  const us = yield* Child.bundled("contestants/twinloop.ts")
  const peer = yield* Child.bundled("contestants/jsSdk.ts")
  const limit = yield* Child.bundled("contestants/limit.ts")
  const all: ReadonlyArray<Contestant> = [
    contestant("twinloop", "us", us),
    contestant("matrix-js-sdk", "peer", peer, HEAP),
    contestant("parse and rows", "limit", limit, HEAP)
  ]
  return { all, small: contestant("twinloop, small", "us", us, SMALL) }
})

const allContestants = (work: Work) => Effect.map(contestants(work), ({ all }) => all)

const ratio = (what: string, figure: string, of: Contestant["role"], is: Aim["is"], bound: number): Aim => ({
  what,
  value: (median) => median("us", figure) / median(of, figure),
  is,
  bound,
  unit: "×"
})

const ofUs = (what: string, figure: string, unit: string, bound: number): Aim => ({
  what,
  value: (median) => median("us", figure),
  is: "at most",
  bound,
  unit
})

const thousands = (count: number): string => (count >= 1_000 ? `${count / 1_000}k` : `${count}`)

const ingest = ({ quick }: Options, rooms: number, timeline: number): Benchmark => {
  const isLargest = rooms * timeline >= 200_000
  return {
    name: `ingest-${thousands(rooms)}-${timeline}`,
    title: `Initial ingest, ${rooms.toLocaleString("en-US")} rooms with ${timeline} event${timeline === 1 ? "" : "s"} each`,
    how: "From starting the service until every room is known. Twinloop asks page by page over HTTP and has committed everything to SQLite; matrix-js-sdk asks for everything at once and keeps it in memory. The limit has the pages in memory already: it parses them and writes one row per event, in one transaction. Each is one bundled file with a warm compile cache.",
    repetitions: quick ? 1 : isLargest ? 3 : 5,
    contestants: Effect.map(contestants({ rooms, timeline, news: 0, latencies: 0, toDevice: 0 }), ({ all, small }) =>
      isLargest ? [...all, small] : all
    ),
    aims: [
      ratio("time, of the limit's", "ingestMillis", "limit", "at most", 1.5),
      {
        what: "faster than matrix-js-sdk",
        value: (median) => median("peer", "ingestMillis") / median("us", "ingestMillis"),
        is: "at least",
        bound: 3,
        unit: "×"
      },
      ...(isLargest
        ? [
            ofUs("peak memory", "peakMegabytes", "MB", 250),
            {
              what: "peak memory with --max-semi-space-size=8",
              value: (median: Medians) => median("twinloop, small", "peakMegabytes"),
              is: "at most" as const,
              bound: 250,
              unit: "MB"
            },
            ofUs("longest stall of the event loop", "stallMillis", "ms", 30)
          ]
        : [])
    ]
  }
}

const news = ({ quick }: Options): Benchmark => ({
  name: "incremental",
  title: "Incremental responses, 1,000 rooms",
  how: "Responses of 1 to 20 rooms with 1 to 3 events each, one right after the other, then with pauses of 15 ms. Twinloop commits each to SQLite before it publishes; matrix-js-sdk keeps it in memory. The limit asks over HTTP with undici, parses, and writes one row per event in one transaction, one after the other. Latency runs from the end of the homeserver's response to the room list's (for matrix-js-sdk, the first event's) publication.",
  repetitions: quick ? 1 : 5,
  contestants: allContestants({
    rooms: quick ? 100 : 1_000,
    timeline: 1,
    news: quick ? 100 : 3_000,
    latencies: quick ? 20 : 200,
    toDevice: 0
  }),
  aims: [
    ratio("responses per second, of matrix-js-sdk's", "responsesPerSecond", "peer", "at least", 2.5),
    ratio("responses per second, of the limit's", "responsesPerSecond", "limit", "at least", 0.6),
    ratio("latency p50, of matrix-js-sdk's", "latencyP50Millis", "peer", "at most", 0.7),
    ratio("latency p99, of matrix-js-sdk's", "latencyP99Millis", "peer", "at most", 1)
  ]
})

const toDevice = ({ quick }: Options): Benchmark => ({
  name: "to-device",
  title: "To-device messages, in batches of 100",
  how: "Twinloop acknowledges each batch only after a fenced commit that is synced to disk (FULL), and hands every message to a consumer of the inbox. matrix-js-sdk keeps everything in memory. The limit has the responses in memory already: it parses them and writes one row per message, one transaction per batch, synced to disk.",
  repetitions: quick ? 1 : 5,
  contestants: allContestants({ rooms: 20, timeline: 1, news: 0, latencies: 0, toDevice: quick ? 10 : 400 }),
  aims: [
    ratio("messages per second, of the limit's", "toDevicePerSecond", "limit", "at least", 0.7),
    {
      what: "messages per second, of the limit's over HTTP, in series",
      value: (median) => median("us", "toDevicePerSecond") / median("limit", "toDeviceInSeriesPerSecond"),
      is: "at least",
      bound: 0.7,
      unit: "×"
    }
  ]
})

/** What a unit of work costs in contestant `to`, of what it costs in `from`. */
const growth = (what: string, figure: string, from: string, to: string): Aim => ({
  what: `${what}, ${to} of ${from}`,
  value: (median) => median(to, figure) / median(from, figure),
  is: "at most",
  bound: 1.3,
  unit: "×"
})

/** Runs Twinloop in accounts of several sizes, and gives what a room and a response cost in each. */
const sizes = (all: ReadonlyArray<{ readonly name: string } & Work>) =>
  Effect.gen(function* () {
    const us = yield* Child.bundled("contestants/twinloop.ts")
    return yield* Effect.forEach(all, ({ name, ...work }) =>
      Effect.map(arena(work), (contestant): Contestant => {
        const { run, ...others } = contestant(name, "us", us)
        const perUnit = ({ ingestMillis = Number.NaN, responsesPerSecond = Number.NaN }) => ({
          perRoomMillis: ingestMillis / work.rooms,
          perResponseMillis: 1_000 / responsesPerSecond
        })
        return { ...others, run: Effect.map(run, perUnit) }
      })
    )
  })

const growthOfRooms = ({ quick }: Options): Benchmark => {
  const counts = quick ? [100, 200] : [1_000, 10_000, 50_000]
  const named = counts.map((rooms) => ({ name: `${thousands(rooms)} rooms`, rooms }))
  const [first, ...others] = named
  return {
    name: "growth-rooms",
    title: "Growth with the number of rooms",
    how: "The same account with more rooms, one event each: time per room until all are loaded, and time per incremental response after that.",
    repetitions: quick ? 1 : 3,
    contestants: sizes(
      named.map((size) => ({ ...size, timeline: 1, news: quick ? 20 : 500, latencies: 0, toDevice: 0 }))
    ),
    aims: others.flatMap(({ name }) => [
      growth("time per room", "perRoomMillis", first!.name, name),
      growth("time per response", "perResponseMillis", first!.name, name)
    ])
  }
}

const growthOfHistory = ({ quick }: Options): Benchmark => ({
  name: "growth-history",
  title: "Growth with the history that is stored",
  how: "1,000 rooms with 1 and with 100 stored events each: time per incremental response.",
  repetitions: quick ? 1 : 3,
  contestants: sizes(
    [1, 100].map((timeline) => ({
      name: `${timeline} event${timeline === 1 ? "" : "s"} per room`,
      rooms: quick ? 50 : 1_000,
      timeline,
      news: quick ? 20 : 1_000,
      latencies: 0,
      toDevice: 0
    }))
  ),
  aims: [growth("time per response", "perResponseMillis", "1 event per room", "100 events per room")]
})

export const make: Make = (options) => {
  const loads = options.quick
    ? ([[100, 20]] as const)
    : ([
        [1_000, 1],
        [1_000, 20],
        [10_000, 1],
        [10_000, 20]
      ] as const)
  return [
    ...loads.map(([rooms, timeline]) => ingest(options, rooms, timeline)),
    news(options),
    toDevice(options),
    growthOfRooms(options),
    growthOfHistory(options)
  ]
}
