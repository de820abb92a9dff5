/**
 * What the steps of a simulated story work with: the world, who is in it, and what was seen of it.
 *
 * Not here: starting processes (`SimProcesses.ts`), doing steps (`SimSteps.ts`), looking at invariants (`SimLook.ts`).
 */
import {
  ExtensionLoopMachine,
  type Homeserver,
  Lease,
  type LeaseStore,
  type NotificationClient,
  type NotificationItem,
  type SyncStore,
  Wake
} from "@twinloop/core"
import { Context, Effect, type Fiber } from "effect"
import type { Rooms, TimelineItem } from "../Rooms.ts"
import type { startNotifier } from "./NotifierProcess.ts"
import type { WatchedEngine } from "./SimCipher.ts"
import type { CipherWatch } from "./SimCipherWatch.ts"
import type { Peer, PeerMessage } from "./SimPeer.ts"
import type { SimPorts } from "./SimPorts.ts"
import type { SimRecord } from "./SimRecord.ts"
import type { Who } from "./SimSchedule.ts"
import type { Process, World } from "./Simulation.ts"

/** The world's clock starts here, so that a clock that is set back still shows a time after 1970. */
export const START_MILLIS = 1_700_000_000_000
export const ROLES: ReadonlyArray<Who> = ["app", "standby"]

/** Parts that are broken on purpose, to see that the checkers bite. */
export interface Sabotage {
  /** What the database believes of its lease rows. */
  readonly fences?: (leases: LeaseStore["Service"]) => LeaseStore["Service"]
  readonly store?: (store: SyncStore.SyncStore["Service"], later: Later) => SyncStore.SyncStore["Service"]
  readonly homeserver?: (port: Homeserver.Homeserver["Service"]) => Homeserver.Homeserver["Service"]
}

/** Goes on in the background, whatever becomes of the process. */
export type Later = (effect: Effect.Effect<unknown, unknown>) => Effect.Effect<void>

/** A push that is being resolved, or was. */
export interface Resolving {
  /** The process that resolves it. */
  readonly name: string
  readonly message: PeerMessage
  readonly startedAtMillis: number
  readonly process: Process
  /** Whether the process has met what may keep it from a result, or from a good one. */
  readonly isDisturbed: () => boolean
  /** Was frozen, interrupted or ended, so that no result is owed. */
  isExcused: boolean
  result?: NotificationItem.NotificationResult
}

/** A message that the application has sent, or tries to. */
export interface Sending {
  readonly number: number
  readonly roomId: string
  /** Once the homeserver has confirmed it. */
  eventId?: string
}

/** A process whose loops run, and what is wanted of it. */
export interface Player {
  readonly who: Who
  readonly name: string
  readonly process: Process
  readonly ports: SimPorts
  readonly client: NotificationClient.NotificationClient["Service"]
  readonly rooms: Rooms["Service"]
  readonly idleFibers: number
  /** What a live timeline of the first room shows, if the application has opened one. */
  readonly live: { items: ReadonlyArray<TimelineItem> | undefined }
  /** Pushes that this process resolves, whose work isn't over. */
  readonly resolving: Set<Resolving>
  /** Messages that are being sent. */
  sends: number
  isStarted: boolean
  isSuspended: boolean
  isFrozen: boolean
  isQuiet: boolean
  /** Calls that end the loops, and have not returned. */
  endings: number
  /** Grows with everything that is wanted, so that a late answer to what was wanted before is known as one. */
  wish: number
  skewMillis: number
}

/** A process that a push has started. */
export type Notifier = Effect.Success<ReturnType<typeof startNotifier>> & {
  readonly ports: SimPorts
  readonly push: Resolving
  readonly fiber: Fiber.Fiber<NotificationItem.NotificationResult>
}

/** Everything that a step works with. */
export interface Stage {
  readonly world: World
  readonly record: SimRecord
  readonly sabotage: Sabotage
  readonly now: () => number
  readonly background: Later
  readonly peer: Peer
  readonly cipher: CipherWatch
  readonly players: Map<Who, Player>
  readonly notifiers: Array<Notifier>
  readonly pushes: Array<Resolving>
  readonly sendings: Array<Sending>
  readonly engines: Array<WatchedEngine>
  readonly rooms: Array<string>
  readonly defects: Array<string>
  readonly inbox: Array<SyncStore.InboxEntry>
  /** Whether the application keeps a timeline open, which it follows every second. */
  readonly showsRoom: boolean
  /** Faults that wait for the next process that a push starts. */
  readonly forNextNotifier: Array<(process: Process, ports: SimPorts) => void>
  processes: number
  hostSkewMillis: number
  /** Leases that were over before the host's clock was set back to a time at which they were not. */
  readonly revived: Set<string>
  /** Until when the disk, which everybody shares, is full, and until when it fails. */
  readonly disk: { fullUntil: number; failsUntil: number }
  /** Until when, at least, the homeserver can't be asked. */
  outageUntil: number
}

/** Every second room is encrypted. */
export const isEncryptedAt = ({ rooms }: Stage, room: number): boolean => (room % rooms.length) % 2 === 0

export const roomAt = ({ rooms }: Stage, room: number): string => rooms[room % rooms.length] ?? ""

/** Does something as the process itself: by its clock, and as fibers of it. */
export const within = <A, E>({ context }: Pick<Process, "context">, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.provideContext(effect, context)

/** Lets everybody go on for a while, without time passing. */
export const goOn = (yields: number): Effect.Effect<void> =>
  yields === 0 ? Effect.void : Effect.asVoid(Effect.repeat(Effect.yieldNow, { times: yields }))

const leaseName = ({ expiresAtMillis, holder }: Lease.LeaseRow): string => `${holder} ${expiresAtMillis}`

const leaseRows = ({ world }: Stage) =>
  Effect.map(Effect.orDie(world.leases.inspect(ExtensionLoopMachine.EXTENSION_LEASE)), ({ rows }) => rows)

const hostMillis = ({ hostSkewMillis, now }: Stage): number => START_MILLIS + hostSkewMillis + now()

/** Whether the extension stream is a process's; a lease that is over, or once was, is nobody's. */
export const ownsLease = Effect.fnUntraced(function* (stage: Stage, process: Process) {
  const { self } = Context.get(process.context, Wake)
  const nowMillis = hostMillis(stage)
  return (yield* leaseRows(stage)).some(
    (row) => row.peer.pid === self.pid && Lease.isHeld(row, nowMillis) && !stage.revived.has(leaseName(row))
  )
})

/** Sets the clock of the host, and so of all its processes. */
export const stepHostClock = Effect.fnUntraced(function* (stage: Stage, millis: number) {
  const before = hostMillis(stage)
  stage.hostSkewMillis += millis
  const after = hostMillis(stage)
  for (const row of yield* leaseRows(stage))
    if (!Lease.isHeld(row, before) && Lease.isHeld(row, after)) stage.revived.add(leaseName(row))
  for (const process of yield* livingProcesses(stage)) yield* process.stepClock(millis)
})

export const livingPlayers = (stage: Stage) =>
  Effect.filter([...stage.players.values()], ({ process }) => process.isAlive)

/** Those that have not ended, nor been killed. */
export const livingNotifiers = (stage: Stage) => Effect.filter(stage.notifiers, ({ process }) => process.isAlive)

const livingProcesses = (stage: Stage) =>
  Effect.filter(
    [...stage.players.values(), ...stage.notifiers].map(({ process }) => process),
    ({ isAlive }) => isAlive
  )
