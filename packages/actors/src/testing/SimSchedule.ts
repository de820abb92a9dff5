/**
 * The story that a simulation plays: a list of timed steps, a pure value that is drawn from a seed, written as JSON, and cut
 * down while it still fails.
 *
 * Includes everything that can happen to an account whose processes are an application, a second one that stands by, and
 * short-lived ones that pushes start.
 *
 * Invariants: I8 (the same seed gives the same schedule).
 *
 * Gotchas: times are absolute, so that leaving a step out moves no other. A step that makes no sense where it stands (to
 * thaw who isn't frozen) does nothing.
 *
 * Not here: what the steps do (`SimSteps.ts`).
 */
import { Effect, Random, Schema } from "effect"

const Who = Schema.Literals(["app", "standby"])
/** A process whose loops run. */
export type Who = typeof Who.Type

const Millis = Schema.Finite
const Moment = Schema.Literals(["before", "after"])

const STORE_OPERATIONS = [
  "commitExtension",
  "commitMain",
  "commitCrypto",
  "extensionPosition",
  "mainPosition",
  "loadMain",
  "expireExtension",
  "expireMain",
  "advanceInbox",
  "readInbox"
] as const
/** Commits that are conditional on the position that was sent, so that a second one must be refused. */
const CONDITIONAL = ["commitExtension", "commitMain"] as const
const LEASE_OPERATIONS = ["take", "renew", "release", "leave"] as const
const Operation = Schema.Literals([...STORE_OPERATIONS, ...LEASE_OPERATIONS])
/** A call of the store or of the lease store. */
export type Operation = typeof Operation.Type

const Connection = Schema.Literals(["main", "extension", "push", "other"])
/** Which requests: of the main loop, the extension loop, a notification's sync, or any that isn't a sync. */
export type Connection = typeof Connection.Type

const HttpFault = Schema.Union([
  /** The homeserver never sees it. */
  Schema.TaggedStruct("LostRequest", {}),
  /** The homeserver does it, and the answer is lost; `502` when a proxy says so. */
  Schema.TaggedStruct("LostAnswer", { isProxy: Schema.Boolean }),
  /** The answer comes so much later. */
  Schema.TaggedStruct("LateAnswer", { millis: Millis }),
  /** The request arrives so much later, when the client has long given it up and asked anew. */
  Schema.TaggedStruct("LateRequest", { millis: Millis }),
  /** It arrives twice, and the second one is answered. */
  Schema.TaggedStruct("Twice", {}),
  /** No answer until the client's own limit. */
  Schema.TaggedStruct("Hang", {}),
  /** Refused with this status; 200 is a body that is no JSON. 429 asks to wait for `retryAfterMillis`. */
  Schema.TaggedStruct("Refused", { status: Schema.Finite, retryAfterMillis: Millis }),
  /** The process is killed before it asks, or when the homeserver has done what was asked. */
  Schema.TaggedStruct("Killed", { moment: Moment })
])
/** What happens to a request. */
export type HttpFault = typeof HttpFault.Type

const StoreFault = Schema.Literals(["busy", "full", "readOnly", "failing"])
/** Why the disk refuses. `readOnly` and `failing` end a loop for good, until it is started again. */
export type StoreFault = typeof StoreFault.Type

const Action = Schema.Union([
  // What others do.
  Schema.TaggedStruct("ToDevice", { count: Schema.Finite }),
  Schema.TaggedStruct("MalformedToDevice", {}),
  Schema.TaggedStruct("Message", { room: Schema.Finite, isMalformed: Schema.Boolean }),
  Schema.TaggedStruct("NewRoom", {}),
  Schema.TaggedStruct("Typing", { room: Schema.Finite }),
  /** An encrypted message. Its key comes so much later, or first; a new one also when there is none yet. */
  Schema.TaggedStruct("Secret", { room: Schema.Finite, isNewKey: Schema.Boolean, keyMillis: Millis }),
  /** A message of which there is a push; in an encrypted room under a new key, which comes after `padding` to-device messages. */
  Schema.TaggedStruct("Push", {
    room: Schema.Finite,
    padding: Schema.Finite,
    keyMillis: Millis,
    /** Who resolves it: a process of its own also when the named one doesn't run. */
    by: Schema.Literals(["notifier", "app", "standby"])
  }),
  /** A to-device message that was sent is sent once more. */
  Schema.TaggedStruct("RepeatToDevice", {}),
  Schema.TaggedStruct("HoldToDevice", { millis: Millis }),
  // What the user and the platform do.
  Schema.TaggedStruct("Window", { who: Who, last: Schema.Finite }),
  Schema.TaggedStruct("Open", { who: Who, room: Schema.Finite }),
  Schema.TaggedStruct("Send", { who: Who, room: Schema.Finite }),
  Schema.TaggedStruct("Suspend", { who: Who }),
  Schema.TaggedStruct("Resume", { who: Who }),
  Schema.TaggedStruct("Stop", { who: Who }),
  Schema.TaggedStruct("StartLoops", { who: Who }),
  Schema.TaggedStruct("ExpireSessions", { who: Who }),
  // What happens to processes.
  Schema.TaggedStruct("Kill", { who: Who }),
  Schema.TaggedStruct("Run", { who: Who }),
  Schema.TaggedStruct("Freeze", { who: Who }),
  Schema.TaggedStruct("Thaw", { who: Who }),
  Schema.TaggedStruct("KillAt", { who: Who, operation: Operation, moment: Moment }),
  Schema.TaggedStruct("FreezeAt", { who: Who, operation: Operation, moment: Moment, millis: Millis }),
  /** The clock of one process alone, which no host does, and which must not do harm all the same. */
  Schema.TaggedStruct("SkewClock", { who: Who, millis: Millis }),
  /** The clock of the host. */
  Schema.TaggedStruct("StepClock", { millis: Millis }),
  Schema.TaggedStruct("Notifier", {
    which: Schema.Finite,
    what: Schema.Literals(["kill", "freeze", "thaw", "interrupt", "end"])
  }),
  Schema.TaggedStruct("KillNextNotifierAt", { operation: Operation, moment: Moment }),
  // What happens to the disk, the network, the homeserver and the signals.
  Schema.TaggedStruct("StoreFails", { who: Who, operation: Operation, moment: Moment, fault: StoreFault }),
  Schema.TaggedStruct("StoreWaits", { who: Who, operation: Operation, moment: Moment, millis: Millis }),
  Schema.TaggedStruct("StoreTwice", { who: Who, operation: Schema.Literals(CONDITIONAL) }),
  Schema.TaggedStruct("DiskFull", { millis: Millis }),
  Schema.TaggedStruct("DiskFails", { millis: Millis }),
  Schema.TaggedStruct("Http", { who: Who, connection: Connection, times: Schema.Finite, fault: HttpFault }),
  Schema.TaggedStruct("Outage", { millis: Millis }),
  Schema.TaggedStruct("ExpirePositions", { connection: Schema.Literals(["all", "main", "extension"]) }),
  Schema.TaggedStruct("ExpireToken", {}),
  Schema.TaggedStruct("Signals", { who: Who, millis: Millis, fault: Schema.Literals(["lost", "late", "twice"]) })
])
/** One thing that happens. */
export type Action = typeof Action.Type

const Step = Schema.Struct({ atMillis: Millis, action: Action, yields: Schema.Finite })
/**
 * One thing that happens, and when: milliseconds after the beginning. `yields` is how often everybody may go on before the
 * next thing happens at the same millisecond: with few, it happens in the middle of something.
 */
export type Step = typeof Step.Type

/** A story. `seed` is also that of every chance in the processes; steps ascend in time. */
export const Schedule = Schema.Struct({ seed: Schema.Finite, steps: Schema.Array(Step) })
export type Schedule = typeof Schedule.Type

/** A schedule's JSON text, as regression files have it. */
export const ScheduleJson = Schema.fromJsonString(Schedule)

/** After so many yields nothing goes on without time passing, as a rule. */
export const SETTLED = 60

// --- drawing

type Draw<A> = Effect.Effect<A>

const oneOf = <A>(...values: readonly [A, ...ReadonlyArray<A>]): Draw<A> =>
  Effect.map(Random.nextIntBetween(0, values.length), (index) => values[index] ?? values[0])
const upTo = (most: number, least = 0): Draw<number> => Random.nextIntBetween(least, most + 1)
const who = oneOf<Who>("app", "app", "standby")
const moment = oneOf<"before" | "after">("before", "after")
const shortMillis = oneOf(1, 20, 400, 3_000, 12_000)
const keyMillis = oneOf(0, 0, 0, 300, 5_000, 60_000)
const clockMillis = oneOf(-86_400_000, -15_000, -2_000, 2_000, 15_000, 86_400_000)
const storeOperation = oneOf<Operation>(
  "commitExtension",
  "commitExtension",
  "commitMain",
  "extensionPosition",
  ...STORE_OPERATIONS
)
const operation = oneOf<Operation>(
  "commitExtension",
  "commitExtension",
  "commitExtension",
  "commitMain",
  "commitMain",
  "extensionPosition",
  "renew",
  ...STORE_OPERATIONS,
  ...LEASE_OPERATIONS,
  ...LEASE_OPERATIONS
)

const refused: Draw<HttpFault> = Effect.map(
  Effect.all([oneOf(200, 400, 401, 403, 404, 429, 429, 500, 502, 503, 504), oneOf(0, 1_000, 20_000, 400_000)]),
  ([status, retryAfterMillis]) => ({ _tag: "Refused", status, retryAfterMillis })
)
const httpFault: Draw<HttpFault> = Effect.flatten(
  oneOf<Draw<HttpFault>>(
    Effect.succeed({ _tag: "LostRequest" }),
    Effect.map(oneOf(true, false), (isProxy) => ({ _tag: "LostAnswer", isProxy })),
    Effect.map(oneOf(10, 700, 9_000, 45_000), (millis) => ({ _tag: "LateAnswer", millis })),
    Effect.map(oneOf(0, 300, 5_000, 40_000), (millis) => ({ _tag: "LateRequest", millis })),
    Effect.succeed({ _tag: "Twice" }),
    Effect.succeed({ _tag: "Hang" }),
    Effect.map(moment, (at) => ({ _tag: "Killed", moment: at })),
    refused,
    refused,
    refused
  )
)

const constant = <const A>(value: A): Draw<A> => Effect.succeed(value)
type Of<Tag extends Action["_tag"]> = Extract<Action, { readonly _tag: Tag }>
const make = <Tag extends Action["_tag"]>(
  _tag: Tag,
  fields: { readonly [K in Exclude<keyof Of<Tag>, "_tag">]: Draw<Of<Tag>[K]> }
): Draw<Action> => {
  const drawn: Draw<object> = Effect.all(fields as { readonly [name: string]: Draw<unknown> })
  return Effect.map(drawn, (values) => ({ _tag, ...values }) as Action)
}

/** What can happen, each with its weight. */
const kinds: ReadonlyArray<readonly [weight: number, action: Draw<Action>]> = [
  [8, make("ToDevice", { count: oneOf(1, 3, 20, 99, 150) })],
  [1, make("MalformedToDevice", {})],
  [5, make("Message", { room: upTo(7), isMalformed: Effect.map(upTo(9), (n) => n === 0) })],
  [1, make("NewRoom", {})],
  [1, make("Typing", { room: upTo(7) })],
  [4, make("Secret", { room: upTo(7), isNewKey: oneOf(true, false), keyMillis })],
  [
    5,
    make("Push", {
      room: upTo(7),
      padding: oneOf(0, 0, 1, 20, 150),
      keyMillis,
      by: oneOf("notifier", "notifier", "app", "app", "standby")
    })
  ],
  [1, make("RepeatToDevice", {})],
  [1, make("HoldToDevice", { millis: oneOf(400, 12_000, 600_000) })],
  [2, make("Window", { who, last: upTo(60) })],
  [2, make("Open", { who, room: upTo(7) })],
  [4, make("Send", { who, room: upTo(7) })],
  [5, make("Suspend", { who })],
  [4, make("Resume", { who })],
  [1, make("Stop", { who })],
  [2, make("StartLoops", { who })],
  [1, make("ExpireSessions", { who })],
  [2, make("Kill", { who })],
  [3, make("Run", { who })],
  [2, make("Freeze", { who })],
  [2, make("Thaw", { who })],
  [4, make("KillAt", { who, operation, moment })],
  [
    3,
    make("KillAt", {
      who,
      operation: oneOf("commitExtension", "commitMain", "commitCrypto"),
      moment: constant("after")
    })
  ],
  [3, make("FreezeAt", { who, operation, moment, millis: oneOf(500, 9_000, 40_000, 3_600_000) })],
  [1, make("SkewClock", { who, millis: clockMillis })],
  [1, make("StepClock", { millis: clockMillis })],
  [4, make("Notifier", { which: upTo(3), what: oneOf("kill", "freeze", "thaw", "interrupt", "end") })],
  [2, make("KillNextNotifierAt", { operation, moment })],
  [
    3,
    make("StoreFails", { who, operation, moment, fault: oneOf("busy", "busy", "full", "full", "readOnly", "failing") })
  ],
  [4, make("StoreWaits", { who, operation, moment, millis: shortMillis })],
  [3, make("StoreFails", { who, operation: storeOperation, moment, fault: oneOf("busy", "full") })],
  [2, make("StoreTwice", { who, operation: oneOf(...CONDITIONAL) })],
  [1, make("DiskFull", { millis: oneOf(1_000, 20_000, 600_000) })],
  [1, make("DiskFails", { millis: oneOf(1_000, 20_000, 600_000) })],
  [
    11,
    make("Http", {
      who,
      connection: oneOf("main", "main", "extension", "extension", "extension", "push", "other"),
      times: oneOf(1, 1, 2, 6),
      fault: httpFault
    })
  ],
  [1, make("Outage", { millis: oneOf(200, 5_000, 60_000, 3_600_000) })],
  [2, make("ExpirePositions", { connection: oneOf("all", "main", "extension") })],
  [1, make("ExpireToken", {})],
  [2, make("Signals", { who, millis: oneOf(2_000, 60_000, 3_600_000), fault: oneOf("lost", "lost", "late", "twice") })]
]

/** Each story leaves some kinds out and prefers others: a fault that is rare among all is common in some story. */
const weights: Draw<ReadonlyArray<readonly [number, Draw<Action>]>> = Effect.forEach(kinds, ([weight, action]) =>
  Effect.map(oneOf(0, 0, 1, 1, 2, 5), (factor) => [weight * factor, action] as const)
)

const pick = Effect.fnUntraced(function* (weighted: ReadonlyArray<readonly [number, Draw<Action>]>) {
  let left = yield* Random.nextBetween(0, weighted.reduce((sum, [weight]) => sum + weight, 0) || 1)
  for (const [weight, action] of weighted) {
    left -= weight
    if (left < 0) return yield* action
  }
  return yield* make("ToDevice", { count: constant(1) })
})

const gaps = {
  hasty: oneOf(0, 0, 0, 1, 5, 20, 300),
  usual: oneOf(0, 0, 0, 1, 20, 500, 500, 3_300, 10_001, 31_000),
  slow: oneOf(0, 1, 500, 10_001, 65_000, 700_000, 3_600_000)
}

/** Draws the story of a seed: 5 to 60 steps, over a second to a day. */
export const drawSchedule = (seed: number): Effect.Effect<Schedule> =>
  Effect.gen(function* () {
    const weighted = yield* weights
    const gap =
      gaps[yield* oneOf<keyof typeof gaps>("hasty", "hasty", "usual", "usual", "usual", "usual", "usual", "slow")]
    const steps: Array<Step> = []
    let atMillis = 0
    for (let left = yield* upTo(60, 5); left > 0; left--) {
      atMillis += yield* gap
      steps.push({ atMillis, action: yield* pick(weighted), yields: yield* oneOf(0, 1, 3, 8, 20, SETTLED) })
    }
    return { seed, steps }
  }).pipe(Random.withSeed(`schedule ${seed}`))
