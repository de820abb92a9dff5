/**
 * Plays a story with real processes, their extension loops and a notification client, over a simulated host, and writes down
 * what they are seen to do (`Paths.ts` says what that is).
 *
 * Real are `ExtensionSync`, `Notifications`, `ExtensionBatch`, `CryptoTurn`, `OutgoingRequests`, `LeaseKeeper`, the semaphore and
 * the machines. The end-to-end machine only remembers whether it has something to send, as in the model.
 *
 * Gotchas: what is seen is written down in the very step in which it happens, so that the order is the real one.
 */
import { EXTENSION_LEASE } from "../../../packages/actors/src/SyncService.ts"
import * as ExtensionSync from "../../../packages/actors/src/ExtensionSync.ts"
import { clientIn } from "../../../packages/actors/src/testing/NotifierProcess.ts"
import { makeWorld, type Process, startProcess, type World } from "../../../packages/actors/src/testing/Simulation.ts"
import { advance, settle } from "../../../packages/actors/src/testing/Time.ts"
import {
  CryptoEngine,
  DistributedSemaphore,
  type EventDecryptor,
  type Homeserver,
  type LeaseStore,
  StoreError,
  SyncConfig,
  type SyncStore
} from "@twinloop/core"
import { Clock, Effect, Exit, Layer, References, Scope } from "effect"
import type { Seen, Shared } from "./Paths.ts"

export type Name = "A" | "B" | "N"
type App = "A" | "B"

/** Something that is done to the processes, or with them. */
export type Act =
  | { readonly act: "start" | "kill" | "suspend" | "resume" | "hurry" | "freeze" | "thaw"; readonly who: App }
  | { readonly act: "failBefore" | "failAfter"; readonly who: Name }
  /** The next commit, whoever makes it, takes so long. */
  | { readonly act: "slow"; readonly millis: number }
  | { readonly act: "event" | "killPush" | "cut" | "mend" | "expire" }
  /** An event whose key is brought by so many events after those that were sent; 0 for the last one. */
  | { readonly act: "push"; readonly ahead: number }
  | { readonly act: "wait"; readonly millis: number }

const RECORD = new Uint8Array([1])

const unscripted = Effect.die("nobody sends messages here")

/** An end-to-end machine that wants one request sent after each batch that brings something. */
const makeEngine = (world: World, onLoad: Effect.Effect<void>) => {
  let memory: { outgoing: boolean } | undefined
  const stored = Effect.map(world.faults.cryptoRecords, ([record]) => record?.value[0] === 1)
  const written = (outgoing: boolean) => [
    { collection: "outgoing", key: RECORD, value: new Uint8Array([outgoing ? 1 : 0]) }
  ]
  return CryptoEngine.CryptoEngine.of({
    reload: () =>
      Effect.gen(function* () {
        memory = { outgoing: yield* stored }
        yield* onLoad
      }).pipe(Effect.provideService(References.PreventSchedulerYield, true)),
    receive: (_, { toDevice }) =>
      Effect.sync(() => {
        memory = { outgoing: toDevice.length > 0 || memory?.outgoing === true }
        const inbox = toDevice.map((event) => ({
          type: event.type,
          sender: event.sender,
          event,
          encryption: "none" as const
        }))
        const news = toDevice.map((event) => ({
          _tag: "RoomKey" as const,
          roomId: "!room:localhost",
          sessionId: `${String((event["content"] as { readonly number?: unknown }).number)}`
        }))
        return { value: { inbox, quarantined: [] }, writes: written(memory.outgoing), news }
      }),
    committed: Effect.void,
    discard: Effect.sync(() => (memory = undefined)),
    outgoing: () =>
      Effect.sync(() =>
        CryptoEngine.unchanged(
          memory?.outgoing === true
            ? [
                {
                  id: "query",
                  request: { _tag: "Keys" as const, keys: { kind: "query" as const, body: { device_keys: {} } } }
                }
              ]
            : []
        )
      ),
    markSent: () =>
      Effect.sync(() => {
        memory = { outgoing: false }
        return { value: undefined, writes: written(false), news: [] }
      }),
    track: () => unscripted,
    claim: () => unscripted,
    shareRoomKey: () => unscripted,
    encrypt: () => unscripted,
    bootstrapCrossSigning: () => unscripted,
    setLocalTrust: () => unscripted
  })
}

/** Reads an event once as many to-device events were applied as its content's `wants` says. */
const makeDecryptor = (world: World): EventDecryptor.EventDecryptor["Service"] => ({
  devices: () => Effect.succeed([]),
  status: Effect.die("nobody asks"),
  decrypt: (_, event) =>
    Effect.map(Effect.orDie(world.store.readInbox({ after: 0, limit: 1_000_000 })), (entries) => {
      const wants = Number(event.content["wants"])
      return entries.length < wants
        ? { _tag: "Undecryptable", reason: "MissingRoomKey", message: "no key yet", sessionId: `${wants}` }
        : {
            _tag: "Decrypted",
            event: { ...event, type: "m.room.message", content: { body: "read" } },
            shield: { color: "none" },
            sessionId: `${wants}`,
            senderKey: "k"
          }
    })
})

const isRefusal = ({ reason }: StoreError.StoreError): boolean =>
  reason._tag === "StaleGeneration" || reason._tag === "Moved"

/** Writes down what is seen. */
const makeRecorder = (world: World) => {
  const story: Array<Seen> = []
  const holders = new Map<string, Name>()
  const current = new Map<Name, string>()
  let deadlineMillis = Number.POSITIVE_INFINITY

  const nameOf = (holder: string): string => {
    if (holder === "") return ""
    const name = holders.get(holder)
    return name !== undefined && current.get(name) === holder ? name : "old"
  }
  const look = Effect.gen(function* () {
    const { rows, waiters } = yield* Effect.orDie(world.leases.inspect(EXTENSION_LEASE))
    const entries = yield* Effect.orDie(world.store.readInbox({ after: 0, limit: 1_000_000 }))
    const nowMillis = yield* Clock.currentTimeMillis
    const row = rows[0]
    const shared: Shared = {
      owner: nameOf(row?.holder ?? ""),
      generation: row?.generation ?? 0,
      isReleased: row === undefined || row.expiresAtMillis === 0,
      queue: waiters.map(({ holder, urgent }) => `${nameOf(holder)}${urgent ? "!" : ""}`),
      applied: entries.length
    }
    const over = {
      lease: row !== undefined && row.expiresAtMillis <= nowMillis,
      place: waiters.some(({ expiresAtMillis }) => expiresAtMillis <= nowMillis),
      push: nowMillis >= deadlineMillis
    }
    return { shared, over }
  })
  const see = (what: string) => Effect.map(look, (seen) => void story.push({ what, ...seen }))
  const atOnce = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.provideService(effect, References.PreventSchedulerYield, true)

  /** A call whose result is written down with it. */
  const seen = <A>(
    name: Name,
    what: string,
    call: Effect.Effect<A, StoreError.StoreError>
  ): Effect.Effect<A, StoreError.StoreError> =>
    atOnce(
      call.pipe(
        Effect.tap(() => see(`${name} ${what}`)),
        Effect.tapError((error) => (isRefusal(error) ? see(`${name} is refused`) : Effect.void))
      )
    )
  /** A call that may change the lease. */
  const leasing = <A>(name: Name, call: Effect.Effect<A, StoreError.StoreError>) =>
    atOnce(
      Effect.gen(function* () {
        const before = yield* look
        const answer = yield* call
        const { shared } = yield* look
        if (JSON.stringify(shared) !== JSON.stringify(before.shared))
          story.push({ what: `${name} changes the lease`, shared, over: before.over })
        return answer
      })
    )
  const leases =
    (name: Name) =>
    (port: LeaseStore["Service"]): LeaseStore["Service"] => ({
      ...port,
      take: (request) =>
        Effect.suspend(() => {
          holders.set(request.holder, name)
          current.set(name, request.holder)
          return leasing(name, port.take(request))
        }),
      release: (request) => leasing(name, port.release(request)),
      leave: (request) => leasing(name, port.leave(request))
    })
  /** Commits of a process that fail, before or after they were done. */
  const failing: Array<{ readonly name: Name; readonly isAfter: boolean }> = []
  const spoilt = <A>(name: Name, call: Effect.Effect<A, StoreError.StoreError>) =>
    Effect.suspend(() => {
      const at = failing.findIndex((one) => one.name === name)
      if (at < 0) return seen(name, "commits", call)
      const [fault] = failing.splice(at, 1)
      const failure = new StoreError.StoreError({
        operation: "commitExtension",
        reason: new StoreError.StoreBusy({ message: "another process writes" })
      })
      const done = fault?.isAfter === true ? Effect.asVoid(call) : Effect.void
      return atOnce(
        Effect.matchEffect(done, {
          // A commit that is refused has not met its fault.
          onFailure: (error) => Effect.andThen(see(`${name} is refused`), Effect.fail(error)),
          onSuccess: () => Effect.andThen(see(`${name} fails: commit`), Effect.fail(failure))
        })
      )
    })
  const store =
    (name: Name) =>
    (port: SyncStore.SyncStore["Service"]): SyncStore.SyncStore["Service"] => ({
      ...port,
      extensionPosition: seen(name, "reads", port.extensionPosition),
      commitExtension: (fence, commit) => spoilt(name, port.commitExtension(fence, commit)),
      commitCrypto: (fence, commit) => seen(name, "sends", port.commitCrypto(fence, commit)),
      expireExtension: (fence) => seen(name, "drops", port.expireExtension(fence))
    })
  const homeserver =
    (name: Name) =>
    (port: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] => ({
      ...port,
      sync: (request) =>
        request.connId === "encryption"
          ? port.sync(request).pipe(
              Effect.tap(() => see(`${name} is answered`)),
              Effect.tapError(({ reason }) =>
                see(`${name} fails: ${reason._tag === "UnknownPosition" ? "expired" : "network"}`)
              )
            )
          : port.sync(request)
    })
  return {
    story,
    see,
    failing,
    portsOf: (name: Name) => ({ leases: leases(name), store: store(name), homeserver: homeserver(name) }),
    onLoad: (name: Name) => see(`${name} loads`),
    forget: (name: Name) => void current.delete(name),
    setDeadline: (millis: number) => {
      deadlineMillis = millis
    }
  }
}

type Recorder = ReturnType<typeof makeRecorder>

const started = (world: World, recorder: Recorder, name: Name, start: number) =>
  startProcess(world, `${name}${start}`, {
    ...recorder.portsOf(name),
    crypto: Layer.succeed(CryptoEngine.CryptoEngine, makeEngine(world, recorder.onLoad(name))),
    config: { notificationAppRole: "app" }
  })

/** An application whose extension loop runs, unless it is suspended. */
interface Running {
  readonly process: Process
  readonly semaphore: DistributedSemaphore.DistributedSemaphore
  loop: { readonly scope: Scope.Closeable; readonly hurry: Effect.Effect<void> } | undefined
}

const resume = Effect.fnUntraced(function* ({ process, semaphore }: Running) {
  const scope = yield* Scope.make()
  const loop = yield* ExtensionSync.make(semaphore).pipe(Scope.provide(scope), Effect.provide(process.context))
  return { scope, hurry: loop.hurry }
})

type Fences = (leases: LeaseStore["Service"]) => LeaseStore["Service"]

/**
 * Plays a story; gives what was seen.
 *
 * @param fences what the database believes of its lease rows when it checks a fence, to see what a broken one leads to
 */
export const play = Effect.fnUntraced(function* (acts: ReadonlyArray<Act>, fences?: Fences) {
  const world = yield* makeWorld(undefined, fences)
  const recorder = makeRecorder(world)
  yield* world.sim.addUser("bob")
  const roomId = yield* world.sim.addRoom({ members: ["@bob:localhost", world.session.userId], isEncrypted: true })
  const apps = new Map<App, Running>()
  let push: { readonly process: Process; readonly scope: Scope.Closeable; isOver: boolean } | undefined
  let starts = 0
  let sent = 0

  const start = Effect.fnUntraced(function* (who: App) {
    if (apps.has(who)) return
    recorder.forget(who)
    const process = yield* started(world, recorder, who, ++starts)
    const semaphore = yield* Effect.provide(
      DistributedSemaphore.make({ name: EXTENSION_LEASE, permits: 1 }),
      process.context
    )
    const app: Running = { process, semaphore, loop: undefined }
    apps.set(who, app)
    yield* recorder.see(`${who} is started`)
    app.loop = yield* resume(app)
  })
  const begin = Effect.fnUntraced(function* (ahead: number) {
    if (push?.isOver === false) return
    const wants = sent + ahead
    if (wants === 0) return
    if (push !== undefined) yield* push.process.end
    recorder.forget("N")
    const process = yield* started(world, recorder, "N", ++starts)
    const scope = yield* Scope.make()
    const content = { algorithm: "m.megolm.v1.aes-sha2", wants }
    const eventId = yield* world.sim.sendEvent(roomId, { type: "m.room.encrypted", sender: "@bob:localhost", content })
    const client = yield* Scope.provide(clientIn(world, process, makeDecryptor(world)), scope)
    const running = { process, scope, isOver: false }
    push = running
    recorder.setDeadline((yield* Clock.currentTimeMillis) + SyncConfig.defaults.notificationDeadlineMillis)
    yield* recorder.see(`N is pushed for ${wants}`)
    yield* client
      .resolve({ roomId, eventId })
      .pipe(
        Effect.andThen(client.settled),
        Effect.andThen(Effect.sync(() => (running.isOver = true))),
        Effect.forkIn(scope)
      )
  })
  const withApp = (who: App, use: (app: Running) => Effect.Effect<unknown, never, Scope.Scope>) =>
    Effect.suspend((): Effect.Effect<unknown, never, Scope.Scope> => {
      const app = apps.get(who)
      return app === undefined ? Effect.void : use(app)
    })
  // Written down first, since others hear of it at once.
  const killed = (who: Name, process: Process) =>
    Effect.andThen(recorder.see(`${who} is killed`), process.kill).pipe(
      Effect.provideService(References.PreventSchedulerYield, true)
    )
  const suspend = (who: App) => (app: Running) =>
    Effect.gen(function* () {
      if (app.loop === undefined) return
      const { scope } = app.loop
      app.loop = undefined
      yield* recorder.see(`${who} is suspended`)
      yield* Effect.forkScoped(Scope.close(scope, Exit.void))
    })
  const perform = (one: Act): Effect.Effect<unknown, unknown, Scope.Scope> => {
    switch (one.act) {
      case "start":
        return start(one.who)
      case "kill":
        return withApp(one.who, (app) => {
          apps.delete(one.who)
          return killed(one.who, app.process)
        })
      case "suspend":
        return withApp(one.who, suspend(one.who))
      case "resume":
        return withApp(one.who, (app) =>
          Effect.gen(function* () {
            if (app.loop !== undefined) return
            yield* recorder.see(`${one.who} is resumed`)
            app.loop = yield* resume(app)
          })
        )
      case "hurry":
        return withApp(one.who, (app) =>
          app.loop === undefined ? Effect.void : Effect.andThen(recorder.see(`${one.who} hurries`), app.loop.hurry)
        )
      case "freeze":
        return withApp(one.who, ({ process }) => process.freeze)
      case "thaw":
        return withApp(one.who, ({ process }) => process.thaw)
      case "failBefore":
      case "failAfter":
        return Effect.sync(() => recorder.failing.push({ name: one.who, isAfter: one.act === "failAfter" }))
      case "slow":
        return world.faults.delayNext("commitExtension", one.millis)
      case "event":
        sent++
        return Effect.andThen(recorder.see("event arrives"), world.sim.sendNumbered(world.session, 1))
      case "push":
        return begin(one.ahead)
      case "killPush":
        return Effect.suspend((): Effect.Effect<unknown> => {
          if (push === undefined || push.isOver) return Effect.void
          push.isOver = true
          return killed("N", push.process)
        })
      case "cut":
        return world.sim.unreachable
      case "mend":
        return world.sim.reachable
      case "expire":
        return world.sim.expirePositions(world.session, "encryption")
      case "wait":
        return advance(one.millis)
    }
  }
  for (const act of acts) yield* Effect.andThen(perform(act), settle)
  return recorder.story
}, Effect.scoped)
