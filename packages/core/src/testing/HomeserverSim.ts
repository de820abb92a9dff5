/**
 * A simulated homeserver for tests: the model under the `Clock`, the `Homeserver` port for any of its devices, scripted
 * faults, and a log of what was asked.
 *
 * What goes through the port goes through the wire codec as well, in the chosen spelling, so that a test sees what a client
 * of a real homeserver sees (the unstable spelling doesn't tell memberships, for instance).
 *
 * Invariants: I8 (under `TestClock` long polls, delays and expiries take virtual time).
 *
 * Gotchas: faults are tried in the order in which they were injected; the first that fits is used up first.
 *
 * @example
 * ```ts
 * const program = Effect.gen(function* () {
 *   const sim = yield* HomeserverSim
 *   const phone = yield* sim.session("alice", "PHONE")
 *   yield* sim.addRoom({ members: [phone.userId], name: "Kitchen" })
 *   yield* sim.inject({ operation: "sync", times: 2, effect: { _tag: "Hang" } })
 * }).pipe(Effect.provide(layer()))
 * ```
 */
import { Clock, Context, Effect, Exit, Layer, Result } from "effect"
import type { DeviceId, EventId, JsonObject, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import { httpPushers, removalToWire, toWire } from "../matrix/Pusher.ts"
import type { SyncRequest, SyncResponse } from "../matrix/SlidingSync.ts"
import * as Wire from "../matrix/SlidingSyncWire.ts"
import { Homeserver, roomMembers, type Session, type Spelling } from "../sync/Homeserver.ts"
import * as Errors from "../sync/HomeserverError.ts"
import { make as makeHost } from "./homeserver/HomeserverHost.ts"
import type { LedgerEntry, ModelOptions, ModelState, Outcome, Refusal, Requester } from "./homeserver/ModelState.ts"
import * as Model from "./HomeserverModel.ts"
import { reasonOf } from "./homeserver/Refusals.ts"
import * as SimNetwork from "./homeserver/SimNetwork.ts"
import type { Fault, FaultEffect, InjectedFault, Operation, SeenRequest } from "./homeserver/SimNetwork.ts"

export type { Fault, FaultEffect, InjectedFault, Operation, SeenRequest } from "./homeserver/SimNetwork.ts"

/** A session with the token that its calls carry. */
export interface SimSession extends Session {
  readonly accessToken: string
}

/** What can be chosen about the simulated homeserver. */
export interface SimOptions extends Partial<ModelOptions> {
  /** What `/versions` offers; "unstable" when absent, `null` for a homeserver without sliding sync. */
  readonly spelling?: Spelling | null
}

/** A room to make, with everybody in it. */
export interface RoomSpec {
  /** User ids; the first one creates the room, the others join it. */
  readonly members: readonly [UserId, ...ReadonlyArray<UserId>]
  readonly invited?: ReadonlyArray<UserId>
  readonly name?: string
  readonly roomId?: RoomId
  readonly isEncrypted?: boolean
}

/** A push that was sent, and that the gateway has not answered yet. */
export interface SimPush {
  readonly appId: string
  readonly pushKey: string
  readonly url: string
  /** The request's JSON: `{ notification: … }`. */
  readonly body: JsonObject
  /** Takes it; the push keys that the gateway rejects lose their pusher. */
  answer(rejected?: ReadonlyArray<string>): Effect.Effect<void>
  /** Doesn't take it: it comes again, later and later. */
  readonly fail: Effect.Effect<void>
}

/** The simulated homeserver: the stage (users, rooms, messages), the faults, and what was seen. */
export class HomeserverSim extends Context.Service<
  HomeserverSim,
  {
    /**
     * The session of a device; user and device are made when they don't exist, and later calls give the same session. The
     * user's password is his localpart.
     */
    session(localpart: string, deviceId: DeviceId): Effect.Effect<SimSession>
    /** The port for a session. Several processes of one device use the same session. */
    homeserver(session: SimSession): Homeserver["Service"]

    addUser(localpart: string): Effect.Effect<UserId>
    addRoom(room: RoomSpec): Effect.Effect<RoomId>
    /** Adds rooms "Room 1", "Room 2", ... with a message each. */
    addRooms(owner: UserId, count: number): Effect.Effect<ReadonlyArray<RoomId>>
    /** Invites, joins, leaves or bans; who acts is the member himself, or `by`. */
    setMembership(change: {
      readonly roomId: RoomId
      readonly userId: UserId
      readonly membership: "invite" | "join" | "leave" | "ban"
      readonly by?: UserId
    }): Effect.Effect<void>
    sendMessage(roomId: RoomId, sender: UserId, body: string): Effect.Effect<EventId>
    /** Any event, and with a state key any state, in the name of anybody. */
    sendEvent(roomId: RoomId, event: Model.NewEvent): Effect.Effect<EventId>
    setAccountData(userId: UserId, type: string, content: JsonObject, roomId?: RoomId): Effect.Effect<void>
    /** Puts messages `{ number }` into a device's queue, with the ledger's numbers; gives those numbers. */
    sendNumbered(to: Session, count: number): Effect.Effect<ReadonlyArray<number>>
    ledger(of: Session): Effect.Effect<ReadonlyArray<LedgerEntry>>
    /** Forgets the positions of a device's connection, of all without `connId`; the extension connection's too. */
    expirePositions(of: Session, connId?: string): Effect.Effect<void>
    /** Ends a session: softly (log in again), or for good. */
    endSession(of: SimSession, how: "soft" | "hard"): Effect.Effect<void>
    /** Looks at the model, or does something with it that has no helper here. */
    model<A>(f: (state: ModelState, nowMillis: number) => A): Effect.Effect<A>

    /**
     * Waits for the next push to a gateway of a session's device. The pusher sends no other one until this one is answered or
     * has failed. `Stream.fromEffectRepeat` makes a stream of it.
     */
    nextPush(of: Session): Effect.Effect<SimPush>

    inject(fault: Fault): Effect.Effect<InjectedFault>
    /** Cuts what is in flight and refuses everything, until `reachable`. */
    readonly unreachable: Effect.Effect<void>
    readonly reachable: Effect.Effect<void>

    /** Calls so far, oldest first; the newest 10 000. */
    readonly requests: Effect.Effect<ReadonlyArray<SeenRequest>>
    /** Syncs so far, of one connection or of all. */
    syncs(connId?: string): Effect.Effect<ReadonlyArray<SeenRequest & { readonly request: SyncRequest }>>
    /** Calls that wait for their answer, of one sync connection or of all operations. */
    inFlight(connId?: string): Effect.Effect<number>
  }
>()("@twinloop/core/testing/HomeserverSim") {}

const decodeSync = (json: unknown): Effect.Effect<SyncResponse, Errors.HomeserverErrorReason> =>
  Effect.fromResult(Result.mapError(Wire.decodeResponse(json), (message) => new Errors.BadResponse({ message })))

const make = (options: SimOptions): HomeserverSim["Service"] => {
  const host = makeHost(options)
  const faults = SimNetwork.makeFaults()
  const log = SimNetwork.makeLog()
  const network = SimNetwork.makeNetwork()
  const sessions = new Map<string, SimSession>()
  const spelling = options.spelling === undefined ? "unstable" : (options.spelling ?? undefined)

  // A test's own mistake (an unknown user, say) is a defect: it names itself.
  const admin = <A>(f: (state: ModelState, nowMillis: number) => Outcome<A>): Effect.Effect<A> =>
    Effect.catch(host.attempt(f), (refusal) => Effect.die(new Error(refusal.message)))

  /** One call through the port: logged, spoilt by the fault that fits, cut when the network goes. */
  const call = <A>(
    operation: Operation,
    session: Session,
    work: Effect.Effect<A, Errors.HomeserverErrorReason>,
    sync?: {
      readonly request: SyncRequest
      readonly reply: (json: unknown) => Effect.Effect<A, Errors.HomeserverErrorReason>
    }
  ): Effect.Effect<A, Errors.HomeserverError> =>
    Effect.gen(function* () {
      const startedAtMillis = yield* Clock.currentTimeMillis
      const { userId, deviceId } = session
      const seen = log.start({
        operation,
        session: { userId, deviceId },
        startedAtMillis,
        ...(sync && { request: sync.request })
      })
      const end = (exit: Exit.Exit<unknown, unknown>) =>
        Effect.map(Clock.currentTimeMillis, (endedAtMillis) => {
          seen.endedAtMillis = endedAtMillis
          seen.outcome = Exit.isSuccess(exit) ? "answered" : Exit.hasInterrupts(exit) ? "aborted" : "failed"
        })
      const served: typeof work = network.isUp()
        ? Effect.raceFirst(network.cut, spoil(faults.next(operation, session, sync?.request.connId), work, sync?.reply))
        : Effect.fail(SimNetwork.unreachableReason())
      return yield* Effect.onExit(served, end)
    }).pipe(Effect.mapError((reason) => new Errors.HomeserverError({ operation, reason })))

  const spoil = <A>(
    fault: FaultEffect | undefined,
    work: Effect.Effect<A, Errors.HomeserverErrorReason>,
    reply: ((json: unknown) => Effect.Effect<A, Errors.HomeserverErrorReason>) | undefined
  ): Effect.Effect<A, Errors.HomeserverErrorReason> => {
    switch (fault?._tag) {
      case undefined:
        return work
      case "Fail":
        return Effect.fail(fault.reason)
      case "Hang":
        return Effect.never
      case "Late":
        return Effect.tap(work, Effect.sleep(fault.millis))
      case "Reply":
        return reply === undefined ? work : reply(fault.json)
    }
  }

  const homeserver = (session: SimSession): Homeserver["Service"] => {
    const ask = <A>(
      f: (state: ModelState, requester: Requester, nowMillis: number) => Outcome<A>
    ): Effect.Effect<A, Errors.HomeserverErrorReason> => Effect.mapError(host.request(session.accessToken, f), reasonOf)
    return Homeserver.of({
      session: { userId: session.userId, deviceId: session.deviceId },
      capabilities: call(
        "versions",
        session,
        Effect.succeed({
          versions: ["v1.1", "v1.12"],
          unstableFeatures: { "org.matrix.simplified_msc3575": spelling === "unstable", "org.matrix.msc4306": true },
          slidingSync: spelling
        })
      ),
      sync: (request) =>
        call("sync", session, syncOverWire(session, request), { request, reply: (json) => decodeSync(json) }),
      sendEvent: (event) =>
        call(
          "send",
          session,
          ask((state, requester, nowMillis) => Model.send(state, requester, event, nowMillis))
        ),
      sendState: (event) =>
        call(
          "state",
          session,
          ask((state, requester, nowMillis) => Model.send(state, requester, event, nowMillis))
        ),
      sendToDevice: (messages) =>
        call(
          "sendToDevice",
          session,
          ask((state, requester, nowMillis) => Model.sendToDevice(state, requester, messages, nowMillis))
        ),
      keys: (request) =>
        call(
          `keys/${request.kind}`,
          session,
          ask((state, requester) => Model.keys(state, requester, request))
        ),
      members: (roomId) =>
        call(
          "members",
          session,
          ask((_, requester) => Result.map(Model.members(requester, roomId, { notMembership: "leave" }), roomMembers))
        ),
      eventContext: (roomId, eventId) =>
        call(
          "context",
          session,
          ask((_, requester) => Model.context(requester, { roomId, eventId, limit: 0, lazyMembers: true }))
        ),
      pushers: call(
        "pushers",
        session,
        ask((_, { user }) => Result.succeed(httpPushers(Model.pushers(user))))
      ),
      setPusher: (pusher) =>
        call(
          "pushers/set",
          session,
          ask((state, requester, nowMillis) =>
            Model.setPusher(state, requester, { ...toWire(pusher), append: true }, nowMillis)
          )
        ),
      removePusher: (id) =>
        call(
          "pushers/set",
          session,
          ask((state, requester, nowMillis) => Model.setPusher(state, requester, removalToWire(id), nowMillis))
        ),
      isThreadSubscribed: (roomId, threadRootId) =>
        call(
          "thread/subscription",
          session,
          ask((_, requester) => Model.threadSubscription(requester, { roomId, threadRootId })).pipe(
            Effect.as(true),
            Effect.catchTag("NotFound", () => Effect.succeed(false))
          )
        )
    })
  }

  const syncOverWire = (
    session: SimSession,
    request: SyncRequest
  ): Effect.Effect<SyncResponse, Errors.HomeserverErrorReason> =>
    Effect.gen(function* () {
      if (spelling === undefined)
        return yield* new Errors.Unsupported({ message: "the homeserver offers no simplified sliding sync" })
      const received = yield* Effect.fromResult(
        Result.mapError(
          Wire.decodeRequest(spelling, Wire.encodeRequest(spelling, request)),
          (message) => new Errors.BadRequest({ message, status: 400, errcode: "M_INVALID_PARAM" })
        )
      )
      const response = yield* Effect.mapError(host.sync(session.accessToken, received), reasonOf)
      return yield* decodeSync(Wire.encodeResponse(spelling, response))
    })

  const session = (localpart: string, deviceId: DeviceId): Effect.Effect<SimSession> =>
    admin((state, nowMillis) =>
      Result.map(Model.ensureUser(state, { localpart, password: localpart }), (user) => {
        const key = `${user.userId}\u0000${deviceId}`
        const known = sessions.get(key)
        if (known !== undefined) return known
        const made = Model.startSession(state, user, { deviceId }, nowMillis)
        sessions.set(key, made)
        return made
      })
    )

  const addRoom = ({ members: [creator, ...others], invited, name, roomId, isEncrypted }: RoomSpec) =>
    admin((state, nowMillis) =>
      Result.gen(function* () {
        const room = Model.createRoom(
          state,
          yield* Model.findUser(state, creator),
          {
            ...(name !== undefined && { name }),
            ...(roomId !== undefined && { roomId }),
            invite: [...others, ...(invited ?? [])],
            initialState:
              isEncrypted === true
                ? [{ type: "m.room.encryption", stateKey: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }]
                : []
          },
          nowMillis
        )
        for (const member of others)
          yield* Model.join(state, yield* Model.findUser(state, member), room.roomId, nowMillis)
        return room.roomId
      })
    )

  const sendEvent = (roomId: RoomId, event: Model.NewEvent): Effect.Effect<EventId> =>
    admin((state, nowMillis) => {
      const room = state.rooms.get(roomId)
      return room === undefined
        ? Result.fail<Refusal>({ status: 404, errcode: "M_NOT_FOUND", message: `there is no room ${roomId}` })
        : Result.succeed(Model.append(state, room, event, nowMillis).event.event_id)
    })

  const syncs = (connId?: string) =>
    Effect.sync(() =>
      log.requests.filter(
        (seen): seen is SeenRequest & { readonly request: SyncRequest } =>
          seen.request !== undefined && (connId === undefined || seen.request.connId === connId)
      )
    )

  return HomeserverSim.of({
    session,
    homeserver,
    addUser: (localpart) =>
      admin((state) => Result.map(Model.ensureUser(state, { localpart, password: localpart }), ({ userId }) => userId)),
    addRoom,
    addRooms: (owner, count) =>
      admin((state, nowMillis) =>
        Result.map(Model.findUser(state, owner), (user) =>
          Model.addRooms(state, user, { count }, nowMillis).map(({ roomId }) => roomId)
        )
      ),
    setMembership: ({ roomId, userId, membership, by = userId }) =>
      Effect.asVoid(
        sendEvent(roomId, { type: "m.room.member", sender: by, stateKey: userId, content: { membership } })
      ),
    sendMessage: (roomId, sender, body) =>
      sendEvent(roomId, { type: "m.room.message", sender, content: { msgtype: "m.text", body } }),
    sendEvent,
    setAccountData: (userId, type, content, roomId) =>
      admin((state) =>
        Result.flatMap(Model.findUser(state, userId), (user) =>
          Model.setAccountData(state, user, { type, content, ...(roomId !== undefined && { roomId }) })
        )
      ),
    sendNumbered: (to, count) =>
      admin((state, nowMillis) => Model.sendNumbered(state, { ...to, count, sender: to.userId }, nowMillis)),
    ledger: (of) => host.step((state) => Model.ledger(state, of.userId, of.deviceId).map((entry) => ({ ...entry }))),
    expirePositions: (of, connId) =>
      host.step((state) =>
        Model.SyncConnection.expire(state, {
          userId: of.userId,
          deviceId: of.deviceId,
          ...(connId !== undefined && { connId })
        })
      ),
    endSession: (of, how) =>
      host.step((state, nowMillis) => {
        if (how === "soft") Model.expireTokens(state, of.userId, of.deviceId, nowMillis)
        else state.accessTokens.delete(of.accessToken)
      }),
    model: host.step,
    nextPush: (of) =>
      Effect.map(
        host.takePush(({ userId, deviceId }) => userId === of.userId && deviceId === of.deviceId),
        (push): SimPush => ({
          appId: push.appId,
          pushKey: push.pushKey,
          url: push.url,
          body: push.body,
          answer: (rejected = []) => host.step((state) => Model.pushAnswered(state, push, rejected)),
          fail: host.step((state, nowMillis) => Model.pushFailed(state, push, nowMillis))
        })
      ),
    inject: faults.inject,
    unreachable: network.set(false),
    reachable: network.set(true),
    requests: Effect.sync(() => [...log.requests]),
    syncs,
    inFlight: (connId) =>
      Effect.sync(
        () =>
          log.requests.filter(
            (seen) => seen.outcome === "pending" && (connId === undefined || seen.request?.connId === connId)
          ).length
      )
  })
}

/** A homeserver of its own per build of the layer. */
export const layer = (options: SimOptions = {}): Layer.Layer<HomeserverSim> =>
  Layer.sync(HomeserverSim, () => make(options))

/** The port for a device of the simulated homeserver; the user and the device are made when they don't exist. */
export const layerHomeserver = (localpart: string, deviceId: DeviceId): Layer.Layer<Homeserver, never, HomeserverSim> =>
  Layer.effect(
    Homeserver,
    Effect.gen(function* () {
      const sim = yield* HomeserverSim
      return sim.homeserver(yield* sim.session(localpart, deviceId))
    })
  )
