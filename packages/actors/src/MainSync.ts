/**
 * The main loop: interprets `MainLoopMachine` with the homeserver, the store and the room list.
 *
 * Invariants: I3 (knows nothing of the extension loop), I4, I6 (the room list is told after the commit), I7 (what can't be
 * understood is committed as quarantined).
 *
 * Gotchas: a response's fibers are never interrupted by a change of view, only the request is: what has arrived is
 * committed. Starting again reads the rooms from the store, so whatever was committed and not yet published is published
 * then. A start that goes on from a position reads them beside its first request, and not before it: the request needs
 * none of them, and 10 000 rooms take 100 ms.
 *
 * Not here: what happens next (`MainLoopMachine`), what a response does to rooms (`MainIngest`).
 */
import {
  Homeserver,
  MainIngest,
  MainLoopMachine,
  RoomList,
  type SlidingSync,
  SyncConfig,
  SyncStore
} from "@twinloop/core"
import { Clock, Duration, Effect, Fiber, Random, Ref } from "effect"
import type { Cause, Scope, Stream } from "effect"
import * as Actor from "./Actor.ts"
import * as LoopFailure from "./LoopFailure.ts"
import * as Metrics from "./Metrics.ts"

type State = MainLoopMachine.State
type Input = MainLoopMachine.Input
type Command = MainLoopMachine.Command

export interface MainSync {
  readonly state: Effect.Effect<State>
  readonly changes: Stream.Stream<State>
  /** Tells the loop what the application looks at now; a long poll is aborted, and many changes at once are one. */
  look(view: MainLoopMachine.View): Effect.Effect<void>
  /** Tries again after a failure that ended the loop. */
  readonly restart: Effect.Effect<void>
  /** Don't wait out a backoff: something says that it may work now. */
  readonly retry: Effect.Effect<void>
  readonly crashed: Effect.Effect<Cause.Cause<never>>
}

/** The connection of a role: MSC4186 wants a short id, and two roles must not share one (ADR 0007). */
export const connId = (role: string): string => `rooms-${role}`

interface Env {
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly store: SyncStore.SyncStore["Service"]
  readonly rooms: RoomList.RoomList["Service"]
  readonly connId: string
  /** Whether the room list has been given what is stored. Without it, nothing is committed. */
  readonly restored: Ref.Ref<boolean>
}

const orFail = LoopFailure.orInput("main")

/** Gives the room list what is stored. */
const restore = Effect.fnUntraced(function* (env: Env) {
  const { lists, rooms } = yield* env.store.loadMain(env.connId)
  yield* env.rooms.reset({ rooms, lists })
  yield* Ref.set(env.restored, true)
  return rooms
})

const load = Effect.fnUntraced(function* (env: Env) {
  const { lists, pos } = yield* env.store.mainPosition(env.connId)
  yield* Ref.set(env.restored, false)
  // Everything is sent again after a start without a position, and what isn't is gone: the machine must know what there was.
  const rooms = pos === undefined ? yield* restore(env) : []
  return {
    _tag: "Loaded" as const,
    pos,
    count: lists[MainLoopMachine.ROOMS_LIST],
    rooms: rooms.map((room) => room.roomId),
    nowMillis: yield* Clock.currentTimeMillis
  }
})

/** A request is written once its connection is there: two turns of the event loop where the homeserver is near. */
const letRequestGo = Effect.repeat(Effect.yieldNow, { times: 2 })

/**
 * Asks, and gives the room list what is stored while the request is on its way, unless that has been done: also when the
 * homeserver can't be reached.
 */
const ask = Effect.fnUntraced(function* (env: Env, request: SlidingSync.SyncRequest) {
  const asked = Effect.timed(env.homeserver.sync(request))
  if (yield* Ref.get(env.restored)) return yield* asked
  const asking = yield* Effect.forkChild(asked, { startImmediately: true })
  yield* letRequestGo
  yield* restore(env)
  return yield* Fiber.join(asking)
})

const poll = (env: Env, epoch: number, request: SlidingSync.SyncRequest): Effect.Effect<Input> =>
  ask(env, request).pipe(
    Effect.flatMap(([took, response]) =>
      Effect.map(Clock.currentTimeMillis, (nowMillis): Input => ({
        _tag: "Polled",
        epoch,
        response,
        tookMillis: Duration.toMillis(took),
        nowMillis
      }))
    ),
    Effect.catch((error) =>
      Effect.map(LoopFailure.of("main", error), (failed): Input => ({ _tag: "PollFailed", epoch, ...failed }))
    )
  )

/** From so many rooms on, a response is a page of a list: reading it and committing it take 10 ms each. */
const PAGE_ROOMS = 20

/** Lets timers, sockets and other fibers have their turn between the reading of a page and its commit. */
const letOthers = (response: SlidingSync.SyncResponse): Effect.Effect<void> =>
  response.rooms.length < PAGE_ROOMS ? Effect.void : Effect.yieldNow

/** One response: into rooms by pure code, one transaction, then tell. */
const commit = Effect.fnUntraced(function* (env: Env, command: Extract<Command, { _tag: "Commit" }>) {
  const { request, response } = command
  const ingested = MainIngest.ingest(
    {
      ownUserId: env.homeserver.session.userId,
      connId: env.connId,
      sentPos: request.pos,
      rooms: yield* env.rooms.all,
      gone: command.gone,
      lists: command.lists
    },
    response
  )
  yield* letOthers(response)
  yield* env.store.commitMain(ingested.commit)
  yield* letOthers(response)
  yield* env.rooms.publish({
    changed: [...ingested.changed, ...ingested.ephemeral],
    lists: ingested.lists
  })
  yield* Metrics.committed(ingested.commit.quarantined.length)
  return { _tag: "Committed" as const, nowMillis: yield* Clock.currentTimeMillis, random: yield* Random.next }
})

const expire = Effect.fnUntraced(function* (env: Env) {
  yield* env.store.expireMain(env.connId)
  if (!(yield* Ref.get(env.restored))) yield* restore(env)
  const rooms = yield* env.rooms.all
  return { _tag: "Expired" as const, rooms: rooms.keys(), nowMillis: yield* Clock.currentTimeMillis }
})

/** Everything that takes time and of which there is one at a time. */
const work = (env: Env, command: Exclude<Command, { _tag: "AbortPoll" }>): Effect.Effect<Input> => {
  switch (command._tag) {
    case "Load":
      return orFail("LoadFailed")(load(env))
    case "Poll":
      return poll(env, command.epoch, command.request)
    case "Commit":
      return orFail("CommitFailed")(commit(env, command))
    case "Expire":
      return orFail("CommitFailed")(expire(env))
    case "Wait":
      return Effect.andThen(
        Effect.sleep(command.millis),
        Effect.map(Clock.currentTimeMillis, (nowMillis) => ({ _tag: "BackoffElapsed" as const, nowMillis }))
      )
  }
}

const interpret =
  (env: Env) =>
  (command: Command, context: Actor.Context<Input>): Effect.Effect<void> => {
    if (command._tag !== "AbortPoll") return context.run("work", work(env, command))
    const aborted = Effect.map(Clock.currentTimeMillis, (nowMillis): Input => ({
      _tag: "PollAborted",
      epoch: command.epoch,
      nowMillis
    }))
    return Effect.andThen(context.cancel("work"), context.run("work", aborted))
  }

/** Starts the main loop with what the application looks at; it ends with the scope. */
export const make = Effect.fnUntraced(function* (
  view: MainLoopMachine.View
): Effect.fn.Return<MainSync, never, Homeserver.Homeserver | SyncStore.SyncStore | RoomList.RoomList | Scope.Scope> {
  const sync = yield* SyncConfig.SyncConfig
  const homeserver = yield* Homeserver.Homeserver
  const env: Env = {
    homeserver,
    store: yield* SyncStore.SyncStore,
    rooms: yield* RoomList.RoomList,
    connId: connId(sync.role),
    restored: yield* Ref.make(false)
  }
  const config: MainLoopMachine.Config = { sync, connId: env.connId, ownUserId: homeserver.session.userId }
  const actor = yield* Actor.make<State, Input, Command, never>({
    name: "MainSync",
    initial: { _tag: "Idle", view },
    mailboxCapacity: sync.mailboxCapacity,
    step: (state, input) => MainLoopMachine.step(config, state, input),
    interpret: interpret(env)
  })
  const restart = actor.send({ _tag: "Start" })
  yield* restart
  return {
    state: actor.state,
    changes: actor.changes,
    look: (view) => actor.send({ _tag: "ViewChanged", view }),
    restart,
    retry: Effect.flatMap(Clock.currentTimeMillis, (nowMillis) => actor.send({ _tag: "Retry", nowMillis })),
    crashed: actor.crashed
  }
})
