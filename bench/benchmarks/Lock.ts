/**
 * The lock between two processes: handing over, the death and the freezing of a holder, a greedy holder, and doing nothing.
 *
 * Every contestant is a pair of real processes on a database of its own, each of one bundled file (`scripts/bundle.ts`). All
 * times are taken by the processes themselves, on the host's monotonic clock, which they share.
 *
 * Not here: the locks (`contestants/lock`).
 */
import { Effect, Option, Schedule } from "effect"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { DatabaseSync } from "node:sqlite"
import type { Program } from "../../test/processes/Program.ts"
import type { Aim, Benchmark, Contestant, Make, Options } from "../Benchmark.ts"
import * as Child from "../Child.ts"
import { type Figures, nowMillis, quantile } from "../contestants/Figures.ts"
import type { LimitLine, LimitTask } from "../contestants/lock/limit.ts"
import type { LockLine, LockTask, Step, Usage } from "../contestants/lock/LockLine.ts"
import { Seeded } from "../data/Seeded.ts"

type Member = Program<LockLine>
type End = Program<LimitLine>

/** A lock that two processes contend for, as a contestant. */
interface Lock {
  readonly name: string
  readonly role: Contestant["role"]
  /** The program that takes it, in one file, as a URL. */
  readonly file: string
  /** Gives the Unix milliseconds until which the holder of a lock owns it, and who that is. */
  readonly expiry: string
}

/** Makes one file of a program of `contestants/lock`, for as long as the scope is open. Gives its URL. */
const bundled = Effect.fnUntraced(function* (name: string) {
  const outfile = join(yield* Child.temporaryDirectory, `${name}.cjs`)
  const entry = fileURLToPath(new URL(`../contestants/lock/${name}.ts`, import.meta.url))
  // Loaded when it is needed: a bundler is not what a list of benchmarks should wait for.
  const bundler = yield* Effect.promise(() => import("../../scripts/bundle.ts"))
  yield* Effect.promise(() => bundler.bundle(entry, outfile))
  return pathToFileURL(outfile).href
})

const locks = (twinloop: string, rustSdk: string): ReadonlyArray<Lock> => [
  {
    name: "twinloop",
    role: "us",
    file: twinloop,
    expiry: `SELECT holder, expires_at_millis AS expiry FROM lease WHERE name = ?`
  },
  {
    name: "matrix-rust-sdk's algorithm",
    role: "peer",
    file: rustSdk,
    expiry: `SELECT holder, expiration AS expiry FROM lease_locks WHERE key = ?`
  }
]

/** The lock's name, where there is one. */
const NAME = "stream"

/** The peer waits for up to 82 s, if it has to. */
const LIMIT_MILLIS = 90_000

const isReady = (line: LockLine | LimitLine): boolean => line.event === "ready"

const isStep = (line: LockLine): line is Step =>
  line.event === "asked" || line.event === "taken" || line.event === "released"

/** A process that contends for locks. */
const member = Effect.fnUntraced(function* (lock: Lock, database: string, config: LockTask["config"] = {}) {
  const task: LockTask = { database, config }
  const program = yield* Child.start<LockLine>(lock.file, task)
  yield* program.until("get ready", isReady)
  return program
})

/** Two of them. The first one makes the database. */
const pair = Effect.fnUntraced(function* (lock: Lock, config: LockTask["config"] = {}) {
  const database = yield* Child.newDatabase
  const first = yield* member(lock, database, config)
  return { database, members: [first, yield* member(lock, database, config)] as const }
})

/** Two processes with a socket between them; the first one listens. */
const ends = Effect.fnUntraced(function* (file: string) {
  const path = join(yield* Child.temporaryDirectory, "socket")
  const start = Effect.fnUntraced(function* (end: LimitTask["end"]) {
    const program = yield* Child.start<LimitLine>(file, {
      end,
      socket: path
    } satisfies LimitTask)
    yield* program.until("get ready", isReady)
    return program
  })
  return [yield* start("listens"), yield* start("connects")] as const
})

/** A step of a process, once it has said it. */
const untilStep = (program: Member, event: Step["event"], name: string, turn: number, since = 0) =>
  Effect.map(
    program.until(
      `have ${event} "${name}"`,
      (line) => isStep(line) && line.event === event && line.name === name && line.turn === turn,
      { since, limitMillis: LIMIT_MILLIS }
    ),
    // It is what was accepted.
    ({ line, next }) => ({ step: line as Step, next })
  )

const stepsOf = (members: ReadonlyArray<Member>) =>
  Effect.map(
    Effect.forEach(members, (member) => member.lines),
    (lines) => lines.flat().filter(isStep)
  )

/** What the holds of different members look like side by side: taken, released, taken, released. */
const holdsOf = (steps: ReadonlyArray<Step>, name: string): ReadonlyArray<Step> =>
  steps.filter((step) => step.name === name && step.event !== "asked").sort((a, b) => a.atMillis - b.atMillis)

/** Dies unless every hold of a lock ended before the next one began, up to the last one that ended. */
const assertExclusive = (holds: ReadonlyArray<Step>): Effect.Effect<void> => {
  const ended = holds.slice(0, holds.findLastIndex(({ event }) => event === "released") + 1)
  const wrong = ended.findIndex(({ event }, index) => event !== (index % 2 === 0 ? "taken" : "released"))
  return wrong < 0
    ? Effect.void
    : Effect.die(new Error(`two processes held a lock at once: ${JSON.stringify(holds.slice(wrong - 1, wrong + 2))}`))
}

interface Limit {
  readonly name: string
  /** Takes the file of the limits' program. */
  readonly run: (file: string) => Contestant["run"]
}

const contestantsOf = (ofLock: (lock: Lock) => Contestant["run"], limit?: Limit): Benchmark["contestants"] =>
  Effect.gen(function* () {
    const all = locks(yield* bundled("twinloop"), yield* bundled("rustSdk"))
    const contestants = all.map((lock): Contestant => ({ name: lock.name, role: lock.role, run: ofLock(lock) }))
    if (limit === undefined) return contestants
    return [...contestants, { name: limit.name, role: "limit", run: limit.run(yield* bundled("limit")) }]
  })

const ofUs = (what: string, figure: string, unit: string, bound: number): Aim => ({
  what,
  value: (median) => median("us", figure),
  is: "at most",
  bound,
  unit
})

const faster = (figure: string, bound: number): Aim => ({
  what: "p50, faster than matrix-rust-sdk's algorithm",
  value: (median) => median("peer", figure) / median("us", figure),
  is: "at least",
  bound,
  unit: "×"
})

/** p50 and the longest of a list of times. */
const middleAndMax = (what: string, took: ReadonlyArray<number>): Figures => ({
  [`${what}P50Millis`]: quantile(took, 0.5),
  [`${what}MaxMillis`]: Math.max(...took)
})

/* ---- handing over ---- */

interface Turns {
  /** Locks that are contended for at the same time. */
  readonly names: number
  readonly turns: number
  readonly longestHoldMillis: number
}

const SHORTEST_HOLD_MILLIS = 100

/** Turns at each lock that aren't counted, so that what is measured is not the compiler. */
const WARM_UP_TURNS = 2

/** The members take turns at one lock; each asks as soon as the other one holds it. */
const contend = Effect.fnUntraced(function* (
  members: readonly [Member, Member],
  name: string,
  { longestHoldMillis, turns }: Turns
) {
  const seeded = new Seeded(Child.SEED)
  const since = [0, 0]
  const all = WARM_UP_TURNS + turns
  for (let turn = 0; turn < all; turn++) {
    const index = turn % 2
    const member = members[index]!
    yield* member.send(
      `turn ${name} ${turn} ${SHORTEST_HOLD_MILLIS + seeded.int(longestHoldMillis - SHORTEST_HOLD_MILLIS)}`
    )
    since[index] = (yield* untilStep(member, "taken", name, turn, since[index])).next
  }
  yield* untilStep(members[(all - 1) % 2]!, "released", name, all - 1)
})

/** From just before each release to the grant of who waited for it. */
const handoversOf = (steps: ReadonlyArray<Step>, name: string): ReadonlyArray<number> =>
  holdsOf(steps, name).flatMap((step, index, holds) => {
    const released = holds[index - 1]
    if (step.event !== "taken" || released === undefined || step.turn < WARM_UP_TURNS) return []
    const asked = steps.find((other) => other.event === "asked" && other.name === name && other.turn === step.turn)
    return asked !== undefined && asked.atMillis < released.atMillis ? [step.atMillis - released.atMillis] : []
  })

const handOver = (turns: Turns) => (lock: Lock) =>
  Effect.gen(function* () {
    const { members } = yield* pair(lock)
    const names = Array.from({ length: turns.names }, (_, index) => `${NAME}-${index}`)
    yield* Effect.forEach(names, (name) => contend(members, name, turns), { concurrency: "unbounded" })
    const steps = yield* stepsOf(members)
    for (const name of names) yield* assertExclusive(holdsOf(steps, name))
    const took = names.flatMap((name) => handoversOf(steps, name))
    return {
      ...middleAndMax("handover", took),
      handoverP99Millis: quantile(took, 0.99),
      handoversCount: took.length
    }
  })

const wakeUps = Effect.fnUntraced(function* (file: string, count: number) {
  const [sender, receiver] = yield* ends(file)
  yield* sender.send(`wake ${count} ${Child.SEED}`)
  const times = (end: End, event: "sent" | "woken") =>
    Effect.map(end.lines, (lines) => lines.flatMap((line) => (line.event === event ? [line.atMillis] : [])))
  const untilAll = (end: End, event: "sent" | "woken") => {
    let seen = 0
    return end.until(`have ${event} ${count} bytes`, (line) => line.event === event && ++seen === count)
  }
  yield* untilAll(sender, "sent")
  yield* untilAll(receiver, "woken")
  const sent = yield* times(sender, "sent")
  const took = (yield* times(receiver, "woken")).map((atMillis, index) => atMillis - sent[index]!)
  return { ...middleAndMax("handover", took), handoverP99Millis: quantile(took, 0.99), handoversCount: took.length }
})

const handover = ({ quick }: Options): Benchmark => {
  const turns: Turns = quick
    ? { names: 4, turns: 4, longestHoldMillis: 300 }
    : { names: 16, turns: 8, longestHoldMillis: 2_000 }
  return {
    name: "lock-handover",
    title: "The lock, hand-over after release",
    how: `From just before the release to the grant of the process that waits. Two processes take turns at ${turns.names} locks at once, the first ${WARM_UP_TURNS} of which at each aren't counted, and hold it for a random time of ${SHORTEST_HOLD_MILLIS} to ${turns.longestHoldMillis} ms. The peer is matrix-rust-sdk's algorithm, written again from its description with its constants; its figure grows with the time that a lock is held, which is up to 30 s for a long poll. The limit is one byte through a socket between two idle processes.`,
    repetitions: quick ? 1 : 3,
    contestants: contestantsOf(handOver(turns), {
      name: "a byte through a socket",
      run: (file) => wakeUps(file, quick ? 10 : 100)
    }),
    aims: [
      ofUs("hand-over p50", "handoverP50Millis", "ms", 1),
      ofUs("hand-over p99", "handoverP99Millis", "ms", 3),
      faster("handoverP50Millis", 500)
    ]
  }
}

/* ---- a holder that dies, or freezes ---- */

/** How a holder is brought down, and what is measured of the next one's grant. */
type Fell = (holder: Member, database: string) => Effect.Effect<(grant: Step) => number>

/**
 * Brings down holder after holder, and gives what was measured of each: the one that waited holds next. Every waiter has
 * waited for a random time before.
 */
const fell = Effect.fnUntraced(function* (lock: Lock, config: LockTask["config"], rounds: number, how: Fell) {
  const database = yield* Child.newDatabase
  const seeded = new Seeded(Child.SEED)
  let holder = yield* member(lock, database, config)
  yield* holder.send(`turn ${NAME} 0`)
  yield* untilStep(holder, "taken", NAME, 0)
  const measured: Array<number> = []
  for (let round = 1; round <= rounds; round++) {
    const waiter = yield* member(lock, database, config)
    yield* waiter.send(`turn ${NAME} ${round}`)
    yield* untilStep(waiter, "asked", NAME, round)
    yield* Effect.sleep(100 + seeded.int(500))
    const before = nowMillis()
    const measure = yield* how(holder, database)
    const { step } = yield* untilStep(waiter, "taken", NAME, round)
    if (step.atMillis < before) return yield* Effect.die(new Error("two processes held a lock at once"))
    measured.push(measure(step))
    yield* holder.signal("SIGKILL")
    holder = waiter
  }
  return measured
})

const kill: Fell = (holder) =>
  Effect.gen(function* () {
    const killedAt = nowMillis()
    yield* holder.signal("SIGKILL")
    return ({ atMillis }) => atMillis - killedAt
  })

const teardowns = Effect.fnUntraced(function* (file: string, rounds: number) {
  const took: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    const [dying, watching] = yield* ends(file)
    const killedAt = nowMillis()
    yield* dying.signal("SIGKILL")
    const { line } = yield* watching.until("see the end", (line) => line.event === "ended")
    if (line.event === "ended") took.push(line.atMillis - killedAt)
  }
  return middleAndMax("takeover", took)
})

const killed = ({ quick }: Options): Benchmark => {
  const rounds = quick ? 2 : 6
  return {
    name: "lock-kill",
    title: "The lock, take-over after SIGKILL of the holder",
    how: "From just before SIGKILL of the holder to the grant of the process that has waited for 100 to 600 ms; it is killed next. The limit is a process with nothing loaded: from its SIGKILL until another one sees the end of the socket between them.",
    repetitions: quick ? 1 : 3,
    contestants: contestantsOf(
      (lock) => Effect.map(fell(lock, {}, rounds, kill), (took) => middleAndMax("takeover", took)),
      {
        name: "the end of a socket",
        run: (file) => teardowns(file, rounds)
      }
    ),
    aims: [ofUs("take-over p50", "takeoverP50Millis", "ms", 10), faster("takeoverP50Millis", 100)]
  }
}

/** A shorter lease than the default of 10 s, so that it takes no minute. */
const SHORT = { leaseMillis: 1_500, renewMillis: 400 }

interface Owner {
  readonly holder: string
  readonly expiry: number
}

/** The end of the last lease that a stopped holder had: its row is looked at until it is another's. */
const freeze =
  (lock: Lock): Fell =>
  (holder, database) =>
    Effect.gen(function* () {
      const db = new DatabaseSync(database, { readOnly: true, timeout: 1_000 })
      yield* Effect.addFinalizer(() => Effect.sync(() => db.close()))
      const statement = db.prepare(lock.expiry)
      const look = Effect.sync(() => statement.get(NAME) as unknown as Owner)
      const stopped = (yield* look).holder
      yield* holder.signal("SIGSTOP")
      let end = 0
      yield* Effect.repeat(look, {
        until: (owner) => {
          if (owner.holder === stopped) end = owner.expiry
          return owner.holder !== stopped
        },
        schedule: Schedule.spaced("20 millis")
      }).pipe(
        Effect.timeoutOrElse({ duration: LIMIT_MILLIS, orElse: () => Effect.die(new Error("nobody took the lock")) })
      )
      return ({ atUnixMillis }: Step) => atUnixMillis - end
    }).pipe(Effect.scoped)

const timers = Effect.fnUntraced(function* (file: string, rounds: number) {
  const [timer] = yield* ends(file)
  const late: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    yield* timer.send(`timer ${SHORT.leaseMillis}`)
    const { line } = yield* timer.until("ring", (line) => line.event === "rang", { since: yield* timer.said })
    if (line.event === "rang") late.push(line.lateMillis)
  }
  return middleAndMax("beyondLease", late)
})

const frozen = ({ quick }: Options): Benchmark => {
  const rounds = quick ? 1 : 3
  return {
    name: "lock-frozen",
    title: "The lock, take-over after SIGSTOP of the holder",
    how: `How long after the end of the stopped holder's lease the waiting process has its grant. A lease lasts ${SHORT.leaseMillis} ms here (by default 10 s) and is renewed every ${SHORT.renewMillis} ms; the peer's lasts 500 ms. The limit is how late a timer is that was set for that moment.`,
    repetitions: quick ? 1 : 3,
    contestants: contestantsOf(
      (lock) => Effect.map(fell(lock, SHORT, rounds, freeze(lock)), (took) => middleAndMax("beyondLease", took)),
      { name: "a timer", run: (file) => timers(file, rounds) }
    ),
    aims: [
      ofUs("beyond the lease, p50", "beyondLeaseP50Millis", "ms", 10),
      ofUs("beyond the lease, at most", "beyondLeaseMaxMillis", "ms", 10)
    ]
  }
}

/* ---- a greedy holder ---- */

/** Asks while the holder works; gives how many releases passed, or `None` when it was not served in time. */
const askOnce = Effect.fnUntraced(function* (
  [greedy, waiter]: readonly [Member, Member],
  turn: number,
  capMillis: number
) {
  // Right after the holder has taken it: a release at the very moment of asking would say nothing.
  yield* greedy.until("take it again", (line) => line.event === "taken", { since: yield* greedy.said })
  yield* waiter.send(`turn ${NAME} ${turn} 20`)
  const asked = (yield* untilStep(waiter, "asked", NAME, turn)).step.atMillis
  const taken = yield* Effect.timeoutOption(untilStep(waiter, "taken", NAME, turn), capMillis)
  const waitedUntil = Option.match(taken, { onNone: () => asked + capMillis, onSome: ({ step }) => step.atMillis })
  // Its own release comes later, and is said later, than all that is counted.
  if (Option.isSome(taken)) yield* untilStep(waiter, "released", NAME, turn)
  const releases = (yield* stepsOf([greedy])).filter(
    ({ atMillis, event }) => event === "released" && atMillis >= asked && atMillis <= waitedUntil
  )
  return { served: Option.isSome(taken), releases: releases.length, waitedMillis: waitedUntil - asked }
})

const beGreedy = (rounds: number, capMillis: number) => (lock: Lock) =>
  Effect.gen(function* () {
    const { members } = yield* pair(lock)
    yield* members[0].send(`greedy ${NAME} ${Child.SEED}`)
    const asks: Array<Effect.Success<ReturnType<typeof askOnce>>> = []
    do asks.push(yield* askOnce(members, asks.length, capMillis))
    while (asks.at(-1)!.served && asks.length < rounds)
    yield* assertExclusive(holdsOf(yield* stepsOf(members), NAME))
    return {
      askedCount: asks.length,
      servedCount: asks.filter(({ served }) => served).length,
      releasesWaitedMaxCount: Math.max(...asks.map(({ releases }) => releases)),
      waitedMaxMillis: Math.max(...asks.map(({ waitedMillis }) => waitedMillis))
    }
  })

const greedy = ({ quick }: Options): Benchmark => {
  const capMillis = quick ? 3_000 : 25_000
  return {
    name: "lock-greedy",
    title: "The lock, beside a greedy holder",
    how: `One process holds the lock for 100 to 1,000 ms, releases it, and takes it again at once; the other one asks for it again and again. How many releases it had to wait for, and how long, at most. Whoever isn't served within ${capMillis / 1_000} s is given up.`,
    repetitions: 1,
    contestants: contestantsOf(beGreedy(quick ? 3 : 12, capMillis)),
    aims: [ofUs("releases until served, at most", "releasesWaitedMaxCount", "", 1)]
  }
}

/* ---- doing nothing ---- */

const usageOf = <Line extends LockLine | LimitLine>(program: Program<Line>) =>
  Effect.gen(function* () {
    const since = yield* program.said
    yield* program.send("usage")
    const { line } = yield* program.until("say what it used", (line) => line.event === "usage", { since })
    return line as Usage
  })

/** Counts the commits of others, as far as they are 5 ms apart, until the scope closes. */
const countCommits = Effect.fnUntraced(function* (database: string) {
  const db = new DatabaseSync(database, { timeout: 1_000 })
  yield* Effect.addFinalizer(() => Effect.sync(() => db.close()))
  const statement = db.prepare("PRAGMA data_version")
  const version = (): unknown => statement.get()?.["data_version"]
  let last = version()
  let commits = 0
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      setInterval(() => {
        const next = version()
        if (next !== last) commits++
        last = next
      }, 5)
    ),
    (timer) => Effect.sync(() => clearInterval(timer))
  )
  return () => commits
})

interface Idle {
  readonly settleMillis: number
  readonly idleMillis: number
}

/** What two processes use of a processor, in percent of one, while they do nothing. */
const usedBy = <Line extends LockLine | LimitLine>(
  [holder, waiter]: readonly [Program<Line>, Program<Line>],
  idleMillis: number
) =>
  Effect.gen(function* () {
    const before = yield* Effect.all([usageOf(holder), usageOf(waiter)])
    yield* Effect.sleep(idleMillis)
    const after = yield* Effect.all([usageOf(holder), usageOf(waiter)])
    const [ofHolder = 0, ofWaiter = 0] = after.map(
      ({ atMillis, cpuMillis }, index) =>
        (100 * (cpuMillis - before[index]!.cpuMillis)) / (atMillis - before[index]!.atMillis)
    )
    return { holderPercent: ofHolder, waiterPercent: ofWaiter, bothPercent: ofHolder + ofWaiter }
  })

const beIdle =
  ({ idleMillis, settleMillis }: Idle) =>
  (lock: Lock) =>
    Effect.gen(function* () {
      const { database, members } = yield* pair(lock)
      const [holder, waiter] = members
      yield* holder.send(`turn ${NAME} 0`)
      yield* untilStep(holder, "taken", NAME, 0)
      yield* waiter.send(`turn ${NAME} 1`)
      yield* untilStep(waiter, "asked", NAME, 1)
      yield* Effect.sleep(settleMillis)
      const commits = yield* countCommits(database)
      const used = yield* usedBy(members, idleMillis)
      return { ...used, writesPerSecond: (commits() * 1_000) / idleMillis }
    })

const nothing = ({ idleMillis, settleMillis }: Idle, file: string) =>
  Effect.gen(function* () {
    const pair = yield* ends(file)
    yield* Effect.sleep(settleMillis)
    return { ...(yield* usedBy(pair, idleMillis)), writesPerSecond: 0 }
  })

const idle = ({ quick }: Options): Benchmark => {
  const times: Idle = quick ? { settleMillis: 500, idleMillis: 2_000 } : { settleMillis: 1_500, idleMillis: 8_000 }
  return {
    name: "lock-idle",
    title: "The lock, while one process holds it and another one waits",
    how: `Processor time of both processes, in percent of one core, and commits to the database, seen by a third connection that looks every 5 ms, over ${times.idleMillis / 1_000} s. The limit is two processes with a socket between them that do nothing.`,
    repetitions: quick ? 1 : 2,
    contestants: contestantsOf(beIdle(times), { name: "two idle processes", run: (file) => nothing(times, file) }),
    aims: [
      ofUs("processor time of both", "bothPercent", "%", 0.1),
      ofUs("commits per second", "writesPerSecond", "/s", 0.5)
    ]
  }
}

export const make: Make = (options) => [handover, killed, frozen, greedy, idle].map((benchmark) => benchmark(options))
