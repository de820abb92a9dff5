/**
 * The processes of a simulation, put together as `Twinloop.layer` and `Twinloop.layerNotifier` do: the application's and its
 * standby's, which follow, send, show and resolve pushes, and those that a push starts.
 *
 * Invariants: I4 and I10 are looked at where a push is over, I2 and I6 where the application handles its inbox.
 *
 * Not here: what is wanted of them (`SimSteps.ts`).
 */
import { CryptoEngine, EventDecryptor, ListDiff, NotificationClient, SyncConfig, type SyncStore } from "@twinloop/core"
import { Context, Effect, Fiber, Layer, Logger, Stream } from "effect"
import { Encryption } from "../Encryption.ts"
import * as Notifications from "../Notifications.ts"
import { Rooms, type TimelineItem } from "../Rooms.ts"
import { startNotifier } from "./NotifierProcess.ts"
import * as Checkers from "./SimCheckers.ts"
import { decryptorOf, watchedEngine } from "./SimCipher.ts"
import type { PeerMessage } from "./SimPeer.ts"
import { makePorts, type SimPorts } from "./SimPorts.ts"
import type { Who } from "./SimSchedule.ts"
import { type Notifier, ownsLease, type Player, type Resolving, type Stage, within } from "./SimStage.ts"
import { type Process, startProcess } from "./Simulation.ts"

/** Nothing is deleted that a checker has not read. */
const CONFIG: Partial<SyncConfig.SyncConfigShape> = { inboxKept: 1_000_000, notificationAppRole: "app" }
export const DEADLINE_MILLIS = SyncConfig.defaults.notificationDeadlineMillis
/** Entries of the timeline that the application has open. */
export const LIVE_LIMIT = 20

const logger = (defects: Array<string>) =>
  Logger.layer([
    Logger.make(({ logLevel, message }) => {
      if (logLevel === "Error" || logLevel === "Fatal") defects.push(String(message))
    })
  ])

/** What every process has: its ports with their faults, and an end-to-end machine of its own. */
const partsOf = (stage: Stage, name: string) => {
  const { background, defects, now, record, sabotage, world } = stage
  const { homeserver, store } = sabotage
  const broken = {
    ...(homeserver && { homeserver }),
    ...(store && { store: (port: SyncStore.SyncStore["Service"]) => store(port, background) })
  }
  const ports = makePorts({ world, record, name, now, background, broken })
  if (now() < stage.disk.fullUntil) ports.fillDisk(stage.disk.fullUntil)
  if (now() < stage.disk.failsUntil) ports.breakDisk(stage.disk.failsUntil)
  const engine = watchedEngine(world)
  stage.engines.push(engine)
  const crypto = Layer.succeed(CryptoEngine.CryptoEngine, engine.service)
  return { ports, options: { ...ports.options, crypto, references: logger(defects) } }
}

// --- the application

/** Handles the inbox as an application does, and looks at what it is given. */
const consume = ({ record }: Stage, { name, process, who }: Player) => {
  let handled: number | undefined
  return process.inbox
    .consume(who, ({ sequence }) =>
      Effect.sync(() => {
        record.check("I6 handledIsStored", Checkers.handledIsStored(name, sequence, record.lastSequence()))
        record.check("I2 handledInOrder", Checkers.handledInOrder(name, sequence, handled ?? sequence - 1))
        handled = Math.max(handled ?? 0, sequence)
      })
    )
    .pipe(Effect.ignore, Effect.andThen(Effect.sleep("1 second")), Effect.forever)
}

/** Keeps a timeline open, as an application does that shows a room. */
const show = (roomId: string, { live, rooms }: Player) =>
  Effect.flatMap(rooms.live(roomId, { limit: LIVE_LIMIT }), (changes) => {
    let items: ReadonlyArray<TimelineItem> = []
    return Stream.runForEach(changes, (diffs) =>
      Effect.sync(() => {
        items = ListDiff.applyAll(items, diffs)
        live.items = items
      })
    )
  }).pipe(Effect.scoped, Effect.ignore, Effect.andThen(Effect.sleep("1 second")), Effect.forever)

/** What an application has besides its loops. */
const applicationIn = (stage: Stage, process: Process) =>
  Layer.build(
    Layer.fresh(
      Layer.merge(Rooms.layer.pipe(Layer.provideMerge(Encryption.layer)), Notifications.layer).pipe(
        Layer.provide(Layer.succeed(EventDecryptor.EventDecryptor, decryptorOf(stage.world))),
        Layer.provide(Layer.succeedContext(process.context))
      )
    )
  )

export const startPlayer = Effect.fnUntraced(function* (stage: Stage, who: Who) {
  const name = `${who}-${++stage.processes}`
  const { options, ports } = partsOf(stage, name)
  let settled: Effect.Effect<void> = Effect.void
  const pushes = {
    name: "pushes that are being resolved",
    suspend: Effect.suspend(() => settled),
    resume: Effect.void
  }
  const config = { ...CONFIG, role: who }
  const process = yield* startProcess(stage.world, name, { ...options, config, suspendables: [pushes] })
  const application = yield* applicationIn(stage, process)
  const client = Context.get(application, NotificationClient.NotificationClient)
  ;({ settled } = client)
  const player: Player = {
    who,
    name,
    process,
    ports,
    client,
    rooms: Context.get(application, Rooms),
    idleFibers: yield* process.fibers,
    live: { items: undefined },
    resolving: new Set(),
    sends: 0,
    isStarted: true,
    isSuspended: false,
    isFrozen: false,
    isQuiet: false,
    endings: 0,
    wish: 0,
    skewMillis: 0
  }
  stage.players.set(who, player)
  yield* process.stepClock(stage.hostSkewMillis)
  yield* Effect.forkScoped(consume(stage, player))
  const [shown] = stage.rooms
  if (who === "app" && stage.showsRoom && shown !== undefined) yield* Effect.forkScoped(show(shown, player))
  ports.disturb(["main", "extension"], Math.max(stage.now(), stage.outageUntil))
  yield* process.service.start
})

// --- sending

/** How often an application tries to send a message again under the same transaction id, and after how long. */
const SEND = { times: 3, schedule: "4 seconds" } as const

/** Sends a message in the process, until it is sent or the application gives up. */
export const send = (stage: Stage, player: Player, roomId: string) =>
  Effect.suspend(() => {
    const number = stage.sendings.length + 1
    const sending: Stage["sendings"][number] = { number, roomId }
    stage.sendings.push(sending)
    player.sends += 1
    const content = { msgtype: "m.text", body: `out ${number}` }
    const attempt = player.rooms.send(roomId, "m.room.message", content, { txnId: `out-${number}` })
    const again = Effect.sleep(SEND.schedule)
    return within(
      player.process,
      attempt.pipe(
        Effect.tapError(() => again),
        Effect.retry({ times: SEND.times })
      )
    ).pipe(
      Effect.tap((eventId) => Effect.sync(() => (sending.eventId = eventId))),
      Effect.ignore,
      Effect.andThen(Effect.sync(() => (player.sends -= 1))),
      Effect.andThen(Effect.sync(() => stage.record.note(`sent ${number} ${sending.eventId ?? "not"}`))),
      Effect.forkScoped({ startImmediately: true }),
      Effect.as(sending)
    )
  })

// --- pushes

const pushOf = (
  stage: Stage,
  owner: Pick<Resolving, "name" | "process"> & { readonly ports: SimPorts },
  message: PeerMessage
): Resolving => {
  const { name, ports, process } = owner
  const before = ports.httpFaults()
  const startedAtMillis = stage.now()
  const push: Resolving = {
    name,
    message,
    startedAtMillis,
    process,
    isDisturbed: () => ports.httpFaults() > before || stage.outageUntil >= startedAtMillis || ports.isTerminalExcused,
    isExcused: false
  }
  stage.pushes.push(push)
  return push
}

/** Looks at a result at the moment at which it is told. */
const judge = ({ now, record }: Stage, push: Resolving) => {
  const { isDisturbed, isExcused, message, name, result } = push
  if (result === undefined) return
  record.note(`${name} ${result._tag}`)
  const { key } = message
  const keyAtMillis = key === undefined ? undefined : record.keyCommittedAt(key.sessionId)
  record.check(
    "I7 notifiedTruly",
    Checkers.notifiedTruly({
      name,
      result,
      body: message.body,
      isExcused,
      isDisturbed: isDisturbed(),
      keyIsThereForMillis: keyAtMillis === undefined ? undefined : now() - keyAtMillis
    })
  )
}

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

/** When its result is told and its work is done, the process ends, and leaves nothing behind. */
const finish = (stage: Stage, { client, fiber, fibers, ports, process, push }: Notifier) =>
  Effect.gen(function* () {
    push.result = yield* Fiber.join(fiber)
    judge(stage, push)
    yield* client.settled
    const facts = { name: push.name, isQuiet: true, fibers: yield* fibers, ownsLease: yield* ownsLease(stage, process) }
    stage.record.check("I4 stoppedIsQuiet", Checkers.stoppedIsQuiet({ ...quietFacts(ports), ...facts }))
    yield* process.end
  })

/** A push starts a process. */
export const startNotifierFor = Effect.fnUntraced(function* (stage: Stage, message: PeerMessage) {
  const name = `notify-${++stage.processes}`
  const { options, ports } = partsOf(stage, name)
  const started = yield* startNotifier(stage.world, name, {
    ...options,
    config: { ...CONFIG, role: "notify" },
    decryptor: decryptorOf(stage.world)
  })
  yield* started.process.stepClock(stage.hostSkewMillis)
  for (const fault of stage.forNextNotifier.splice(0)) fault(started.process, ports)
  const push = pushOf(stage, { name, process: started.process, ports }, message)
  const { eventId, roomId } = message
  const fiber = yield* started.fork(started.client.resolve({ roomId, eventId }))
  const notifier: Notifier = { ...started, ports, push, fiber }
  stage.notifiers.push(notifier)
  yield* Effect.forkScoped(finish(stage, notifier))
  return push
})

/** A process whose loops run, or don't, resolves a push. */
export const resolveIn = Effect.fnUntraced(function* (stage: Stage, player: Player, { ...message }: PeerMessage) {
  const { client, process, resolving } = player
  const push = pushOf(stage, player, message)
  push.isExcused = player.isFrozen
  resolving.add(push)
  const { eventId, roomId } = message
  yield* within(process, client.resolve({ roomId, eventId })).pipe(
    Effect.tap((result) =>
      Effect.sync(() => {
        push.result = result
        judge(stage, push)
      })
    ),
    Effect.andThen(client.settled),
    Effect.andThen(Effect.sync(() => resolving.delete(push))),
    Effect.forkScoped({ startImmediately: true })
  )
  return push
})
