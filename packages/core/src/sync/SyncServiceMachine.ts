/**
 * Decides the service around the two loops: whether they run, what its state is, and when to probe an offline homeserver.
 *
 * Includes the intent (`start`, `stop`, `suspend`, `resume`), the summary of each loop's state, the derived service state,
 * and whether a probe is needed. Pure.
 *
 * Invariants: I3 (the service's state is derived from the loops', never the other way round), I9 (a probe shortens a
 * loop's backoff; it never decides about it).
 *
 * Gotchas: several parties may suspend (the operating system, an operator); the loops run again when each has resumed.
 *
 * Not here: opening and closing the loops (`SyncService` in actors).
 */
import type * as ExtensionLoopMachine from "./ExtensionLoopMachine.ts"
import type * as MainLoopMachine from "./MainLoopMachine.ts"
import type * as SupervisionPolicy from "./SupervisionPolicy.ts"

type Failure = SupervisionPolicy.Failure

/** What the application and the platform want. */
export interface Intent {
  readonly started: boolean
  /** Who has suspended and not resumed. */
  readonly suspendedBy: ReadonlySet<string>
}

export const initialIntent: Intent = { started: false, suspendedBy: new Set() }

/** Whether the loops should run. */
export const shouldRun = (intent: Intent): boolean => intent.started && intent.suspendedBy.size === 0

/** Starting twice is starting once. Started while suspended, the loops run when everybody has resumed. */
export const start = (intent: Intent): Intent => ({ ...intent, started: true })

/** Stopping twice is stopping once. A suspension outlives it: who suspended must still resume. */
export const stop = (intent: Intent): Intent => ({ ...intent, started: false })

/** Suspending twice by the same party is suspending once. */
export const suspend = (intent: Intent, by: string): Intent => ({
  ...intent,
  suspendedBy: new Set([...intent.suspendedBy, by])
})

/** Takes back one party's suspension; one that wasn't there changes nothing. */
export const resume = (intent: Intent, by: string): Intent => ({
  ...intent,
  suspendedBy: new Set([...intent.suspendedBy].filter((other) => other !== by))
})

/** A loop's state, as far as others need to know. */
export type LoopStatus =
  /** Doesn't run. */
  | { readonly _tag: "Stopped" }
  /** Asks for the extension stream, and doesn't know yet whether another process has it. */
  | { readonly _tag: "TakingLock" }
  /** Waits for another process to let the extension stream go. */
  | { readonly _tag: "WaitingForLock" }
  /**
   * On its way to the long poll: the homeserver has not answered since the start, the grant or the last failure, or (main
   * loop) `loaded` of `total` rooms are there.
   */
  | { readonly _tag: "Loading"; readonly loaded?: number; readonly total?: number }
  /** Long polls, and the homeserver has answered since the last failure. */
  | { readonly _tag: "Syncing"; readonly generation?: number }
  /** Failed, and tries again at that time. */
  | { readonly _tag: "BackingOff"; readonly failure: Failure; readonly untilMillis: number }
  /** Nothing that the loop can do helps. */
  | { readonly _tag: "Failed"; readonly failure: Failure }

export const stopped: LoopStatus = { _tag: "Stopped" }

const loading = (loop: MainLoopMachine.Loop): LoopStatus => ({
  _tag: "Loading",
  loaded: loop.loaded,
  ...(loop.count === undefined ? {} : { total: loop.count })
})

/** Summarises the main loop's state. */
export const mainStatus = (state: MainLoopMachine.State): LoopStatus => {
  switch (state._tag) {
    case "Idle":
      return stopped
    case "Loading":
      return { _tag: "Loading" }
    case "Polling":
    case "Committing":
      return state.loop.phase === "running" ? { _tag: "Syncing" } : loading(state.loop)
    case "Expiring":
      return loading(state.loop)
    case "BackingOff":
    case "LoadBackingOff":
      return { _tag: "BackingOff", failure: state.failure, untilMillis: state.untilMillis }
    case "Failed":
      return { _tag: "Failed", failure: state.failure }
  }
}

/** Summarises the extension loop's state. */
export const extensionStatus = (state: ExtensionLoopMachine.State): LoopStatus => {
  switch (state._tag) {
    case "Idle":
      return stopped
    case "WaitingForLock":
      return { _tag: state.refused ? "WaitingForLock" : "TakingLock" }
    case "Reloading":
    case "Expiring":
      return { _tag: "Loading" }
    case "Reading":
    case "Polling":
    case "Applying":
    case "Sending":
      return state.answered ? { _tag: "Syncing", generation: state.fence.generation } : { _tag: "Loading" }
    case "BackingOff":
    case "Resting":
      return { _tag: "BackingOff", failure: state.failure, untilMillis: state.untilMillis }
    case "Failed":
      return { _tag: "Failed", failure: state.failure }
  }
}

/** Both loops' own states. */
export interface Loops {
  readonly main: LoopStatus
  readonly extension: LoopStatus
}

/** The service as a whole, with both loops' own states. */
export type ServiceState =
  | ({ readonly _tag: "Idle" } & Loops)
  | ({ readonly _tag: "Running" } & Loops)
  /** No answer comes from the homeserver: the loops try again, and a probe watches for the network's return. */
  | ({ readonly _tag: "Offline" } & Loops)
  | ({ readonly _tag: "Suspended"; readonly by: ReadonlyArray<string> } & Loops)
  /** A loop has given up: a lost login, an unsupported homeserver, or storage that can't be used. `start` tries again. */
  | ({ readonly _tag: "Terminal"; readonly loop: "main" | "extension"; readonly failure: Failure } & Loops)

/** Whether this loop waits for the network. */
export const isOffline = (status: LoopStatus): boolean =>
  status._tag === "BackingOff" && status.failure.class === "network"

/** Whether any loop waits for the network. */
export const needsProbe = (loops: Loops): boolean => isOffline(loops.main) || isOffline(loops.extension)

/** Derives the service's state from the intent and the loops. `Terminal` outranks `Offline`: it needs somebody. */
export const derive = (intent: Intent, loops: Loops): ServiceState => {
  if (!intent.started) return { _tag: "Idle", ...loops }
  if (intent.suspendedBy.size > 0) return { _tag: "Suspended", by: [...intent.suspendedBy].sort(), ...loops }
  if (loops.main._tag === "Failed") return { _tag: "Terminal", loop: "main", failure: loops.main.failure, ...loops }
  if (loops.extension._tag === "Failed") {
    return { _tag: "Terminal", loop: "extension", failure: loops.extension.failure, ...loops }
  }
  return needsProbe(loops) ? { _tag: "Offline", ...loops } : { _tag: "Running", ...loops }
}

/** Whether the room list should say that it is being brought up to date. */
export type Indicator = "Show" | "Hide"

/**
 * What a state asks of the indicator: `Show` while rooms are being loaded and while the main loop waits to try again after
 * an error. `Hide` when the list is up to date, when nothing runs, and when the main loop has given up: then there is
 * nothing to wait for, and `Terminal` has the reason to show instead.
 */
export const indicatorOf = (state: ServiceState): Indicator =>
  state.main._tag === "Loading" || state.main._tag === "BackingOff" ? "Show" : "Hide"
