/**
 * The state of the model: some processes, the database that they share, and the homeserver.
 *
 * Everything is a value without functions, so that two states are the same when their text is (`Canonical.ts`). Time stands
 * still at {@link NOW}: instead of a clock that moves, the end of a lease or of a place in the queue is moved to the past, and
 * any timer may end at any moment. So each state stands for all the times at which it can be met.
 *
 * Left out: clocks that disagree (an end that is too early or too late is here, since any lease may expire at any moment), a
 * request that reaches the homeserver after its process has given it up (it acknowledges only what is stored, and the stored
 * position never goes back), sends of the application (they are turns like the loop's own), a to-device batch in several
 * pages, several pushes at once in a process, and a notification client within the application's process, which shares its
 * grant. Also, unless the model is `fine`: that something comes between an answer and the loop that takes it from an empty
 * mailbox. A process that looks at the lease always reads the answer at once, or is killed or suspended before.
 *
 * Not here: what happens (`Process.ts`, `World.ts`), in which order (`Explore.ts`).
 */
import type * as Lease from "../../src/lease/Lease.ts"
import type * as LeaseMachine from "../../src/lease/LeaseMachine.ts"
import type { SyncResponse } from "../../src/matrix/SlidingSync.ts"
import type * as NotificationKeysMachine from "../../src/notification/NotificationKeysMachine.ts"
import type * as ExtensionLoopMachine from "../../src/sync/ExtensionLoopMachine.ts"
import type { ExtensionPosition } from "../../src/sync/SyncStore.ts"
import { defaults } from "../../src/sync/SyncConfig.ts"

export const NOW = 1_000_000
/** When what has expired did so. */
export const PAST = NOW - 1
export const config = defaults
export const EXTENSION = "extension"

/** What a process knows of a lease that it holds, and the fiber that renews it (`DistributedSemaphore.keep`). */
export interface Grant {
  readonly fence: Lease.Fence
  readonly keeping: Extract<LeaseMachine.State, { _tag: "Held" | "Lost" }>
  /** Whether the keeping fiber hears that a peer asks. */
  readonly listens: boolean
  /** Whether the loop is told of the loss and of who wants it (`WatchLock`). */
  readonly watched: boolean
  /** What becomes of "somebody else needs it": not known, told, or to be told again later. */
  readonly wanted: "no" | "told" | "later"
}

/** A fiber that asks for the lease (`DistributedSemaphore.ask`, after `LeaseKeeper.tryThenWait`). */
export interface Acquiring {
  readonly _tag: "Acquiring"
  readonly machine: Extract<LeaseMachine.State, { _tag: "Asking" | "Waiting" }>
  /** The command that it waits for. */
  readonly waits: Extract<LeaseMachine.Command, { _tag: "Take" | "Await" }>
}

/** A command of the loop that is under way; `stage` says how far an application or a sending has come. */
export interface Running {
  readonly _tag: "Running"
  readonly command: LoopCommand
  readonly stage: "begun" | "committed"
}

export type LoopCommand = Exclude<
  ExtensionLoopMachine.Command,
  { _tag: "AbortWork" | "WatchLock" | "WantLater" | "ReleaseLock" | "DiscardMemory" | "TakeLock" }
>

/** What the end-to-end machine has in memory, and what is only known to the one who checks. */
export interface Memory {
  /** Whether it is what the store has. Nobody in the process knows. */
  readonly current: boolean
  /** Whether something was applied that no commit has made durable. Nobody in the process knows. */
  readonly touched: boolean
  /** A request waits to be sent. */
  readonly outgoing: boolean
}

/** The lease is being let go, or (without a fence) the place in the queue; then the actor goes on with these commands. */
interface Releasing<Command> {
  readonly fence: Lease.Fence | null
  readonly after: ReadonlyArray<Command>
}

/** What every process has: its semaphore, and its turns at the end-to-end machine. */
export interface Member {
  readonly name: string
  /** Its id in the lease row, another one for each start. */
  readonly holder: string
  /** `closing`: the actor has ended, and the lease is being let go. `dead`: killed, ended, or not started yet. */
  readonly life: "runs" | "closing" | "suspended" | "dead"
  readonly grant: Grant | null
  /** The generation under which memory is valid (`DistributedSemaphore`, invariant I5). */
  readonly validGeneration: number | null
  /** Whether turns can be had, and memory is loaded (`CryptoTurn`). */
  readonly turns: { readonly loaded: boolean } | null
  readonly memory: Memory | null
  /** A peer has asked for the lease, and the keeping fiber has not heard it yet. */
  readonly asked: boolean
}

/** The application: its extension loop with mailbox and fibers. */
export interface Application extends Member {
  readonly role: "application"
  readonly loop: ExtensionLoopMachine.State
  readonly mailbox: ReadonlyArray<ExtensionLoopMachine.Input>
  readonly releasing: Releasing<ExtensionLoopMachine.Command> | null
  readonly work: Acquiring | Running | null
  readonly hurries: boolean
}

/** What comes to an actor that resolves a push, as far as it concerns the stream. */
export type NotificationInput =
  | NotificationKeysMachine.Input
  | { readonly _tag: "KeysCommitted" }
  | { readonly _tag: "DecryptAnswered"; readonly isFound: boolean }

/** What the fiber is at that the machine calls `keys`. */
export type KeysWork =
  | { readonly _tag: "Trying"; readonly dead: ReadonlyArray<string> }
  /** `sent` is the stored position once it was read, `response` what the homeserver has answered to it. */
  | {
      readonly _tag: "Iterating"
      readonly stage: "begun" | "asking" | "applying" | "committed"
      readonly timeoutMillis: number
      readonly sent: ExtensionPosition | null
      readonly response: SyncResponse | null
    }
  | { readonly _tag: "SendingOutgoing" }
  | { readonly _tag: "Dropping" }
  | { readonly _tag: "Resting" }
  /** `follows`: whether the store is followed by now. `expects`: whether the key has yet to be committed since. */
  | { readonly _tag: "AwaitingLease"; readonly follows: boolean; readonly expects: boolean }

/** A process that a push has started: it shows one event, which needs the key that a to-device event brings. */
export interface Notification extends Member {
  readonly role: "notification"
  readonly keys: NotificationKeysMachine.State
  readonly mailbox: ReadonlyArray<NotificationInput>
  readonly releasing: Releasing<NotificationKeysMachine.Command> | null
  readonly work: KeysWork | null
  /** The to-device event that brings the key; 0 when that doesn't matter any more. */
  readonly wants: number
  /** How far it is with the event. `outdated`: a key came while it was being decrypted. `over`: it has its result. */
  readonly reading: "toDecrypt" | "decrypting" | "outdated" | "awaitingKey" | "over"
  /** The fiber that decrypts is under way. */
  readonly decrypts: boolean
  /** The fiber that follows an owner: whether its watch is in force, and whether the key has yet to be committed since. */
  readonly owner: { readonly holder: string; readonly inForce: boolean; readonly expects: boolean } | null
}

export type Process = Application | Notification

/** How often something may still happen. */
export interface Budget {
  /** Processes that are killed. */
  readonly crashes: number
  /** Calls that fail, before or after they had their effect, peers that can't be watched, and answers in vain. */
  readonly faults: number
  readonly suspends: number
  /** That a process is in a hurry, or is told to try again. */
  readonly wishes: number
  /** Processes that pushes start. */
  readonly pushes: number
}

/** What the processes share. */
export interface World {
  readonly table: Lease.LeaseTable
  readonly position: ExtensionPosition
  /** Numbers of the to-device events that were applied, in the order of their rows. */
  readonly inbox: ReadonlyArray<number>
  /** A stored request of the end-to-end machine waits to be sent. */
  readonly outgoing: boolean
  /** To-device events that the homeserver has got so far. */
  readonly arrived: number
  /** The homeserver has deleted the events up to this one. */
  readonly deleted: number
  readonly budget: Budget
}

export interface System {
  readonly processes: ReadonlyArray<Process>
  readonly world: World
}

/** What may change in a process. */
export type Change = Partial<Omit<Application, "role">> | Partial<Omit<Notification, "role">>

/** The system with one process changed; who changes what only one role has knows that it has that role. */
export const withProcess = (system: System, index: number, change: Change): System => ({
  ...system,
  processes: system.processes.map((process, at) => (at === index ? ({ ...process, ...change } as Process) : process))
})

/** The system with its world changed. */
export const withWorld = (system: System, change: Partial<World>): System => ({
  ...system,
  world: { ...system.world, ...change }
})

/** The system after something that happens only so often. */
export const spend = (system: System, what: keyof Budget): System => {
  const { budget } = system.world
  return withWorld(system, { budget: { ...budget, [what]: budget[what] - 1 } })
}

export const processAt = (system: System, index: number): Process => {
  const process = system.processes[index]
  if (process === undefined) throw new RangeError(`there is no process ${index}`)
  return process
}

export const applicationAt = (system: System, index: number): Application => {
  const process = processAt(system, index)
  if (process.role !== "application") throw new TypeError(`${process.name} is no application`)
  return process
}

export const notificationAt = (system: System, index: number): Notification => {
  const process = processAt(system, index)
  if (process.role !== "notification") throw new TypeError(`${process.name} is no notification`)
  return process
}
