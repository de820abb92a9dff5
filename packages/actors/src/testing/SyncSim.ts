/**
 * A simulation of whole processes from a seed: an application, a second process that stands by, and short-lived ones that
 * pushes start, over one homeserver, one database and one clock, while everything that can go wrong does.
 *
 * Every actor is the real one; the homeserver, the database, the signals and time are the test kit's. After every step the
 * invariants are checked (`SimCheckers.ts`); in the end all faults stop, and everything must come back in sync.
 *
 * Invariants: checks I1, I2, I3, I4, I5, I6, I7, I9 and I10; rests on I8: a schedule always plays the same.
 *
 * Gotchas: a day of virtual time costs seconds, since the processes go on polling.
 *
 * Not here: what can happen (`SimSchedule.ts`), making a failure small (`SimShrink.ts`).
 *
 * @example
 * ```ts
 * const outcome = yield* SyncSim.run(yield* SyncSim.drawSchedule(1928))
 * assert.deepStrictEqual(outcome.violations, [])
 * ```
 */
import {
  ExtensionLoopMachine,
  type Homeserver,
  Lease,
  type LeaseStore,
  type NotificationItem,
  SyncConfig,
  type SyncStore,
  Wake
} from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Context, Effect, Exit, Fiber, Logger, Queue, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import { inboxDecryptor, startNotifier } from "./NotifierProcess.ts"
import { makeEngine, type ScriptedEngine } from "./ScriptedEngine.ts"
import * as Checkers from "./SimCheckers.ts"
import { hostClock, makePorts, type SimPorts, storeReason, type Trap } from "./SimPorts.ts"
import { makeRecord, type SimRecord, type Violation } from "./SimRecord.ts"
import { type Action, type Schedule, SETTLED, type Who } from "./SimSchedule.ts"
import { makeWorld, type Process, startProcess, type World } from "./Simulation.ts"

export type { Violation } from "./SimRecord.ts"
export * from "./SimSchedule.ts"
export { shrink, type Shrunk } from "./SimShrink.ts"

/** What became of a schedule. */
export interface Outcome {
  readonly schedule: Schedule
  /** Empty when all went well; the first one of each checker else. */
  readonly violations: ReadonlyArray<Violation>
  readonly virtualMillis: number
  /** How often each fault was met, by who met it. */
  readonly hits: { readonly [fault: string]: number }
  /** Two runs of one schedule have the same. */
  readonly digest: number
}

/** Parts that are broken on purpose, to see that the checkers bite. */
export interface Sabotage {
  /** What the database believes of its lease rows. */
  readonly fences?: (leases: LeaseStore["Service"]) => LeaseStore["Service"]
  readonly store?: (store: SyncStore.SyncStore["Service"], later: Later) => SyncStore.SyncStore["Service"]
  readonly homeserver?: (port: Homeserver.Homeserver["Service"]) => Homeserver.Homeserver["Service"]
}

/** Goes on in the background, whatever becomes of the process. */
export type Later = (effect: Effect.Effect<unknown, unknown>) => Effect.Effect<void>

export interface SimOptions {
  readonly sabotage?: Sabotage
}

const BOB = "@bob:localhost"
/** The world's clock starts here, so that a clock that is set back still shows a time after 1970. */
const START_MILLIS = 1_700_000_000_000
/** The invariants are looked at once in so long when nothing happens. */
const LOOK_MILLIS = 600_000
const NOTIFIERS_AT_ONCE = 6
const ROOMS = 4
const ROLES: ReadonlyArray<Who> = ["app", "standby"]
/** Nothing is deleted that a checker has not read. */
const CONFIG: Partial<SyncConfig.SyncConfigShape> = { inboxKept: 1_000_000 }
const DEADLINE_MILLIS = SyncConfig.defaults.notificationDeadlineMillis

/** Lets everybody go on for a while, without time passing. */
const goOn = (yields: number): Effect.Effect<void> =>
  yields === 0 ? Effect.void : Effect.asVoid(Effect.repeat(Effect.yieldNow, { times: yields }))

/** A process whose loops run, and what is wanted of it. */
interface Player {
  readonly who: Who
  readonly name: string
  readonly process: Process
  readonly ports: SimPorts
  readonly engine: ScriptedEngine
  readonly idleFibers: number
  isStarted: boolean
  isSuspended: boolean
  isFrozen: boolean
  isQuiet: boolean
  /** Grows with everything that is wanted, so that a late answer to what was wanted before is known as one. */
  wish: number
  skewMillis: number
}

type Notifier = Effect.Success<ReturnType<typeof startNotifier>> & {
  readonly name: string
  readonly ports: SimPorts
  readonly resolving: Fiber.Fiber<NotificationItem.NotificationResult>
  readonly startedAtMillis: number
  /** Was frozen, interrupted or ended, so that no result is owed. */
  isExcused: boolean
  result?: NotificationItem.NotificationResult
}

/** Steps that are faults by themselves; the others that bring faults are met at a call, or not. */
const FAULTS: ReadonlySet<Action["_tag"]> = new Set([
  "MalformedToDevice",
  "Kill",
  "Freeze",
  "SkewClock",
  "StepClock",
  "Notifier",
  "DiskFull",
  "Outage",
  "ExpirePositions",
  "ExpireToken",
  "LoseSignals"
])

/** Everything that a step works with. */
interface Stage {
  readonly world: World
  readonly record: SimRecord
  readonly sabotage: Sabotage
  readonly now: () => number
  readonly background: Later
  readonly players: Map<Who, Player>
  readonly notifiers: Array<Notifier>
  readonly engines: Array<ScriptedEngine>
  readonly rooms: Array<string>
  readonly defects: Array<string>
  readonly inbox: Array<SyncStore.InboxEntry>
  /** Faults that wait for the next process that a push starts. */
  readonly forNextNotifier: Array<(process: Process, ports: SimPorts) => void>
  processes: number
  hostSkewMillis: number
}

// --- processes

const logger = (defects: Array<string>) =>
  Logger.layer([
    Logger.make(({ logLevel, message }) => {
      if (logLevel === "Error" || logLevel === "Fatal") defects.push(String(message))
    })
  ])

const portsOf = ({ background, now, record, sabotage, world }: Stage, name: string): SimPorts => {
  const { homeserver, store } = sabotage
  const broken = {
    ...(homeserver && { homeserver }),
    ...(store && { store: (port: SyncStore.SyncStore["Service"]) => store(port, background) })
  }
  return makePorts({ world, record, name, now, background, broken })
}

/** Handles the inbox as an application does, and looks at what it is given. */
const consume = (stage: Stage, { name, process, who }: Player) => {
  let handled: number | undefined
  return process.inbox
    .consume(who, ({ sequence }) =>
      Effect.sync(() => {
        const last = stage.record.lastSequence()
        violated(stage, "I6 handledIsStored", Checkers.handledIsStored(name, sequence, last))
        violated(stage, "I2 handledInOrder", Checkers.handledInOrder(name, sequence, handled ?? sequence - 1))
        handled = Math.max(handled ?? 0, sequence)
      })
    )
    .pipe(Effect.ignore, Effect.andThen(Effect.sleep("1 second")), Effect.forever)
}

const violated = ({ record }: Stage, checker: string, message: string | undefined): void => {
  if (message !== undefined) record.violate(checker, message)
}

const startPlayer = Effect.fnUntraced(function* (stage: Stage, who: Who) {
  const name = `${who}-${++stage.processes}`
  const ports = portsOf(stage, name)
  const engine = makeEngine(stage.world)
  stage.engines.push(engine)
  const process = yield* startProcess(stage.world, name, {
    ...ports.options,
    config: { ...CONFIG, role: who },
    crypto: engine.layer,
    references: logger(stage.defects)
  })
  const player: Player = {
    who,
    name,
    process,
    ports,
    engine,
    idleFibers: yield* process.fibers,
    isStarted: true,
    isSuspended: false,
    isFrozen: false,
    isQuiet: false,
    wish: 0,
    skewMillis: 0
  }
  stage.players.set(who, player)
  yield* process.stepClock(stage.hostSkewMillis)
  yield* Effect.forkScoped(consume(stage, player))
  ports.disturb(["main", "extension"], stage.now())
  yield* process.service.start
})

/** Whether the extension stream is a process's; a lease that is over is nobody's. */
const ownsLease = Effect.fnUntraced(function* ({ hostSkewMillis, now, world }: Stage, process: Process) {
  const { rows } = yield* Effect.orDie(world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE))
  const { self } = Context.get(process.context, Wake)
  const nowMillis = START_MILLIS + hostSkewMillis + now()
  return rows.some((row) => row.peer.pid === self.pid && Lease.isHeld(row, nowMillis))
})

/** When its result is told and its work is done, the process ends, and leaves nothing behind. */
const finish = (stage: Stage, notifier: Notifier) =>
  Effect.gen(function* () {
    notifier.result = yield* Fiber.join(notifier.resolving)
    stage.record.note(`${notifier.name} ${notifier.result._tag}`)
    yield* notifier.client.settled
    const fibers = yield* notifier.fibers
    const facts = { name: notifier.name, isQuiet: true, fibers, ownsLease: yield* ownsLease(stage, notifier.process) }
    violated(stage, "I4 stoppedIsQuiet", Checkers.stoppedIsQuiet({ ...quietFacts(notifier.ports), ...facts }))
    yield* notifier.process.end
  })

const quietFacts = (ports: SimPorts): Checkers.ProcessFacts => ({
  name: "",
  nowMillis: 0,
  isQuiet: true,
  shouldRun: false,
  state: { _tag: "Idle", main: { _tag: "Stopped" }, extension: { _tag: "Stopped" } },
  fibers: 0,
  requests: ports.requests,
  calls: ports.calls,
  ownsLease: false,
  disturbedUntil: ports.disturbedUntil,
  isTerminalExcused: true,
  isSkewed: false
})

const push = Effect.fnUntraced(function* (stage: Stage, room: number, ahead: number) {
  const { world } = stage
  const roomId = roomAt(stage, room)
  const wellFormed = (yield* world.sim.ledger(world.session)).filter(({ content }) => typeof content === "object")
  const content = { algorithm: "m.megolm.v1.aes-sha2", wants: wellFormed.length + ahead }
  const eventId = yield* world.sim.sendEvent(roomId, { type: "m.room.encrypted", sender: BOB, content })
  const name = `notify-${++stage.processes}`
  const ports = portsOf(stage, name)
  const engine = makeEngine(world)
  stage.engines.push(engine)
  const started = yield* startNotifier(world, name, {
    ...ports.options,
    config: { ...CONFIG, role: "notify" },
    crypto: engine.layer,
    decryptor: inboxDecryptor(world),
    references: logger(stage.defects)
  })
  yield* started.process.stepClock(stage.hostSkewMillis)
  for (const fault of stage.forNextNotifier.splice(0)) fault(started.process, ports)
  const notifier: Notifier = {
    ...started,
    name,
    ports,
    startedAtMillis: stage.now(),
    resolving: yield* started.fork(started.client.resolve({ roomId, eventId })),
    isExcused: false
  }
  stage.notifiers.push(notifier)
  yield* Effect.forkScoped(finish(stage, notifier))
  return notifier
})

/** Those that have not ended, nor been killed. */
const livingNotifiers = (stage: Stage) => Effect.filter(stage.notifiers, ({ process }) => process.isAlive)

const roomAt = ({ rooms }: Stage, room: number): string => rooms[room % rooms.length] ?? ""

// --- steps

const BOTH = ["main", "extension"] as const
/** What is wanted in one step is wanted before the next step, however long it takes. */
const AT_ONCE = { startImmediately: true } as const

/** Ends loops, and looks at what "quiet" is worth at the moment at which it is said. */
const quieten = (stage: Stage, player: Player, call: Process["service"]["stop"]) => {
  const wish = ++player.wish
  return Effect.forkScoped(
    Effect.gen(function* () {
      const report = yield* call()
      if (!report.quiet || player.wish !== wish) return
      player.isQuiet = true
      violated(stage, "I4 stoppedIsQuiet", Checkers.stoppedIsQuiet(yield* factsOf(stage, player)))
    }),
    AT_ONCE
  )
}

const wake = (stage: Stage, player: Player): void => {
  player.wish++
  player.isQuiet = false
  player.ports.disturb(BOTH, stage.now())
}

const thaw = (stage: Stage, player: Player) =>
  Effect.suspend(() => {
    player.isFrozen = false
    player.ports.disturb(BOTH, stage.now())
    return player.process.thaw
  })

const freeze = (player: Player) =>
  Effect.suspend(() => {
    player.isFrozen = true
    return player.process.freeze
  })

const killAt = (operation: Trap["operation"], moment: Trap["moment"]) => (process: Process, ports: SimPorts) =>
  ports.trap({ operation, moment, millis: 0, act: Effect.andThen(process.kill, Effect.never) })

/** What a step does to the process that it names. */
const actOn = (stage: Stage, player: Player, action: Extract<Action, { readonly who: Who }>) => {
  const { ports, process } = player
  const { service } = process
  switch (action._tag) {
    case "Window":
      return service.setWindow([0, action.last])
    case "Open":
      return Effect.ignore(service.setSubscriptions([roomAt(stage, action.room)]))
    case "Suspend":
      player.isSuspended = true
      return quieten(stage, player, service.suspend)
    case "Stop":
      player.isStarted = false
      return quieten(stage, player, service.stop)
    case "Resume":
      player.isSuspended = false
      wake(stage, player)
      return service.resume()
    case "StartLoops":
      player.isStarted = true
      wake(stage, player)
      return service.start
    case "ExpireSessions": {
      wake(stage, player)
      const done = Effect.sync(() => player.ports.disturb(BOTH, stage.now()))
      return Effect.forkScoped(Effect.andThen(Effect.ignore(service.expireSessions), done), AT_ONCE)
    }
    case "Kill":
      return process.kill
    case "Run":
      return Effect.void
    case "Freeze":
      return freeze(player)
    case "Thaw":
      return thaw(stage, player)
    case "KillAt":
      return Effect.sync(() => killAt(action.operation, action.moment)(process, ports))
    case "FreezeAt": {
      const later = stage.background(Effect.delay(thaw(stage, player), action.millis))
      return Effect.sync(() => ports.trap({ ...action, act: Effect.andThen(freeze(player), later) }))
    }
    case "SkewClock":
      player.skewMillis += action.millis
      return Effect.andThen(disturbAll(stage, stage.now()), process.stepClock(action.millis))
    case "StoreFails": {
      const fail = Effect.suspend(() => {
        if (action.fault === "readOnly") ports.isTerminalExcused = true
        return Effect.fail(storeReason(action.fault))
      })
      return Effect.sync(() => ports.trap({ ...action, millis: 0, act: fail }))
    }
    case "StoreWaits":
      return Effect.sync(() => ports.trap({ ...action, act: Effect.sleep(action.millis) }))
    case "Http":
      return Effect.sync(() => {
        const { connection, fault, times } = action
        if (connection === "push") stage.forNextNotifier.push((_, ports) => ports.spoil(connection, times, fault))
        else ports.spoil(connection, times, fault)
      })
    case "LoseSignals":
      return Effect.sync(() => {
        ports.deafUntil = stage.now() + action.millis
      })
  }
}

const disturbAll = (stage: Stage, untilMillis: number) =>
  Effect.sync(() => {
    for (const { ports } of stage.players.values()) ports.disturb(BOTH, untilMillis)
  })

/** What a step does to what all share. */
const actOnWorld = (stage: Stage, action: Exclude<Action, { readonly who: Who }>) => {
  const { now, world } = stage
  const { session, sim } = world
  switch (action._tag) {
    case "ToDevice":
      return sim.sendNumbered(session, action.count)
    case "MalformedToDevice":
      return sendMalformed(world)
    case "Message":
      return sim.sendEvent(roomAt(stage, action.room), {
        type: "m.room.message",
        sender: BOB,
        content: action.isMalformed ? ("not an object" as never) : { msgtype: "m.text", body: `at ${now()}` }
      })
    case "NewRoom":
      return Effect.map(sim.addRoom({ members: [BOB, session.userId], name: `Room ${stage.rooms.length}` }), (roomId) =>
        stage.rooms.push(roomId)
      )
    case "Typing":
      return sim.model((state, nowMillis) =>
        state.rooms.get(roomAt(stage, action.room))?.typing.set(BOB, nowMillis + 5_000)
      )
    case "Push":
      return Effect.flatMap(livingNotifiers(stage), (living) =>
        living.length < NOTIFIERS_AT_ONCE ? Effect.asVoid(push(stage, action.room, action.ahead)) : Effect.void
      )
    case "Notifier":
      return Effect.flatMap(livingNotifiers(stage), (living) =>
        actOnNotifier(living[action.which % Math.max(1, living.length)], action.what)
      )
    case "KillNextNotifierAt":
      return Effect.sync(() => stage.forNextNotifier.push(killAt(action.operation, action.moment)))
    case "DiskFull":
      return Effect.sync(() => {
        const untilMillis = now() + action.millis
        for (const { ports } of stage.players.values()) ports.diskFullUntil = untilMillis
      })
    case "StepClock":
      stage.hostSkewMillis += action.millis
      return Effect.andThen(
        disturbAll(stage, now()),
        Effect.flatMap(livingProcesses(stage), (living) =>
          Effect.forEach(living, (process) => process.stepClock(action.millis), { discard: true })
        )
      )
    case "Outage":
      return Effect.andThen(
        sim.unreachable,
        Effect.andThen(
          disturbAll(stage, now() + action.millis),
          stage.background(Effect.delay(sim.reachable, action.millis))
        )
      )
    case "ExpirePositions":
      return Effect.andThen(disturbAll(stage, now()), expire(world, action.connection))
    case "ExpireToken":
      return Effect.andThen(disturbAll(stage, now()), sim.endSession(session, "soft"))
  }
}

const expire = ({ session, sim }: World, connection: "all" | "main" | "extension") => {
  if (connection === "all") return sim.expirePositions(session)
  const connIds = connection === "extension" ? ["encryption"] : ROLES.map((who) => `rooms-${who}`)
  return Effect.forEach(connIds, (connId) => sim.expirePositions(session, connId), { discard: true })
}

/** A to-device message whose content is no object: it takes part in the numbering, and can't be applied. */
const sendMalformed = ({ session, sim }: World) =>
  sim.model((state, nowMillis) => {
    const user = state.users.get(session.userId)
    const device = user?.devices.get(session.deviceId)
    if (user === undefined || device === undefined) return
    const message = { sender: BOB, type: "org.twinloop.numbered", content: "not an object" as never }
    HomeserverModel.enqueue(state, { user, device }, message, nowMillis)
  })

const actOnNotifier = (notifier: Notifier | undefined, what: Extract<Action, { _tag: "Notifier" }>["what"]) => {
  if (notifier === undefined) return Effect.void
  if (what !== "thaw") notifier.isExcused = true
  switch (what) {
    case "kill":
      return notifier.process.kill
    case "freeze":
      return notifier.process.freeze
    case "thaw":
      return notifier.process.thaw
    case "interrupt":
      return Effect.forkScoped(Fiber.interrupt(notifier.resolving))
    case "end":
      return Effect.forkScoped(notifier.process.end)
  }
}

const act = Effect.fnUntraced(function* (stage: Stage, action: Action) {
  if (!("who" in action)) return yield* Effect.asVoid(actOnWorld(stage, action))
  const player = stage.players.get(action.who)
  const isAlive = player !== undefined && (yield* player.process.isAlive)
  if (player !== undefined && isAlive) return yield* Effect.asVoid(actOn(stage, player, action))
  if (action._tag === "Run") yield* startPlayer(stage, action.who)
})

// --- checks

const factsOf = Effect.fnUntraced(function* (stage: Stage, player: Player) {
  const { ports, process } = player
  const facts: Checkers.ProcessFacts = {
    name: player.name,
    nowMillis: stage.now(),
    isQuiet: player.isQuiet,
    shouldRun: player.isStarted && !player.isSuspended && !player.isFrozen,
    state: yield* process.service.state,
    fibers: (yield* process.fibers) - player.idleFibers,
    requests: ports.requests,
    calls: ports.calls,
    ownsLease: yield* ownsLease(stage, process),
    disturbedUntil: ports.disturbedUntil,
    isTerminalExcused: ports.isTerminalExcused,
    isSkewed: isSkewed(stage)
  }
  return facts
})

const sharedFacts = Effect.fnUntraced(function* (stage: Stage) {
  const { inbox, world } = stage
  inbox.push(...(yield* world.store.readInbox({ after: inbox.at(-1)?.sequence ?? 0, limit: 1_000_000 })))
  const quarantine = yield* world.store.quarantine(1_000_000)
  const { quarantineKept } = SyncConfig.defaults
  const facts: Checkers.SharedFacts = {
    since: Number((yield* world.store.extensionPosition).since ?? 0),
    ledger: yield* world.sim.ledger(world.session),
    inbox,
    quarantinedToDevice: quarantine.filter(({ source }) => source === "toDevice").length,
    quarantineKept,
    quarantineRows: quarantine.length,
    table: yield* world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE),
    processes: stage.processes,
    engineViolations: stage.engines.flatMap(({ violations }) => violations),
    defects: stage.defects
  }
  return facts
}, Effect.orDie)

const sharedCheckers = {
  "I1 generationsGrow": Checkers.generationsGrow,
  "I2 exactlyOnceInOrder": Checkers.exactlyOnceInOrder,
  "I2 acknowledgedIsStored": Checkers.acknowledgedIsStored,
  "I5 validMemory": Checkers.validMemory,
  "I7 malformedIsCounted": Checkers.malformedIsCounted,
  "I7 noDefect": Checkers.noDefect,
  "I10 boundedStore": Checkers.boundedStore
}

const processCheckers = {
  "I3 independentLoops": Checkers.independentLoops,
  "I4 stoppedIsQuiet": Checkers.stoppedIsQuiet,
  "I9 terminalIsEarned": Checkers.terminalIsEarned,
  "I10 boundedProcess": Checkers.boundedProcess
}

const isSkewed = ({ players }: Stage): boolean =>
  [...players.values()].some(({ skewMillis }) => Math.abs(skewMillis) > SyncConfig.defaults.leaseMillis / 2)

const livingPlayers = (stage: Stage) => Effect.filter([...stage.players.values()], ({ process }) => process.isAlive)

const livingProcesses = (stage: Stage) =>
  Effect.filter(
    [...stage.players.values(), ...stage.notifiers].map(({ process }) => process),
    ({ isAlive }) => isAlive
  )

/** Looks at every invariant; at whether loops are in sync only when everybody has gone as far as he gets. */
const look = Effect.fnUntraced(function* (stage: Stage, isSettled: boolean) {
  const shared = yield* sharedFacts(stage)
  for (const [name, checker] of Object.entries(sharedCheckers)) violated(stage, name, checker(shared))
  for (const player of yield* livingPlayers(stage)) {
    const { shouldRun, ...facts } = yield* factsOf(stage, player)
    for (const [name, checker] of Object.entries(processCheckers)) {
      violated(stage, name, checker({ ...facts, shouldRun: shouldRun && isSettled }))
    }
  }
  for (const notifier of yield* livingNotifiers(stage)) {
    if (notifier.isExcused || notifier.result !== undefined) continue
    const { name, startedAtMillis } = notifier
    violated(stage, "I10 notifiedInTime", Checkers.notifiedInTime(name, startedAtMillis, DEADLINE_MILLIS, stage.now()))
  }
  return shared
})

/** Lets time pass until then, and looks at the invariants on the way. */
const passUntil = Effect.fnUntraced(function* (stage: Stage, untilMillis: number) {
  while (stage.now() < untilMillis) {
    yield* TestClock.adjust(Math.min(LOOK_MILLIS, untilMillis - stage.now()))
    yield* goOn(SETTLED)
    yield* look(stage, true)
  }
})

// --- the whole story

/** Ends all faults, lets everybody run, and gives them time. */
const heal = Effect.fnUntraced(function* (stage: Stage) {
  const { sim } = stage.world
  yield* sim.reachable
  for (const { process } of yield* livingNotifiers(stage)) yield* process.thaw
  for (const who of ROLES) yield* act(stage, { _tag: "Run", who })
  for (const player of yield* livingPlayers(stage)) {
    player.ports.heal()
    yield* thaw(stage, player)
    yield* player.process.stepClock(-player.skewMillis)
    player.skewMillis = 0
    player.isSuspended = false
    player.isStarted = true
    wake(stage, player)
    yield* player.process.service.resume()
  }
  // A loop that has given up is started again; what it met may be in flight still.
  for (let round = 0; round < 3; round++) {
    yield* passUntil(stage, stage.now() + 120_000)
    for (const { process } of yield* livingPlayers(stage)) yield* process.service.start
  }
  yield* sim.sendNumbered(stage.world.session, 3)
})

/** Which applications don't show the newest message of a room. */
const whoIsBehind = Effect.fnUntraced(function* (stage: Stage, newest: ReadonlyMap<string, string>) {
  const behind: Array<string> = []
  for (const { name, process } of yield* livingPlayers(stage)) {
    for (const [roomId, eventId] of newest) {
      const shown = (yield* process.rooms.get(roomId))?.latestEvent?.event_id
      if (shown !== eventId)
        behind.push(`${name} shows ${shown ?? "nothing"} in ${roomId}, whose newest event is ${eventId}`)
    }
  }
  return behind
})

const checkEnd = Effect.fnUntraced(function* (stage: Stage) {
  const { sim } = stage.world
  const newest = new Map<string, string>()
  for (const roomId of stage.rooms) newest.set(roomId, yield* sim.sendMessage(roomId, BOB, "the end"))
  yield* passUntil(stage, stage.now() + 1_000)
  const shared = yield* look(stage, true)
  const owners = yield* Effect.filter(yield* livingPlayers(stage), ({ process }) => ownsLease(stage, process))
  violated(stage, "I9 backInSync", Checkers.backInSync(shared, owners.length, yield* whoIsBehind(stage, newest)))
  stage.forNextNotifier.length = 0
  const last = yield* push(stage, 0, 0)
  yield* passUntil(stage, stage.now() + 1_000)
  if (last.result?._tag !== "Event") {
    stage.record.violate(
      "I9 backInSync",
      `all faults are over, and a push whose key is there gives ${last.result?._tag ?? "no result"}`
    )
  }
  for (const player of yield* livingPlayers(stage)) {
    yield* act(stage, { _tag: "Suspend", who: player.who })
    yield* passUntil(stage, stage.now() + 1)
    if (!player.isQuiet)
      stage.record.violate("I4 stoppedIsQuiet", `all faults are over, and ${player.name} can't be suspended`)
  }
  yield* passUntil(stage, stage.now() + 60_000)
})

const makeStage = Effect.fnUntraced(function* (sabotage: Sabotage) {
  yield* TestClock.setTime(START_MILLIS)
  const clock = yield* hostClock
  const now = () => clock() - START_MILLIS
  const record = makeRecord(now)
  const world = record.watch(yield* makeWorld({}, sabotage.fences))
  // Served by a fiber of the host, so that it neither ends with a process nor counts as one of its fibers.
  const jobs = yield* Queue.unbounded<Effect.Effect<unknown, unknown>>()
  const work = Effect.flatMap(Queue.take(jobs), (job) => Effect.forkScoped(Effect.exit(job)))
  yield* Effect.forkScoped(Effect.forever(work))
  const stage: Stage = {
    world,
    record,
    sabotage,
    now,
    background: (effect) => Effect.asVoid(Queue.offer(jobs, effect)),
    players: new Map(),
    notifiers: [],
    engines: [],
    rooms: [],
    defects: [],
    inbox: [],
    forNextNotifier: [],
    processes: 0,
    hostSkewMillis: 0
  }
  yield* world.sim.addUser("bob")
  for (let room = 0; room < ROOMS; room++) yield* act(stage, { _tag: "NewRoom" })
  for (const who of ROLES) yield* startPlayer(stage, who)
  yield* goOn(SETTLED)
  return stage
})

const play = Effect.fnUntraced(function* ({ seed, steps }: Schedule, { sabotage = {} }: SimOptions) {
  const stage = yield* makeStage(sabotage)
  const { record } = stage
  for (const { action, atMillis, yields } of steps) {
    yield* passUntil(stage, atMillis)
    if (FAULTS.has(action._tag)) record.hit(action._tag)
    else record.note(JSON.stringify(action))
    yield* act(stage, action)
    yield* goOn(yields)
    yield* look(stage, false)
    if (record.violations.length > 0) break
  }
  if (record.violations.length === 0) yield* heal(stage)
  if (record.violations.length === 0) yield* checkEnd(stage)
  const outcome: Outcome = {
    schedule: { seed, steps },
    violations: record.violations,
    virtualMillis: stage.now(),
    hits: Object.fromEntries(record.hits),
    digest: record.digest()
  }
  return outcome
})

/** Plays a schedule, in virtual time of its own. Never fails: what was wrong is in the outcome. */
export const run = (schedule: Schedule, options: SimOptions = {}): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const outcome = yield* Scope.provide(play(schedule, options), scope)
    // What is killed or frozen never ends by itself, so nobody waits for it.
    yield* Effect.forkDetach(Scope.close(scope, Exit.void))
    return outcome
  }).pipe(Random.withSeed(`run ${schedule.seed}`), Effect.provide(TestClock.layer()))
