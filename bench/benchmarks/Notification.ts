/**
 * Notifications: from the moment at which a process is told a room's and an event's id until the event's text is known.
 *
 * In a process that has resolved one before, and in one that is started for it; in the clear, and encrypted with a key that is
 * there, or that nobody but the homeserver has, whoever owns the stream of keys.
 *
 * Not here: the stage (`NotifyStage.ts`), the programs (`contestants/notify`; the one that is started is the real one,
 * `packages/platform/src/cli/notify.ts`).
 */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Program } from "../../test/processes/Program.ts"
import type { Aim, Benchmark, Contestant, Make, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import { type Figures, quantile } from "../contestants/Figures.ts"
import type { Inspection } from "../contestants/notify/inspect.ts"
import type { NotifyLine } from "../contestants/notify/NotifyLine.ts"
import * as Node from "../Node.ts"
import * as NotifyStage from "../NotifyStage.ts"

type Account = NotifyStage.Account
type Stage = NotifyStage.Stage
type Push = NotifyStage.Push

const PLAIN = "in the clear"
const KNOWN = "key known"
const FREE = "key new, stream free"
const BUSY = "key new, stream owned"
const STALE = "key new, owner killed"
const ONE_CORE = "key new, stream free, one core"
const FAR = "key new, stream free, 50 ms away"
const ONE = "1 request"
const TWO = "2 requests"
const TWO_FAR = "2 requests, 50 ms away"
const PEER_PLAIN = "matrix-js-sdk, in the clear"
const PEER_KNOWN = "matrix-js-sdk, key known"
const PEER_NEW = "matrix-js-sdk, key new"

/** What both are measured on. */
const COMMON =
  "The dev homeserver and the sender, another account of Twinloop, are processes of their own on the same machine; the application has stored the room before. A new key is one of a new Megolm session, which the sender makes for each such message. Stream free: nobody owns the stream of keys, so that the process does for a moment. Owned: by a running `twinloop run`, which gets event and key as well. Killed: by one that was killed with SIGKILL right before the message was sent."

const atMost = (what: string, value: Aim["value"], bound: number, unit: string): Aim => ({
  what,
  value,
  is: "at most",
  bound,
  unit
})

const of =
  (contestant: string, figure: string): Aim["value"] =>
  (median) =>
    median(contestant, figure)

const ratio =
  (contestant: string, other: string, figure: string): Aim["value"] =>
  (median) =>
    median(contestant, figure) / median(other, figure)

/**
 * A contestant that takes one figure a turn. Its 99th percentile is of all turns, so that it is known after the last one.
 */
export const eachTurn = (repetitions: number, figure: string, contestant: Contestant): Contestant => {
  const taken: Array<number> = []
  return {
    ...contestant,
    run: Effect.map(contestant.run, (figures) => {
      taken.push(figures[figure] ?? Number.NaN)
      const p99 = figure.replace(/Millis$/, "P99Millis")
      return taken.length < repetitions ? figures : { ...figures, [p99]: quantile(taken, 0.99) }
    })
  }
}

/** Whoever owned the stream is killed, and nobody else has noticed: then something is said. */
const afterTheOwner = Effect.fnUntraced(function* (stage: Stage, account: Account) {
  yield* Effect.gen(function* () {
    const owner = yield* NotifyStage.follow(account)
    yield* owner.signal("SIGKILL")
    yield* owner.ended
  }).pipe(Effect.scoped)
  return yield* stage.say(account, "fresh")
})

/* ---- a process that runs ---- */

const warmPush = Effect.fnUntraced(function* (program: Program<NotifyLine>, said: Effect.Effect<Push>) {
  const { resolved, settled } = yield* NotifyStage.resolve(program, yield* said)
  const figures: Figures = {
    resolvedMillis: resolved.resolvedMillis,
    requestsUntilThenCount: resolved.requests,
    requestsInAllCount: settled.requests
  }
  return figures
})

/** The limit: its time, and that of one of its requests. */
const limitPush = (program: Program<NotifyLine>, said: Effect.Effect<Push>): Effect.Effect<Figures> =>
  Effect.map(warmPush(program, said), (figures) => ({
    ...figures,
    roundTripMillis: figures["resolvedMillis"]! / figures["requestsUntilThenCount"]!
  }))

const warmContestants = (repetitions: number) =>
  Effect.gen(function* () {
    const stage = yield* NotifyStage.open
    const [main, busy, stale, peer] = [
      yield* stage.account("main"),
      yield* stage.account("busy"),
      yield* stage.account("stale"),
      yield* stage.account("peer")
    ]
    yield* NotifyStage.prepareAndEnd(stage, main)
    yield* NotifyStage.prepareAndEnd(stage, stale)
    yield* NotifyStage.prepare(stage, busy)

    const ours = yield* Child.bundled("contestants/notify/warm.ts")
    const limit = yield* Child.bundled("contestants/notify/limit.ts")
    const sdk = yield* Child.unbundled("contestants/notify/jsSdk.ts")
    const us = (account: Account) => NotifyStage.start(ours, JSON.stringify(account.task))
    const [usMain, usBusy, usStale] = [yield* us(main), yield* us(busy), yield* us(stale)]
    const one = yield* NotifyStage.start(limit, JSON.stringify(main.task), "1")
    const two = yield* NotifyStage.start(limit, JSON.stringify(main.task), "2")
    const them = yield* NotifyStage.start(sdk, JSON.stringify(peer.task))
    yield* stage.reach(peer)

    const all: ReadonlyArray<Contestant> = [
      { name: PLAIN, role: "us", run: warmPush(usMain, stage.say(main, "plain")) },
      { name: KNOWN, role: "us", run: warmPush(usMain, stage.say(main, "known")) },
      { name: FREE, role: "us", run: warmPush(usMain, stage.say(main, "fresh")) },
      { name: BUSY, role: "us", run: warmPush(usBusy, stage.say(busy, "fresh")) },
      { name: STALE, role: "us", run: warmPush(usStale, afterTheOwner(stage, stale)) },
      { name: PEER_PLAIN, role: "peer", run: warmPush(them, stage.say(peer, "plain")) },
      { name: PEER_KNOWN, role: "peer", run: warmPush(them, stage.say(peer, "known")) },
      { name: PEER_NEW, role: "peer", run: warmPush(them, stage.say(peer, "fresh")) },
      { name: ONE, role: "limit", run: limitPush(one, stage.say(main, "plain")) },
      { name: TWO, role: "limit", run: limitPush(two, stage.say(main, "known")) }
    ]
    // Whatever runs for the first time does so before anything is measured.
    for (const { run } of [...all, ...all]) yield* Effect.scoped(run)
    return all.map((contestant) => eachTurn(repetitions, "resolvedMillis", contestant))
  })

/** Of three of the round trips that the limit needs two of. */
const beyondRoundTrips =
  (contestant: string): Aim["value"] =>
  (median) =>
    median(contestant, "resolvedMillis") - 3 * median(TWO, "roundTripMillis")

const warm = ({ quick }: Options): Benchmark => {
  const repetitions = quick ? 2 : 100
  return {
    name: "notification-warm",
    title: "A process that has resolved pushes before resolves one",
    how: `From the moment at which a process is told a room's and an event's id until it knows the event's text (resolved). ${COMMON} Ours is \`Twinloop.layerNotifier\` with its \`NotificationClient\`, as the worker of the push gateway has it. Each contestant has a push in each turn; p99 is of all ${repetitions} turns. "Requests until then" counts those that have begun; the last of a new key only acknowledges it, and nobody waits for it. matrix-js-sdk is one process that syncs all the time, since it has no other way to come by keys: it fetches the event by its API, decrypts it, and asks its push rules; its keys are in memory alone, and a second process would have neither keys nor rules. The limit makes that many requests by \`node:http\`, one after the other on one connection, and parses the answers: it decrypts, stores, locks and judges nothing. A round trip is one of those of its two requests, the event's surroundings and a sliding sync.`,
    repetitions,
    contestants: warmContestants(repetitions),
    aims: [
      atMost(`${PLAIN}, beyond 3 round trips`, beyondRoundTrips(PLAIN), 20, "ms"),
      atMost(`${FREE}, beyond 3 round trips`, beyondRoundTrips(FREE), 20, "ms"),
      atMost(`${STALE}, beyond 3 round trips`, beyondRoundTrips(STALE), 20, "ms"),
      atMost(`requests until the text is known, ${FREE}`, of(FREE, "requestsUntilThenCount"), 3, ""),
      atMost(`${FREE}, of the limit's ${TWO}`, ratio(FREE, TWO, "resolvedMillis"), 10, "×"),
      atMost(`${PLAIN}, of the limit's ${ONE}`, ratio(PLAIN, ONE, "resolvedMillis"), 4, "×"),
      atMost(`${PLAIN}, of matrix-js-sdk's`, ratio(PLAIN, PEER_PLAIN, "resolvedMillis"), 4, "×")
    ]
  }
}

/* ---- a process that is started ---- */

/** What is started, and looked into from within. */
interface Started {
  readonly bundle: Child.Bundle
  readonly inspector: Child.Bundle
}

const requireBody = (push: Push, { output }: Node.Run, isRead: boolean): Effect.Effect<void> =>
  !isRead || output.split("\n")[0]?.includes(push.body) === true ? Effect.void : NotifyStage.wrong(push, output)

/** Runs a program with the inspector in it. */
const inspect = Effect.fnUntraced(function* ({ bundle, inspector }: Started, args: ReadonlyArray<string>) {
  const seen = join(yield* Child.temporaryDirectory, "inspection.json")
  const env = { NODE_COMPILE_CACHE: bundle.cache, BENCH_INSPECT: seen }
  yield* Node.node(["--require", inspector.file, bundle.file, ...args], env)
  const { peakMegabytes, processorMillis, requests, requestsUntilLine } = yield* Effect.sync(
    () => JSON.parse(readFileSync(seen, "utf8")) as Inspection
  )
  const figures: Figures = {
    requestsUntilThenCount: requestsUntilLine,
    requestsInAllCount: requests,
    processorMillis,
    peakMegabytes
  }
  return figures
}, Effect.scoped)

/** How a contestant is started for a push. */
interface ColdOptions {
  readonly started: Started
  readonly said: Effect.Effect<Push>
  readonly args: (push: Push) => ReadonlyArray<string>
  readonly under?: ReadonlyArray<string>
  /** Whether it can read what is said. */
  readonly isRead?: boolean
}

/** How often a contestant is looked into beside the run whose time is taken. */
const INSPECTIONS = 5

const coldPush = ({ args, isRead = true, said, started, under = [] }: ColdOptions): Effect.Effect<Figures> => {
  let turn = 0
  const { bundle } = started
  return Effect.gen(function* () {
    const push = yield* said
    const run = yield* Node.node([bundle.file, ...args(push)], { NODE_COMPILE_CACHE: bundle.cache }, under)
    yield* requireBody(push, run, isRead)
    const times: Figures = { shownMillis: run.shownMillis, exitMillis: run.exitMillis }
    return turn++ < INSPECTIONS ? { ...times, ...(yield* inspect(started, args(yield* said))) } : times
  })
}

const coldContestants = (repetitions: number, oneCore: ReadonlyArray<string> | undefined) =>
  Effect.gen(function* () {
    const stage = yield* NotifyStage.open
    const [main, busy, stale, far] = [
      yield* stage.account("main"),
      yield* stage.account("busy"),
      yield* stage.account("stale"),
      yield* stage.account("far", 25)
    ]
    for (const account of [main, stale, far]) yield* NotifyStage.prepareAndEnd(stage, account)
    yield* NotifyStage.prepare(stage, busy)

    const inspector = yield* Child.bundled("contestants/notify/inspect.ts")
    const start = (path: string) => Effect.map(Child.bundled(path), (bundle): Started => ({ bundle, inspector }))
    const ours = yield* start("../packages/platform/src/cli/notify.ts")
    const limit = yield* start("contestants/notify/oneShotLimit.ts")
    const sdk = yield* start("contestants/notify/oneShotJsSdk.ts")

    const us = (name: string, account: Account, said: Effect.Effect<Push>, under: ReadonlyArray<string> = []) => {
      const args = ({ eventId, roomId }: Push) => ["--json", "--database", account.task.database, roomId, eventId]
      const contestant: Contestant = { name, role: "us", run: coldPush({ started: ours, said, args, under }) }
      return contestant
    }
    const least = (name: string, account: Account, requests: 1 | 2): Contestant => ({
      name,
      role: "limit",
      run: coldPush({
        started: limit,
        said: stage.say(account, requests === 1 ? "plain" : "known"),
        args: ({ eventId, roomId }) => [JSON.stringify(account.task), `${requests}`, roomId, eventId],
        isRead: requests === 1
      })
    })
    const them = ({ eventId, roomId }: Push) => [JSON.stringify(main.task), roomId, eventId]
    const fresh = stage.say(main, "fresh")
    const all: ReadonlyArray<Contestant> = [
      // First, since what the first run needs is what the compile cache has.
      us(FREE, main, fresh),
      ...(oneCore === undefined ? [] : [us(ONE_CORE, main, fresh, oneCore)]),
      us(FAR, far, stage.say(far, "fresh")),
      us(PLAIN, main, stage.say(main, "plain")),
      us(KNOWN, main, stage.say(main, "known")),
      us(BUSY, busy, stage.say(busy, "fresh")),
      us(STALE, stale, afterTheOwner(stage, stale)),
      { name: PEER_PLAIN, role: "peer", run: coldPush({ started: sdk, said: stage.say(main, "plain"), args: them }) },
      least(ONE, main, 1),
      least(TWO, main, 2),
      least(TWO_FAR, far, 2)
    ]
    for (const { run } of all) yield* run
    return all.map((contestant) => eachTurn(repetitions, "shownMillis", contestant))
  })

const cold = ({ quick }: Options): Benchmark => {
  const repetitions = quick ? 2 : 50
  const oneCore = Node.oneCore()
  return {
    name: "notification-cold",
    title: "A process that a push starts shows it, and ends",
    how: `From the start of the process, which is given a room's and an event's id, until its line arrives with the text (shown), and until its end (exit). Ours is \`packages/platform/src/cli/notify.ts\` as one CommonJS file with a warm compile cache; so are the others. ${COMMON} Each contestant has a push in each turn; p99 is of all ${repetitions} turns, and so their longest. Requests, processor time (until the line, of all threads) and peak memory (VmHWM) are taken of ${INSPECTIONS} runs more. 50 ms away: what goes to the homeserver and what comes from it takes 25 ms. ${oneCore === undefined ? "There is no taskset here, so that nothing was measured on one core." : "On one core: under `taskset -c 0`."} matrix-js-sdk restores its login and fetches the event, without room, sender or push rules; it can't decrypt, since in Node it keeps its keys in the memory of a process. The limit makes that many requests by \`node:http\` and parses the answers, in a process that does nothing else.`,
    repetitions,
    contestants: coldContestants(repetitions, oneCore),
    aims: [
      atMost(`shown, ${ONE_CORE}`, of(ONE_CORE, "shownMillis"), 350, "ms"),
      atMost(`peak memory, ${FREE}`, of(FREE, "peakMegabytes"), 120, "MB"),
      atMost(`peak memory, ${PLAIN}`, of(PLAIN, "peakMegabytes"), 120, "MB"),
      atMost(
        "shown, what being 50 ms away adds: two round trips",
        (median) => median(FAR, "shownMillis") - median(FREE, "shownMillis"),
        100,
        "ms"
      ),
      atMost(`shown, ${FREE}, of the limit's ${TWO}`, ratio(FREE, TWO, "shownMillis"), 6, "×"),
      atMost(`shown, ${PLAIN}, of the limit's ${ONE}`, ratio(PLAIN, ONE, "shownMillis"), 3, "×"),
      atMost(`shown, ${PLAIN}, of matrix-js-sdk's`, ratio(PLAIN, PEER_PLAIN, "shownMillis"), 1, "×")
    ]
  }
}

export const make: Make = (options) => [warm(options), cold(options)]
