/**
 * The whole service with an observer between it and the homeserver: what was asked, and how often.
 *
 * Includes the sync requests with their answers, and the renewals of the access token as they go over the wire.
 *
 * Gotchas: composed like `Twinloop.layer`, but for the observer; nothing is changed on its way.
 */
import { Inbox, SyncService } from "@twinloop/actors"
import { Homeserver, PassThroughCrypto, RoomList, type SlidingSync, type SyncConfig } from "@twinloop/core"
import { HttpHomeserver, HttpTransport, Twinloop } from "@twinloop/platform"
import { Clock, Effect, Layer, Ref } from "effect"
import * as Kit from "./ServiceKit.ts"

/** A sync that was answered. */
export interface Answered {
  readonly request: SlidingSync.SyncRequest
  readonly response: SlidingSync.SyncResponse
}

/** A renewal of the access token: when it was asked for, the refresh token that was sent, and the status of the answer. */
export interface Renewal {
  readonly askedAtMillis: number
  readonly refreshToken: string
  readonly status: number
}

interface Records {
  readonly syncs: Ref.Ref<ReadonlyArray<Answered>>
  readonly renewals: Ref.Ref<ReadonlyArray<Renewal>>
}

/** A service under observation. */
export interface Recording {
  readonly running: Kit.Running
  readonly recorded: {
    /** The main loop's syncs that were answered, in order. */
    readonly main: Effect.Effect<ReadonlyArray<Answered>>
    /** The renewals that were answered, in order. */
    readonly renewals: Effect.Effect<ReadonlyArray<Renewal>>
  }
}

const hasRooms = ({ request }: Answered): boolean => Object.keys(request.lists).length > 0

const observed = (records: Records, homeserver: Homeserver.Homeserver["Service"]): Homeserver.Homeserver["Service"] =>
  Homeserver.Homeserver.of({
    ...homeserver,
    sync: (request) =>
      Effect.tap(homeserver.sync(request), (response) =>
        Ref.update(records.syncs, (before) => [...before, { request, response }])
      )
  })

const refreshTokenOf = ({ body = "{}" }: HttpTransport.TransportRequest): string =>
  String(JSON.parse(body).refresh_token)

const renewal = Effect.fnUntraced(function* <E, R>(
  records: Records,
  request: HttpTransport.TransportRequest,
  answer: Effect.Effect<HttpTransport.TransportResponse, E, R>
) {
  const askedAtMillis = yield* Clock.currentTimeMillis
  const response = yield* answer
  const made: Renewal = { askedAtMillis, refreshToken: refreshTokenOf(request), status: response.status }
  yield* Ref.update(records.renewals, (before) => [...before, made])
  return response
})

const observedHttp = (records: Records) =>
  Layer.effect(
    HttpTransport.HttpTransport,
    Effect.map(HttpTransport.HttpTransport, ({ exchange }) => ({
      exchange: (request: HttpTransport.TransportRequest) =>
        request.url.endsWith("/refresh") ? renewal(records, request, exchange(request)) : exchange(request)
    }))
  )

const layerObserved = (records: Records, options: Twinloop.Options) =>
  SyncService.SyncService.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, PassThroughCrypto.layer)),
    Layer.provideMerge(
      Layer.effect(
        Homeserver.Homeserver,
        Effect.map(HttpHomeserver.make, (homeserver) => observed(records, homeserver))
      )
    ),
    Layer.provide(observedHttp(records)),
    Layer.provideMerge(Twinloop.layerFoundation(options))
  )

/** Runs the service like `Kit.run`, under observation. */
export const run = Effect.fnUntraced(function* (
  { database }: Kit.Account,
  config: Partial<SyncConfig.SyncConfigShape> = {}
) {
  const records: Records = {
    syncs: yield* Ref.make<ReadonlyArray<Answered>>([]),
    renewals: yield* Ref.make<ReadonlyArray<Renewal>>([])
  }
  const context = yield* Effect.orDie(Layer.build(layerObserved(records, { database, config })))
  const running = Kit.runningOf(context, config)
  yield* running.service.start
  yield* Kit.untilLoaded(running)
  const recording: Recording = {
    running,
    recorded: {
      main: Effect.map(Ref.get(records.syncs), (syncs) => syncs.filter(hasRooms)),
      renewals: Ref.get(records.renewals)
    }
  }
  return recording
})

/** The renewals of services that share a login, whichever of them made them, in the order in which they were asked for. */
export const renewalsOf = (recordings: ReadonlyArray<Recording>): Effect.Effect<ReadonlyArray<Renewal>> =>
  Effect.map(
    Effect.forEach(recordings, ({ recorded }) => recorded.renewals),
    (all) => all.flat().sort((one, other) => one.askedAtMillis - other.askedAtMillis)
  )
