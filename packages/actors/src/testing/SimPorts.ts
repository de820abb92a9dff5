/**
 * What stands between one simulated process and what it shares: faults of the disk, the network and the signals, and what
 * is seen of its calls.
 *
 * Invariants: I2 is looked at where a `since` leaves the process, I6 where a room list is told, I10 where requests start and
 * the lease is tried.
 *
 * Not here: being killed and frozen (`Gate.ts`), which happens outside of this.
 */
import {
  type Homeserver,
  HomeserverError,
  type RoomList,
  type SlidingSync,
  StoreError,
  type SyncStore,
  type Wake
} from "@twinloop/core"
import { Clock, Effect } from "effect"
import { type FaultKind, httpKind } from "./SimFaults.ts"
import type { SimRecord } from "./SimRecord.ts"
import type { Action, Connection, HttpFault, Operation, StoreFault } from "./SimSchedule.ts"
import type { ProcessOptions, World } from "./Simulation.ts"

/** Which loop a fault is in the way of. */
export type Loop = "main" | "extension"

/** What happens at a call of a store, before it is done or when it is. */
export interface Trap {
  readonly kind: FaultKind
  readonly operation: Operation
  readonly moment: "before" | "after"
  readonly act: Effect.Effect<void, StoreError.StoreErrorReason>
  /** How long it takes, in milliseconds. */
  readonly millis: number
}

interface HttpPlan {
  readonly connection: Connection
  readonly fault: HttpFault
  /** Ends the process. */
  readonly kill: Effect.Effect<void>
  times: number
}

/** What becomes of signals. */
type SignalFault = Extract<Action, { readonly _tag: "Signals" }>["fault"]

/** The faults of one process, and what it is at. */
export interface SimPorts {
  readonly options: Pick<ProcessOptions, "homeserver" | "store" | "leases" | "wake" | "roomList">
  trap(trap: Trap): void
  spoil(plan: HttpPlan): void
  /** The database is given the next commit of this kind twice; the second one's answer is nobody's. */
  repeat(operation: Operation): void
  /** Everything that writes fails until then, in milliseconds of the host's clock. */
  fillDisk(untilMillis: number): void
  /** Everything that reads or writes fails until then. */
  breakDisk(untilMillis: number): void
  /** What becomes of signals that leave the process until then. */
  spoilSignals(untilMillis: number, fault: SignalFault): void
  /** Until when a loop is excused, in milliseconds of the host's clock. */
  readonly disturbedUntil: { main: number; extension: number }
  disturb(loops: ReadonlyArray<Loop>, untilMillis: number): void
  /** A fault that ends a loop has hit. */
  isTerminalExcused: boolean
  /** Faults of the network that have hit. */
  readonly httpFaults: () => number
  /** Requests by operation that wait for their answers. */
  readonly requests: ReadonlyMap<string, number>
  /** Calls of the stores that the loops make, by operation, that are under way. */
  readonly calls: ReadonlyMap<string, number>
  /** Forgets all faults that have not hit. */
  heal(): void
}

/** What is needed of the surroundings. */
export interface Surroundings {
  readonly world: World
  readonly record: SimRecord
  readonly name: string
  /** The host's clock, whatever the process's says. */
  readonly now: () => number
  /** Runs something that goes on without the process. */
  readonly background: (effect: Effect.Effect<unknown, unknown>) => Effect.Effect<void>
  /** Stand between the process and its faults. */
  readonly broken?: {
    readonly store?: (port: SyncStore.SyncStore["Service"]) => SyncStore.SyncStore["Service"]
    readonly homeserver?: (port: Homeserver.Homeserver["Service"]) => Homeserver.Homeserver["Service"]
  }
}

const same = <A>(port: A): A => port

const EXTENSION = "encryption"
const NETWORK_TIMEOUT_MILLIS = 30_000
/** How late a signal is that comes late: after others that were sent after it. */
const SIGNAL_MILLIS = 700
/** Requests that a process makes in one instant at most: more, and it goes round without time passing. */
const INSTANT_LIMIT = 400
/** Tries of the lease in one instant, of which a process makes a few for each other process that is in its way. */
const INSTANT_TAKES_LIMIT = 40

const storeReasons: { readonly [fault in StoreFault]: () => StoreError.StoreErrorReason } = {
  busy: () => new StoreError.StoreBusy({ message: "another process writes (simulated)" }),
  full: () => new StoreError.StoreFull({ message: "the disk is full (simulated)" }),
  readOnly: () => new StoreError.StoreReadOnly({ message: "the file system is read-only (simulated)" }),
  failing: () => new StoreError.StoreUnavailable({ message: "the disk fails (simulated)" })
}

/** The reason of a store's fault. */
export const storeReason = (fault: StoreFault): StoreError.StoreErrorReason => storeReasons[fault]()

const refusal = (status: number, retryAfterMillis: number): HomeserverError.HomeserverErrorReason => {
  const message = `status ${status} (simulated)`
  if (status === 200) return new HomeserverError.BadResponse({ message })
  if (status === 401) return new HomeserverError.Unauthorized({ message, softLogout: false })
  if (status === 403) return new HomeserverError.Forbidden({ message, errcode: "M_FORBIDDEN" })
  if (status === 404) return new HomeserverError.NotFound({ message })
  if (status === 429)
    return new HomeserverError.RateLimited({ message, ...(retryAfterMillis > 0 && { retryAfterMillis }) })
  return status >= 500
    ? new HomeserverError.ServerError({ message, status })
    : new HomeserverError.BadRequest({ message, status, errcode: "M_UNKNOWN" })
}

const connectionOf = (connId: string): Connection =>
  connId === EXTENSION ? "extension" : connId.startsWith("rooms-") ? "main" : "push"

const MAIN_CALLS: ReadonlySet<string> = new Set(["commitMain", "mainPosition", "loadMain", "expireMain"])
/** Calls that the application makes by its inbox, and not the loops. */
const INBOX_CALLS: ReadonlySet<string> = new Set(["advanceInbox", "readInbox", "inboxCursor"])
const WRITES: ReadonlySet<string> = new Set([
  "commitExtension",
  "commitMain",
  "commitCrypto",
  "expireExtension",
  "expireMain",
  "advanceInbox",
  "take",
  "renew",
  "release",
  "leave"
])

/** Counts what is under way, by name. */
const makeCounter = () => {
  const counts = new Map<string, number>()
  const add = (name: string, by: number) => Effect.sync(() => void counts.set(name, (counts.get(name) ?? 0) + by))
  const during = <A, E>(name: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.acquireUseRelease(
      add(name, 1),
      () => effect,
      () => add(name, -1)
    )
  return { counts, during }
}

/** Makes the faults of one process; none is in force. */
export const makePorts = ({ world, record, name, now, background, broken = {} }: Surroundings): SimPorts => {
  const traps: Array<Trap> = []
  const plans: Array<HttpPlan> = []
  const repeats: Array<string> = []
  const disk = { fullUntil: 0, failsUntil: 0, isMet: true }
  const signals: { untilMillis: number; fault: SignalFault } = { untilMillis: 0, fault: "lost" }
  let httpFaults = 0
  const requests = makeCounter()
  const calls = makeCounter()

  /** Tells a loop that goes round without time passing: it would never let the clock go on, and must be ended. */
  const hotLoop = (limit: number) => {
    let instant = { atMillis: -1, count: 0 }
    return (what: string): boolean => {
      const atMillis = now()
      if (instant.atMillis !== atMillis) instant = { atMillis, count: 0 }
      instant.count += 1
      if (instant.count === limit) record.violate("I10 bounded", `${name} has made ${limit} ${what} in one instant`)
      return instant.count >= limit
    }
  }
  const asksHotly = hotLoop(INSTANT_LIMIT)
  const triesHotly = hotLoop(INSTANT_TAKES_LIMIT)

  const disturb = (loops: ReadonlyArray<Loop>, untilMillis: number): void => {
    for (const loop of loops) ports.disturbedUntil[loop] = Math.max(ports.disturbedUntil[loop], untilMillis)
  }

  // --- the stores

  /** What the disk says to every call, if it says anything. */
  const diskReason = (operation: string, loops: ReadonlyArray<Loop>): StoreError.StoreErrorReason | undefined => {
    const fails = now() < disk.failsUntil
    if (!fails && !(WRITES.has(operation) && now() < disk.fullUntil)) return undefined
    if (!disk.isMet) record.hit(fails ? "diskFailing" : "diskFull", name)
    disk.isMet = true
    disturb(loops, fails ? disk.failsUntil : disk.fullUntil)
    if (fails) ports.isTerminalExcused = true
    return storeReason(fails ? "failing" : "full")
  }

  const play = (operation: string, moment: "before" | "after"): Effect.Effect<void, StoreError.StoreErrorReason> =>
    Effect.suspend(() => {
      const loops: ReadonlyArray<Loop> = MAIN_CALLS.has(operation) ? ["main"] : ["extension"]
      const reason = moment === "before" ? diskReason(operation, loops) : undefined
      if (reason !== undefined) return Effect.fail(reason)
      const index = traps.findIndex((trap) => trap.operation === operation && trap.moment === moment)
      const [trap] = index === -1 ? [] : traps.splice(index, 1)
      if (trap === undefined) return Effect.void
      record.hit(trap.kind, `${name}: ${operation} ${moment}`)
      // A commit that was told to have failed is read again by whoever reads the same connection.
      disturb(loops, now() + trap.millis)
      return trap.act
    })

  const repeated = <A, E>(operation: string, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const index = repeats.indexOf(operation)
      if (index === -1) return call
      repeats.splice(index, 1)
      record.hit("commitTwice", `${name}: ${operation}`)
      return Effect.tap(call, () => Effect.ignore(call))
    })

  const guardCall = <A>(operation: string, call: Effect.Effect<A, StoreError.StoreError>) => {
    const fail = (reason: StoreError.StoreErrorReason) => new StoreError.StoreError({ operation, reason })
    const once = Effect.mapError(play(operation, "before"), fail).pipe(
      Effect.andThen(repeated(operation, call)),
      Effect.tap(() => Effect.mapError(play(operation, "after"), fail))
    )
    const guarded =
      operation === "take" ? Effect.suspend(() => (triesHotly("tries of the lease") ? Effect.never : once)) : once
    return INBOX_CALLS.has(operation) ? guarded : calls.during(operation, guarded)
  }

  /** Every call of a port through the traps. */
  const guarded = <S extends object>(port: S): S =>
    Object.fromEntries(
      Object.entries(port).map(([operation, member]: [string, unknown]) => {
        if (Effect.isEffect(member)) return [operation, guardCall(operation, member as Effect.Effect<unknown, never>)]
        if (typeof member !== "function") return [operation, member]
        return [operation, (...args: ReadonlyArray<unknown>) => guardCall(operation, member(...args))]
      })
    ) as S

  // --- the network

  const takePlan = (connection: Connection): HttpPlan | undefined => {
    const plan = plans.find((plan) => plan.connection === connection)
    if (plan === undefined) return undefined
    plan.times -= 1
    if (plan.times <= 0) plans.splice(plans.indexOf(plan), 1)
    httpFaults += 1
    record.hit(httpKind(plan.fault), `${name}: ${connection} ${plan.fault._tag}`)
    return plan
  }

  /** What is asked, as far as faults treat it differently. */
  interface Asked {
    readonly operation: string
    readonly connection: Connection
    /** How long the homeserver may hold it. */
    readonly holdMillis: number
    /** Whether it does no harm when it arrives long after its client has given it up. */
    readonly mayBeLate: boolean
  }

  const spoilt = <A>(
    { connection, holdMillis, mayBeLate, operation }: Asked,
    call: Effect.Effect<A, HomeserverError.HomeserverError>
  ): Effect.Effect<A, HomeserverError.HomeserverError> =>
    Effect.suspend(() => {
      const plan = takePlan(connection)
      if (plan === undefined) return call
      const { fault, kill } = plan
      const loops: ReadonlyArray<Loop> =
        connection === "other" ? ["main", "extension"] : connection === "main" ? ["main"] : ["extension"]
      const fail = (reason: HomeserverError.HomeserverErrorReason) =>
        Effect.fail(new HomeserverError.HomeserverError({ operation, reason }))
      const lost = (timedOut: boolean) =>
        fail(new HomeserverError.NetworkError({ message: "no answer (simulated)", timedOut }))
      disturb(loops, now())
      switch (fault._tag) {
        case "LostRequest":
          return lost(false)
        case "LostAnswer":
          disturb(loops, now() + holdMillis)
          return Effect.andThen(Effect.exit(call), fault.isProxy ? fail(refusal(502, 0)) : lost(false))
        case "LateAnswer":
          disturb(loops, now() + holdMillis + fault.millis)
          return Effect.tap(call, Effect.sleep(fault.millis))
        case "LateRequest":
          return Effect.andThen(mayBeLate ? background(Effect.delay(call, fault.millis)) : Effect.void, lost(true))
        case "Twice":
          return Effect.andThen(background(call), call)
        case "Hang": {
          const limitMillis = holdMillis + NETWORK_TIMEOUT_MILLIS
          disturb(loops, now() + limitMillis)
          return Effect.andThen(Effect.sleep(limitMillis), lost(true))
        }
        case "Refused":
          if (fault.status === 401) ports.isTerminalExcused = true
          disturb(loops, now() + Math.min(fault.retryAfterMillis, 300_000))
          return fail(refusal(fault.status, fault.retryAfterMillis))
        case "Killed":
          return Effect.andThen(
            fault.moment === "after" ? Effect.exit(call) : Effect.void,
            Effect.andThen(kill, Effect.never)
          )
      }
    })

  /** An access token that has ended is renewed, and the call made once more, as the HTTP adapter does. */
  const renewed = <A>(call: Effect.Effect<A, HomeserverError.HomeserverError>) =>
    Effect.catchIf(
      call,
      ({ reason }) => reason._tag === "Unauthorized" && reason.softLogout,
      () =>
        Effect.andThen(
          world.sim.model((state) => {
            const token = state.accessTokens.get(world.session.accessToken)
            if (token !== undefined) delete token.expiresAtMillis
          }),
          call
        )
    )

  const counted = <A, E>(key: string, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (asksHotly(`requests, the last one ${key},`)) return Effect.never
      record.note(`${name} ${key}`)
      return requests.during(key, call)
    })

  const request = <A>(key: string, asked: Asked, call: Effect.Effect<A, HomeserverError.HomeserverError>) =>
    counted(key, spoilt(asked, renewed(call)))

  /** The `since` that leaves the process acknowledges what came before it, so that must be stored. */
  const checkSince = (sync: SlidingSync.SyncRequest): Effect.Effect<void> => {
    const since = sync.extensions.toDevice?.since
    if (since === undefined) return Effect.void
    return Effect.map(Effect.orDie(world.store.extensionPosition), (stored) => {
      if (Number(since) > Number(stored.since ?? 0)) {
        record.violate(
          "I2 acknowledgedIsStored",
          `${name} sends since ${since}, which lets the homeserver delete what came before it, while ${stored.since ?? "none"} is stored`
        )
      }
    })
  }

  const homeserver = (port: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] => {
    const others = Object.fromEntries(
      Object.entries(port).map(([operation, member]: [string, unknown]) => {
        const other = (call: Effect.Effect<unknown, HomeserverError.HomeserverError>, mayBeLate: boolean) =>
          request(operation, { operation, connection: "other", holdMillis: 0, mayBeLate }, call)
        if (Effect.isEffect(member)) return [operation, other(member as Effect.Effect<unknown, never>, true)]
        if (typeof member !== "function") return [operation, member]
        // One-time keys that arrive again when some were handed out are handed out again: no client can undo that.
        return [operation, (...args: ReadonlyArray<unknown>) => other(member(...args), operation !== "keys")]
      })
    ) as unknown as Homeserver.Homeserver["Service"]
    return {
      ...others,
      sync: (sync) => {
        const connection = connectionOf(sync.connId)
        const call = Effect.andThen(checkSince(sync), port.sync(sync))
        const asked = { operation: "sync", connection, holdMillis: sync.timeoutMillis, mayBeLate: true }
        return request(`sync ${sync.connId}`, asked, call)
      }
    }
  }

  // --- signals and the room list

  const wake = (port: Wake["Service"]): Wake["Service"] => {
    const signalled = (effect: Effect.Effect<void>) =>
      Effect.suspend(() => {
        if (now() >= signals.untilMillis) return effect
        switch (signals.fault) {
          case "lost":
            record.hit("signalsLost", name)
            return Effect.void
          case "late":
            record.hit("signalsLate", name)
            return background(Effect.delay(effect, SIGNAL_MILLIS))
          case "twice":
            record.hit("signalsTwice", name)
            return Effect.andThen(effect, effect)
        }
      })
    return {
      ...port,
      notify: (topic) => signalled(port.notify(topic)),
      ask: (peer, topic) => signalled(port.ask(peer, topic))
    }
  }

  const roomList = (list: RoomList.RoomList["Service"]): RoomList.RoomList["Service"] => ({
    ...list,
    publish: (update) =>
      Effect.andThen(
        Effect.sync(() => record.published(name, update.changed)),
        list.publish(update)
      ),
    reset: (snapshot) =>
      Effect.andThen(
        Effect.sync(() => record.published(name, snapshot.rooms)),
        list.reset(snapshot)
      )
  })

  const ports: SimPorts = {
    options: {
      // What is broken is outside of what looks at it.
      homeserver: (port) => (broken.homeserver ?? same)(homeserver(port)),
      store: (port) => guarded((broken.store ?? same)(port)),
      leases: guarded,
      wake,
      roomList
    },
    trap: (trap) => void traps.push(trap),
    spoil: (plan) => void plans.push({ ...plan }),
    repeat: (operation) => void repeats.push(operation),
    fillDisk: (untilMillis) => {
      disk.fullUntil = untilMillis
      disk.isMet = false
    },
    breakDisk: (untilMillis) => {
      disk.failsUntil = untilMillis
      disk.isMet = false
    },
    spoilSignals: (untilMillis, fault) => Object.assign(signals, { untilMillis, fault }),
    disturbedUntil: { main: 0, extension: 0 },
    disturb,
    isTerminalExcused: false,
    httpFaults: () => httpFaults,
    requests: requests.counts,
    calls: calls.counts,
    heal: () => {
      traps.length = 0
      plans.length = 0
      repeats.length = 0
      Object.assign(disk, { fullUntil: 0, failsUntil: 0 })
      signals.untilMillis = 0
    }
  }
  return ports
}

/** The host's time, read outside of any process. */
export const hostClock: Effect.Effect<() => number> = Clock.clockWith((clock) =>
  Effect.succeed(() => clock.currentTimeMillisUnsafe())
)
