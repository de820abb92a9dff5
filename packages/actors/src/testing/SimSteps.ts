/**
 * Does what the steps of a simulated story say.
 *
 * Not here: which steps there are (`SimSchedule.ts`), what a fault does at the call that it hits (`SimPorts.ts`).
 */
import { Effect, Fiber } from "effect"
import { HomeserverModel } from "@twinloop/core/testing"
import * as Checkers from "./SimCheckers.ts"
import { type FaultKind, killKind, storeKind, waitKind } from "./SimFaults.ts"
import { factsOf } from "./SimLook.ts"
import { BOB, type PeerMessage } from "./SimPeer.ts"
import { type SimPorts, storeReason, type Trap } from "./SimPorts.ts"
import { resolveIn, send, startNotifierFor, startPlayer } from "./SimProcesses.ts"
import { type Action, SETTLED } from "./SimSchedule.ts"
import {
  goOn,
  isEncryptedAt,
  livingNotifiers,
  type Notifier,
  type Player,
  roomAt,
  ROLES,
  type Stage,
  stepHostClock,
  within
} from "./SimStage.ts"
import type { Process, World } from "./Simulation.ts"

type Of<Tag extends Action["_tag"]> = Extract<Action, { readonly _tag: Tag }>

const NOTIFIERS_AT_ONCE = 6
const BOTH = ["main", "extension"] as const
/** What is wanted in one step is wanted before the next step, however long it takes. */
const AT_ONCE = { startImmediately: true } as const

// --- what is wanted of a process

/** Everybody who ever was there: a disk that breaks under the dead harms nobody. */
const everybody = ({ notifiers, players }: Stage): ReadonlyArray<{ readonly ports: SimPorts }> => [
  ...players.values(),
  ...notifiers
]

/** Ends loops, and looks at what "quiet" is worth at the moment at which it is said. */
const quieten = (stage: Stage, player: Player, call: Process["service"]["stop"]) => {
  const wish = ++player.wish
  const pushes = [...player.resolving]
  if (pushes.length > 0) stage.record.hit("pushedWhileSuspending", player.name)
  player.endings += 1
  return Effect.forkScoped(
    Effect.gen(function* () {
      const report = yield* within(player.process, call())
      player.endings -= 1
      if (!report.quiet || player.wish !== wish) return
      player.isQuiet = true
      stage.record.check("I4 stoppedIsQuiet", Checkers.stoppedIsQuiet(yield* factsOf(stage, player)))
      // A result is there when its resolution is over, and reaches who asked for it a little later.
      yield* goOn(SETTLED)
      stage.record.check("I4 pushesAreOver", Checkers.pushesAreOver(player.name, pushes))
    }),
    AT_ONCE
  )
}

/** Something else is wanted of a process than before. */
export const wake = (stage: Stage, player: Player): void => {
  player.wish++
  player.isQuiet = false
  player.ports.disturb(BOTH, stage.now())
}

export const thaw = (stage: Stage, player: Player) =>
  Effect.suspend(() => {
    player.isFrozen = false
    player.ports.disturb(BOTH, stage.now())
    return player.process.thaw
  })

const freeze = (player: Player) =>
  Effect.suspend(() => {
    player.isFrozen = true
    for (const push of player.resolving) push.isExcused = true
    return player.process.freeze
  })

const killAt = ({ moment, operation }: Pick<Trap, "operation" | "moment">) => {
  const kind = killKind(operation, moment)
  return (process: Process, ports: SimPorts) =>
    ports.trap({ kind, operation, moment, millis: 0, act: Effect.andThen(process.kill, Effect.never) })
}

const failAt = ({ fault, moment, operation }: Of<"StoreFails">, ports: SimPorts) => {
  const act = Effect.suspend(() => {
    if (fault === "readOnly" || fault === "failing") ports.isTerminalExcused = true
    return Effect.fail(storeReason(fault))
  })
  ports.trap({ kind: storeKind(fault), operation, moment, millis: 0, act })
}

/** What a step does to the process that it names. */
const actOn = (stage: Stage, player: Player, action: Extract<Action, { readonly who: Player["who"] }>) => {
  const { name, ports, process } = player
  const { service } = process
  const hit = (kind: FaultKind) => stage.record.hit(kind, name)
  switch (action._tag) {
    case "Window":
      hit("windowChanged")
      return service.setWindow([0, action.last])
    case "Open":
      hit("windowChanged")
      return Effect.ignore(service.setSubscriptions([roomAt(stage, action.room)]))
    case "Send":
      hit(isEncryptedAt(stage, action.room) ? "sentEncrypted" : "sent")
      return send(stage, player, roomAt(stage, action.room))
    case "Suspend":
      hit("suspended")
      player.isSuspended = true
      return quieten(stage, player, service.suspend)
    case "Stop":
      hit("stopped")
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
      hit("positionsDropped")
      wake(stage, player)
      player.endings += 1
      const done = Effect.sync(() => {
        player.endings -= 1
        ports.disturb(BOTH, stage.now())
      })
      const expiring = within(process, Effect.ignore(service.expireSessions))
      return Effect.forkScoped(Effect.andThen(expiring, done), AT_ONCE)
    }
    case "Kill":
      hit("killed")
      return process.kill
    case "Run":
      return Effect.void
    case "Freeze":
      hit("frozen")
      return freeze(player)
    case "Thaw":
      return thaw(stage, player)
    case "KillAt":
      return Effect.sync(() => killAt(action)(process, ports))
    case "FreezeAt": {
      const later = stage.background(Effect.delay(thaw(stage, player), action.millis))
      const act = Effect.andThen(freeze(player), later)
      return Effect.sync(() => ports.trap({ kind: "frozenAtStore", ...action, act }))
    }
    case "SkewClock":
      hit("clocksApart")
      player.skewMillis += action.millis
      return Effect.andThen(disturbAll(stage, stage.now()), process.stepClock(action.millis))
    case "StoreFails":
      return Effect.sync(() => failAt(action, ports))
    case "StoreWaits":
      return Effect.sync(() =>
        ports.trap({ kind: waitKind(action.operation), ...action, act: Effect.sleep(action.millis) })
      )
    case "StoreTwice":
      return Effect.sync(() => ports.repeat(action.operation))
    case "Http":
      return Effect.sync(() => {
        const { connection, fault, times } = action
        const spoil = (by: Process, of: SimPorts) => of.spoil({ connection, times, fault, kill: by.kill })
        if (connection === "push") stage.forNextNotifier.push(spoil)
        spoil(process, ports)
      })
    case "Signals":
      return Effect.sync(() => ports.spoilSignals(stage.now() + action.millis, action.fault))
  }
}

const disturbAll = ({ players }: Stage, untilMillis: number) =>
  Effect.sync(() => {
    for (const { ports } of players.values()) ports.disturb(BOTH, untilMillis)
  })

// --- what happens to all

/** A message by the other user, of which somebody must be told. */
const sayFor = (stage: Stage, room: number, keyMillis: number): Effect.Effect<PeerMessage> => {
  const roomId = roomAt(stage, room)
  const body = `push ${stage.pushes.length + 1}`
  if (!isEncryptedAt(stage, room)) return stage.peer.say(roomId, body)
  if (keyMillis > 0) stage.record.hit("keyLate", roomId)
  return stage.peer.tell(roomId, body, { isNewKey: true, keyMillis })
}

/** A message, and somebody who is told of it. */
export const push = Effect.fnUntraced(function* (stage: Stage, action: Omit<Of<"Push">, "_tag">) {
  const { by, keyMillis, padding, room } = action
  const { world } = stage
  if (padding > 0) yield* world.sim.sendNumbered(world.session, padding)
  const message = yield* sayFor(stage, room, keyMillis)
  const player = by === "notifier" ? undefined : stage.players.get(by)
  if (player === undefined || !(yield* player.process.isAlive)) {
    stage.record.hit("pushed", message.eventId)
    return yield* startNotifierFor(stage, message)
  }
  stage.record.hit("pushedToApplication", player.name)
  if (player.endings > 0) stage.record.hit("pushedWhileSuspending", player.name)
  return yield* resolveIn(stage, player, message)
})

const pushes = (stage: Stage, action: Of<"Push">) =>
  Effect.flatMap(livingNotifiers(stage), (living) =>
    living.length < NOTIFIERS_AT_ONCE ? Effect.asVoid(push(stage, action)) : Effect.void
  )

const expire = ({ session, sim }: World, connection: Of<"ExpirePositions">["connection"]) => {
  if (connection === "all") return sim.expirePositions(session)
  const connIds = connection === "extension" ? ["encryption"] : ROLES.map((who) => `rooms-${who}`)
  return Effect.forEach(connIds, (connId) => sim.expirePositions(session, connId), { discard: true })
}

/** Does something with the device's queue. */
const withDevice = (
  { session, sim }: World,
  change: (state: HomeserverModel.ModelState, device: HomeserverModel.Requester, nowMillis: number) => void
) =>
  sim.model((state, nowMillis) => {
    const user = state.users.get(session.userId)
    const device = user?.devices.get(session.deviceId)
    if (user !== undefined && device !== undefined) change(state, { user, device }, nowMillis)
  })

/** A to-device message whose content is no object: it takes part in the numbering, and can't be applied. */
const sendMalformed = (world: World) =>
  withDevice(world, (state, target, nowMillis) => {
    const message = { sender: BOB, type: "org.twinloop.numbered", content: "not an object" as never }
    HomeserverModel.enqueue(state, target, message, nowMillis)
  })

/** The homeserver delivers what it has kept back. */
export const releaseToDevice = (world: World) =>
  withDevice(world, (state, target) => HomeserverModel.release(state, target))

const holdToDevice = (stage: Stage, millis: number) =>
  Effect.andThen(
    withDevice(stage.world, (state, { device }) => HomeserverModel.hold(state, device)),
    stage.background(Effect.delay(releaseToDevice(stage.world), millis))
  )

/** What a step does to what all share. */
const actOnWorld = (stage: Stage, action: Exclude<Action, { readonly who: Player["who"] }>) => {
  const { now, record, world } = stage
  const { session, sim } = world
  switch (action._tag) {
    case "ToDevice":
      return sim.sendNumbered(session, action.count)
    case "MalformedToDevice":
      record.hit("malformedToDevice", "")
      return sendMalformed(world)
    case "Message":
      if (action.isMalformed) record.hit("malformedEvent", "")
      return sim.sendEvent(roomAt(stage, action.room), {
        type: "m.room.message",
        sender: BOB,
        content: action.isMalformed ? ("not an object" as never) : { msgtype: "m.text", body: `at ${now()}` }
      })
    case "NewRoom": {
      const isEncrypted = stage.rooms.length % 2 === 0
      const spec = { members: [BOB, session.userId] as const, name: `Room ${stage.rooms.length}`, isEncrypted }
      return Effect.map(sim.addRoom(spec), (roomId) => stage.rooms.push(roomId))
    }
    case "Typing":
      return sim.model((state, nowMillis) =>
        state.rooms.get(roomAt(stage, action.room))?.typing.set(BOB, nowMillis + 5_000)
      )
    case "Secret": {
      const { isNewKey, keyMillis } = action
      if (keyMillis > 0) record.hit("keyLate", "")
      const room = isEncryptedAt(stage, action.room) ? action.room : action.room + 1
      return stage.peer.tell(roomAt(stage, room), `at ${now()}`, { isNewKey, keyMillis })
    }
    case "Push":
      return pushes(stage, action)
    case "RepeatToDevice":
      return Effect.map(stage.peer.repeat, (isSent) => isSent && record.hit("toDeviceRepeated", ""))
    case "HoldToDevice":
      record.hit("toDeviceHeld", "")
      return holdToDevice(stage, action.millis)
    case "Notifier":
      return Effect.flatMap(livingNotifiers(stage), (living) =>
        actOnNotifier(stage, living[action.which % Math.max(1, living.length)], action.what)
      )
    case "KillNextNotifierAt":
      return Effect.sync(() => stage.forNextNotifier.push(killAt(action)))
    case "DiskFull":
      stage.disk.fullUntil = now() + action.millis
      return Effect.sync(() => {
        for (const { ports } of everybody(stage)) ports.fillDisk(stage.disk.fullUntil)
      })
    case "DiskFails":
      stage.disk.failsUntil = now() + action.millis
      return Effect.sync(() => {
        for (const { ports } of everybody(stage)) ports.breakDisk(stage.disk.failsUntil)
      })
    case "StepClock":
      record.hit("clockStepped", "")
      return Effect.andThen(disturbAll(stage, now()), stepHostClock(stage, action.millis))
    case "Outage":
      record.hit("outage", "")
      stage.outageUntil = Math.max(stage.outageUntil, now() + action.millis)
      return Effect.andThen(
        sim.unreachable,
        Effect.andThen(
          disturbAll(stage, now() + action.millis),
          stage.background(Effect.delay(sim.reachable, action.millis))
        )
      )
    case "ExpirePositions":
      record.hit("positionsExpired", "")
      return Effect.andThen(disturbAll(stage, now()), expire(world, action.connection))
    case "ExpireToken":
      record.hit("tokenExpired", "")
      return Effect.andThen(disturbAll(stage, now()), sim.endSession(session, "soft"))
  }
}

const actOnNotifier = (stage: Stage, notifier: Notifier | undefined, what: Of<"Notifier">["what"]) => {
  if (notifier === undefined) return Effect.void
  const { fiber, process, push } = notifier
  if (what !== "thaw") {
    push.isExcused = true
    stage.record.hit("notifierDisturbed", what)
  }
  switch (what) {
    case "kill":
      return process.kill
    case "freeze":
      return process.freeze
    case "thaw":
      return process.thaw
    case "interrupt":
      return Effect.forkScoped(Fiber.interrupt(fiber))
    case "end":
      return Effect.forkScoped(process.end)
  }
}

/** Does a step. One for a process that doesn't live does nothing, unless it starts it. */
export const act = Effect.fnUntraced(function* (stage: Stage, action: Action) {
  if (!("who" in action)) return yield* Effect.asVoid(actOnWorld(stage, action))
  const player = stage.players.get(action.who)
  const isAlive = player !== undefined && (yield* player.process.isAlive)
  if (player !== undefined && isAlive) return yield* Effect.asVoid(actOn(stage, player, action))
  if (action._tag !== "Run") return
  if (player !== undefined) stage.record.hit("restarted", action.who)
  yield* startPlayer(stage, action.who)
})
