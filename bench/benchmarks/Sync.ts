/** Loading an account, following its news, and taking its to-device messages. */
import { Effect } from "effect"
import type { Aim, Benchmark, Contestant, Make, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import type { SyncTask } from "../contestants/SyncTask.ts"

type Work = Pick<SyncTask, "rooms" | "timeline" | "news" | "latencies" | "toDevice">

const HEAP = ["--max-old-space-size=8000"]

const contestants = (work: Work, names: ReadonlyArray<Contestant["role"]>) =>
  Effect.gen(function* () {
    const { latencies, news, rooms, timeline } = work
    const baseUrl = yield* Child.homeserver({ rooms, timeline, news: news + latencies, batches: 100 })
    const contestant = (name: string, role: Contestant["role"], file: string, flags?: ReadonlyArray<string>) => ({
      name,
      role,
      run: Effect.flatMap(Child.newDatabase, (database) => {
        const task: SyncTask = { ...work, baseUrl, database }
        return Child.figures(`contestants/${file}`, task, flags === undefined ? {} : { flags })
      })
    })
    const all: ReadonlyArray<Contestant> = [
      contestant("twinloop", "us", "twinloop.ts"),
      contestant("matrix-js-sdk", "peer", "jsSdk.ts", HEAP),
      contestant("parse and rows", "limit", "limit.ts", HEAP)
    ]
    return all.filter(({ role }) => names.includes(role))
  })

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
    how: "From starting the service until every room is known. Twinloop asks page by page over HTTP and has committed everything to SQLite; matrix-js-sdk asks for everything at once and keeps it in memory. The limit has the pages in memory already: it parses them and writes one row per event, in one transaction.",
    repetitions: quick ? 1 : isLargest ? 3 : 5,
    contestants: contestants({ rooms, timeline, news: 0, latencies: 0, toDevice: 0 }, ["us", "peer", "limit"]),
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
  contestants: contestants(
    {
      rooms: quick ? 100 : 1_000,
      timeline: 1,
      news: quick ? 100 : 2_000,
      latencies: quick ? 20 : 200,
      toDevice: 0
    },
    ["us", "peer", "limit"]
  ),
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
  contestants: contestants({ rooms: 20, timeline: 1, news: 0, latencies: 0, toDevice: quick ? 10 : 200 }, [
    "us",
    "peer",
    "limit"
  ]),
  aims: [ratio("messages per second, of the limit's", "toDevicePerSecond", "limit", "at least", 0.7)]
})

export const make: Make = (options) => {
  const sizes = options.quick
    ? ([[100, 20]] as const)
    : ([
        [1_000, 1],
        [1_000, 20],
        [10_000, 1],
        [10_000, 20]
      ] as const)
  return [...sizes.map(([rooms, timeline]) => ingest(options, rooms, timeline)), news(options), toDevice(options)]
}
