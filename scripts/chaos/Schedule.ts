/**
 * What is done to the processes, and when: a pure function of the seed, the minutes, and whether the disk can be filled.
 *
 * A lane is a thing that has one trouble at a time: a process, the network, the disk. Lanes run beside each other, so troubles of
 * different lanes meet. Each lane has a chance of its own from the seed. It deals its kinds of trouble from a deck, so that each
 * kind comes before one comes again.
 *
 * Not here: doing it (`Faults.ts`).
 */
import { Effect, Random } from "effect"

/** Who or what is in trouble; `worker` is the process that shows notifications, if there is one just then, `push` the daemon and the way to it. */
export type Lane = "main" | "standby" | "push" | "worker" | "network" | "disk"

/**
 * - `Kill`: SIGKILL; a new process comes after the time. It is killed as the database is written, a worker as it shows something,
 *   and the push daemon `amount` milliseconds after the homeserver began to push to it.
 * - `Stop`: SIGSTOP; SIGCONT after the time. It is stopped `amount` milliseconds after an answer of the homeserver, while it is at
 *   work on that.
 * - `Suspend`: over the control socket; resumed after the time.
 * - `Cut`: the homeserver refuses connections, and ends those that there are.
 * - `Lose`: what is asked is done, and the answer never comes: the connection ends instead.
 * - `Slow`: each piece between the homeserver and the processes waits `amount` milliseconds.
 * - `Full`: the disk has room for `amount` bytes, and no more.
 */
export type Fault = "Kill" | "Stop" | "Suspend" | "Cut" | "Lose" | "Slow" | "Full"

export interface Step {
  /** Since the beginning, in milliseconds. */
  readonly atMillis: number
  readonly lane: Lane
  readonly fault: Fault
  /** How long it lasts. */
  readonly millis: number
  /** Milliseconds of `Kill`, `Stop` and `Slow`, bytes of `Full`; 0 for the others. */
  readonly amount: number
}

export interface Options {
  readonly seed: number
  readonly minutes: number
  readonly canFill: boolean
}

type Range = readonly [least: number, most: number]

interface Measure {
  readonly millis: Range
  /** One in three is as long as that. */
  readonly long?: Range
  readonly amount?: Range
}

/** A long stop is longer than a lease: another process takes over, and the one before goes on where it was. */
const faults: { readonly [fault in Fault]: Measure } = {
  Kill: { millis: [1, 4_000], amount: [1, 30] },
  Stop: { millis: [50, 4_000], long: [10_200, 14_000], amount: [1, 15] },
  Suspend: { millis: [100, 5_000] },
  Cut: { millis: [200, 6_000] },
  Lose: { millis: [200, 3_000] },
  Slow: { millis: [500, 6_000], amount: [10, 700] },
  Full: { millis: [300, 5_000], amount: [1, 262_144] }
}

const lanes: { readonly [lane in Lane]: { readonly faults: ReadonlyArray<Fault>; readonly pause: Range } } = {
  main: { faults: ["Kill", "Stop", "Suspend"], pause: [200, 8_000] },
  standby: { faults: ["Kill", "Stop", "Suspend"], pause: [200, 8_000] },
  push: { faults: ["Kill", "Stop", "Lose"], pause: [800, 8_000] },
  worker: { faults: ["Kill", "Stop"], pause: [300, 3_000] },
  network: { faults: ["Cut", "Lose", "Slow"], pause: [1_000, 8_000] },
  disk: { faults: ["Full"], pause: [2_000, 15_000] }
}

export const laneNames = Object.keys(lanes) as ReadonlyArray<Lane>

/** Between two bounds, short ones as often as long ones are rare: evenly on the scale of the logarithm. */
const between = ([least, most]: Range): Effect.Effect<number> =>
  Effect.map(Random.next, (random) => Math.round(least * (most / least) ** random))

const lengthOf = ({ long, millis }: Measure): Effect.Effect<number> =>
  Effect.flatMap(Random.next, (random) => between(random < 1 / 3 ? (long ?? millis) : millis))

const stepsOf = Effect.fnUntraced(function* (lane: Lane, endMillis: number) {
  const steps: Array<Step> = []
  let deck: Array<Fault> = []
  let atMillis = 0
  while (true) {
    atMillis += yield* between(lanes[lane].pause)
    if (deck.length === 0) deck = yield* Random.shuffle(lanes[lane].faults)
    const fault = deck.pop()!
    const { amount } = faults[fault]
    const step: Step = {
      atMillis,
      lane,
      fault,
      millis: yield* lengthOf(faults[fault]),
      amount: amount === undefined ? 0 : yield* between(amount)
    }
    atMillis += step.millis
    if (atMillis > endMillis) return steps
    steps.push(step)
  }
})

/** The steps of all lanes, by time. */
export const make = ({ canFill, minutes, seed }: Options): ReadonlyArray<Step> => {
  const names = laneNames.filter((lane) => lane !== "disk" || canFill)
  return names
    .flatMap((lane) => Effect.runSync(Random.withSeed(stepsOf(lane, minutes * 60_000), `chaos ${seed} ${lane}`)))
    .sort((one, other) => one.atMillis - other.atMillis)
}

const words: { readonly [fault in Fault]: string } = {
  Kill: "killed, and away",
  Stop: "stopped",
  Suspend: "suspended",
  Cut: "cut off from the homeserver",
  Lose: "losing answers",
  Slow: "slow",
  Full: "full"
}

/** A step for people. */
export const describe = ({ amount, atMillis, fault, lane, millis }: Step): string => {
  const more = fault === "Slow" ? `, ${amount} ms a piece` : fault === "Full" ? `, ${amount} bytes free` : ""
  return `(at ${(atMillis / 1_000).toFixed(1)} s) ${lane} is ${words[fault]} for ${millis} ms${more}`
}
