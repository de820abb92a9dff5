/**
 * End-to-end encryption: taking messages that bring keys, decrypting events, stores of many keys, handing the machine over,
 * starting to decrypt, and memory.
 *
 * The limits use the same WebAssembly with its store in memory. That is no store that a client could use: it forgets
 * everything when the process ends.
 *
 * Not here: the programs (`contestants/crypto`).
 */
import { Effect } from "effect"
import { pathToFileURL } from "node:url"
import type { Program } from "../../test/processes/Program.ts"
import type { Aim, Benchmark, Contestant, Make, Medians, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import type { CryptoTask } from "../contestants/crypto/CryptoTask.ts"
import type { HandoverLine, HandoverTask } from "../contestants/crypto/HandoverLine.ts"
import type { MemoryTask } from "../contestants/crypto/MemoryTask.ts"
import { databaseIn, type StoreTask } from "../contestants/crypto/StoreTask.ts"
import { type Figures, quantile } from "../contestants/Figures.ts"
import * as Node from "../Node.ts"

const atMost = (what: string, value: Aim["value"], bound: number, unit: string): Aim => ({
  what,
  value,
  is: "at most",
  bound,
  unit
})

/* ---- decrypting ---- */

const ofTheLimit = (what: string, figure: string): Aim => ({
  what: `${what}, of the limit's`,
  value: (median) => median("us", figure) / median("limit", figure),
  is: "at least",
  bound: 0.85,
  unit: "×"
})

const decrypting = Effect.fnUntraced(function* (work: Omit<CryptoTask, "database">) {
  const contestant = (name: string, role: Contestant["role"], bundle: Child.Bundle): Contestant => ({
    name,
    role,
    run: Effect.flatMap(Child.newDatabase, (database) => {
      const task: CryptoTask = { ...work, database }
      return Child.figures(bundle, task)
    })
  })
  return [
    contestant("twinloop", "us", yield* Child.bundled("contestants/crypto/twinloop.ts")),
    // In one file, it would look for its WebAssembly beside that file.
    contestant("matrix-js-sdk", "peer", yield* Child.unbundled("contestants/crypto/jsSdk.ts")),
    contestant("the machine in memory", "limit", yield* Child.bundled("contestants/crypto/limit.ts"))
  ]
})

const toDevice = ({ quick }: Options): Benchmark => ({
  name: "crypto-to-device",
  title: "Encrypted to-device messages, in batches of 100",
  how: "Each message is of Olm and brings the key of another room; ten devices send them. Twinloop decrypts each batch with `OlmCrypto` and commits the keys, the messages and the position under a fence, synced to disk (FULL). The limit is the same WebAssembly as its package has it, with its store in memory: it decrypts and keeps nothing. So does matrix-js-sdk, which has that WebAssembly and, in Node, no other store. The messages are made before; three batches warm the code up.",
  repetitions: quick ? 1 : 5,
  contestants: decrypting({ batches: quick ? 2 : 20, passes: 0 }),
  aims: [ofTheLimit("messages per second", "messagesPerSecond")]
})

const megolm = ({ quick }: Options): Benchmark => ({
  name: "crypto-megolm",
  title: "Decrypting events of rooms",
  how: "An event of each of 500 rooms is decrypted, one after the other, eight times; the keys came as in the benchmark before. Twinloop's `OlmReader` reads what is committed, each time anew, so that it sees what another process has written. The limit and matrix-js-sdk have the same WebAssembly with its store in memory, where nobody else writes; the latter is given each event as a new `MatrixEvent`.",
  repetitions: quick ? 1 : 5,
  contestants: decrypting({ batches: 2, passes: quick ? 1 : 8 }),
  aims: [ofTheLimit("events per second", "eventsPerSecond")]
})

/* ---- stores of many keys ---- */

/** An account with so many room keys; gives its directory, and how large its file is for each. */
const stored = Effect.fnUntraced(function* (roomKeys: number) {
  const directory = yield* Child.temporaryDirectory
  const prepare = yield* Child.bundled("contestants/crypto/storePrepare.ts")
  const task: StoreTask = { directory, roomKeys }
  const { filePerKeyKilobytes } = yield* Child.figures(prepare, task)
  return { task, filePerKeyKilobytes: filePerKeyKilobytes ?? Number.NaN }
})

const thousands = (count: number): string => `${count / 1_000}k room keys`

const stores = Effect.fnUntraced(function* (sizes: ReadonlyArray<number>) {
  const us = yield* Child.bundled("contestants/crypto/store.ts")
  const limit = yield* Child.bundled("contestants/crypto/storeLimit.ts")
  const all = yield* Effect.forEach(sizes, (size) => Effect.map(stored(size), (account) => ({ size, ...account })))
  const ours = all.map(({ filePerKeyKilobytes, size, task }): Contestant => ({
    name: thousands(size),
    role: "us",
    run: Effect.map(Child.figures(us, task), (figures) => ({ ...figures, filePerKeyKilobytes }))
  }))
  const limits = all.slice(-1).map(({ size, task }): Contestant => ({
    name: `in memory, ${thousands(size)}`,
    role: "limit",
    run: Child.figures(limit, task)
  }))
  return [...ours, ...limits]
})

const store = ({ quick }: Options): Benchmark => {
  const sizes = quick ? [1_000] : [1_000, 10_000, 50_000]
  const [smallest, largest] = [thousands(sizes[0]!), thousands(sizes.at(-1)!)]
  return {
    name: "crypto-store",
    title: "An account with many room keys",
    how: "From the start of the process until the owner's machine is there (open); the same in a process that runs, as after another one had the stream (reload); then the first event that the reader decrypts, for which it loads a machine of its own, and the following. Resident memory is of the whole process with both machines. The keys are made up and imported before. The limit has its store in memory, so it imports all keys at each start.",
    repetitions: quick ? 1 : 5,
    contestants: stores(sizes),
    aims: [
      atMost(`reload, ${largest}`, (median) => median(largest, "reloadMillis"), 15, "ms"),
      ...(quick
        ? []
        : [
            atMost(
              `resident memory, ${largest} of ${smallest}`,
              (median: Medians) => median(largest, "residentMegabytes") / median(smallest, "residentMegabytes"),
              1.1,
              "×"
            )
          ])
    ]
  }
}

/* ---- handing the stream over ---- */

type Member = Program<HandoverLine>
type Committed = Extract<HandoverLine, { readonly event: "committed" }>
type Released = Extract<HandoverLine, { readonly event: "released" }>

const LIMIT_MILLIS = 20_000

/** Tells a process to do something, and gives what waits for what it says then. */
const command = Effect.fnUntraced(function* (member: Member, line: string) {
  const since = yield* member.said
  yield* member.send(line)
  return (event: HandoverLine["event"]) =>
    Effect.map(
      member.until(`have ${event}`, (said) => said.event === event, { since, limitMillis: LIMIT_MILLIS }),
      ({ line }) => line
    )
})

/** The next to take is told to wait, then whoever has the stream releases it. */
const handOver = Effect.fnUntraced(function* (from: Member | undefined, to: Member, batch: number) {
  const taking = yield* command(to, `take ${batch}`)
  yield* taking("asked")
  // Whoever asks has looked and waits.
  yield* Effect.sleep(30)
  const releasing = from === undefined ? undefined : yield* command(from, "release")
  const committed = (yield* taking("committed")) as Committed
  return { committed, released: releasing === undefined ? undefined : ((yield* releasing("released")) as Released) }
})

/** A process takes the stream again that nobody else has had. */
const retake = Effect.fnUntraced(function* (member: Member, batch: number) {
  yield* (yield* command(member, "release"))("released")
  return (yield* (yield* command(member, `take ${batch}`))("committed")) as Committed
})

const RETAKES = 5

const handovers = Effect.fnUntraced(function* (us: Child.Bundle, prepare: Child.Bundle, turns: number, size: number) {
  const directory = yield* Child.temporaryDirectory
  const task: HandoverTask = { directory, size, batches: turns + 1 + RETAKES }
  yield* Child.figures(prepare, task)
  const open = Effect.gen(function* () {
    const member = yield* Child.start<HandoverLine>(pathToFileURL(us.file).href, task)
    yield* member.until("get ready", ({ event }) => event === "ready")
    return member
  })
  const members = [yield* open, yield* open] as const
  yield* handOver(undefined, members[0], 0)
  const took: Array<number> = []
  const lock: Array<number> = []
  const reload: Array<number> = []
  const batch: Array<number> = []
  let last: Committed | undefined
  for (let turn = 1; turn <= turns; turn++) {
    const { committed, released } = yield* handOver(members[(turn - 1) % 2], members[turn % 2]!, turn)
    took.push(committed.atMillis - released!.atMillis)
    lock.push(committed.takenAtMillis - released!.atMillis)
    reload.push(committed.loadedAtMillis - committed.takenAtMillis)
    batch.push(committed.atMillis - committed.loadedAtMillis)
    last = committed
  }
  const again = members[turns % 2]!
  const before = last!.reloads
  for (let turn = 1; turn <= RETAKES; turn++) last = yield* retake(again, turns + turn)
  const figures: Figures = {
    handoverP50Millis: quantile(took, 0.5),
    handoverP99Millis: quantile(took, 0.99),
    lockP50Millis: quantile(lock, 0.5),
    reloadP50Millis: quantile(reload, 0.5),
    batchP50Millis: quantile(batch, 0.5),
    reloadsOfRetakesCount: last!.reloads - before
  }
  return figures
}, Effect.scoped)

const ONE = "one message"
const TEN = "ten messages"

const handover = ({ quick }: Options): Benchmark => ({
  name: "crypto-handover",
  title: "The stream goes to another process, with its machine",
  how: "Two processes take turns. From the moment at which one is told to release the stream, until the other one has taken it, has made its machine anew, and has committed a batch of encrypted to-device messages, fenced and synced to disk. The parts: until the grant (lock), making the machine (reload), decrypting and committing (batch). Then one process takes the stream again five times without another having had it in between: how many machines that makes.",
  repetitions: quick ? 1 : 3,
  contestants: Effect.gen(function* () {
    const us = yield* Child.bundled("contestants/crypto/handover.ts")
    const prepare = yield* Child.bundled("contestants/crypto/handoverPrepare.ts")
    const turns = quick ? 6 : 60
    const all: ReadonlyArray<Contestant> = [
      { name: ONE, role: "us", run: handovers(us, prepare, turns, 1) },
      { name: TEN, role: "us", run: handovers(us, prepare, turns, 10) }
    ]
    return all
  }),
  aims: [
    atMost(`hand-over p50, ${ONE}`, (median) => median(ONE, "handoverP50Millis"), 15, "ms"),
    atMost(`hand-over p50, ${TEN}`, (median) => median(TEN, "handoverP50Millis"), 15, "ms"),
    atMost("machines made by retaking", (median) => median("us", "reloadsOfRetakesCount"), 0, "")
  ]
})

/* ---- a process that starts to decrypt ---- */

const WITHOUT = "without encryption"

const oneShots = Effect.gen(function* () {
  const { task } = yield* stored(1_000)
  const database = databaseIn(task.directory)
  const decrypts = Node.start(yield* Child.bundled("contestants/start/oneShotDecrypt.ts"), database)
  const reads = Node.start(yield* Child.bundled("contestants/start/oneShotRead.ts"), database)
  yield* Effect.all([decrypts, reads])
  const figures = (run: Effect.Effect<Node.Run>): Effect.Effect<Figures> =>
    Effect.map(run, ({ exitMillis, output, shownMillis }) => ({
      shownMillis,
      exitMillis,
      peakMegabytes: Node.lineOf(output).peakMegabytes
    }))
  const all: ReadonlyArray<Contestant> = [
    { name: "twinloop", role: "us", run: figures(decrypts) },
    { name: WITHOUT, role: "us", run: figures(reads) },
    { name: "node -e 0", role: "limit", run: Effect.map(Node.node(["-e", "0"]), ({ exitMillis }) => ({ exitMillis })) }
  ]
  return all
})

const coldStart = ({ quick }: Options): Benchmark => ({
  name: "crypto-cold-start",
  title: "A process that starts, decrypts a stored message, and ends",
  how: "From the start of the process until its line arrives (shown), and until its end (exit). Each is one CommonJS file with a warm compile cache, beside the two packages that can't be in it. It opens the account, of 1,000 room keys, reads an encrypted event and decrypts it with `OlmReader`. Without encryption, it reads the same event and says so. The limit does nothing at all.",
  repetitions: quick ? 2 : 15,
  contestants: oneShots,
  aims: [
    atMost(
      "shown, beyond that without encryption",
      (median) => median("us", "shownMillis") - median(WITHOUT, "shownMillis"),
      60,
      "ms"
    ),
    atMost("exit, of `node -e 0`'s", (median) => median("us", "exitMillis") / median("limit", "exitMillis"), 4, "×")
  ]
})

/* ---- memory ---- */

const BOTH = "both machines"
const OWNER = "the owner's machine"
const TABLES = "tables alone"

const memory = ({ quick }: Options): Benchmark => {
  const accounts = quick ? 5 : 50
  return {
    name: "crypto-memory",
    title: `Memory that encryption takes per account, ${accounts} accounts in one process`,
    how: `What ${accounts} accounts take beyond the first five, each, after a forced garbage collection; what all share (code, the compiled WebAssembly) isn't in it. Each account has its database with our tables; with encryption, also the machine of the stream's owner in a WebAssembly instance of its own, and that of the reader in another. The limit has the machines of all accounts in one instance, with their stores in memory. "Open" is the time until all of it is there.`,
    repetitions: quick ? 1 : 3,
    contestants: Effect.gen(function* () {
      const us = yield* Child.bundled("contestants/crypto/memory.ts")
      const limit = yield* Child.bundled("contestants/crypto/memoryLimit.ts")
      const contestant = (
        name: string,
        role: Contestant["role"],
        bundle: Child.Bundle,
        parts: MemoryTask["parts"]
      ): Contestant => ({
        name,
        role,
        run: Effect.flatMap(Child.temporaryDirectory, (directory) => {
          const task: MemoryTask = { accounts, directory, parts }
          return Child.figures(bundle, task, ["--expose-gc"])
        })
      })
      return [
        contestant(BOTH, "us", us, "whole"),
        contestant(OWNER, "us", us, "engine"),
        contestant(TABLES, "us", us, "stores"),
        contestant("one WebAssembly instance", "limit", limit, "whole")
      ]
    }),
    aims: [
      atMost(
        "resident memory per account, beyond the tables",
        (median) => (median(BOTH, "residentKilobytes") - median(TABLES, "residentKilobytes")) / 1_000,
        10,
        "MB"
      )
    ]
  }
}

export const make: Make = (options) => [
  toDevice(options),
  megolm(options),
  store(options),
  handover(options),
  coldStart(options),
  memory(options)
]
