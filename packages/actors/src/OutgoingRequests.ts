/**
 * Sends what the end-to-end machine wants sent, and tells it the answers.
 *
 * Includes `flush`, for whatever is queued (the extension loop, and who sends a message first), and `send`, for the requests
 * that one step of sending a message needs.
 *
 * Invariants: I2 (what must be durable before a request is sent has been committed when the request is known here), I9 (a
 * request that isn't answered, is refused, or is answered with something else stays queued, and holds up nothing behind it
 * for good).
 *
 * Not here: which requests there are (`CryptoEngine`), when (`ExtensionSync.ts`, `Encryption.ts`).
 */
import { type CryptoEngine, type CryptoError, Homeserver, type HomeserverError, type MatrixEvent } from "@twinloop/core"
import { Context, Effect, Equal, Layer, Predicate, Queue, Result, Semaphore } from "effect"
import * as CryptoTurn from "./CryptoTurn.ts"
import * as Metrics from "./Metrics.ts"

type SendError = CryptoTurn.TurnError | HomeserverError.HomeserverError

/** A request that could not be sent just then, or whose answer could not be taken, and why. It is tried again. */
export interface Stayed {
  readonly request: CryptoEngine.OutgoingRequest
  readonly error: HomeserverError.HomeserverError | CryptoError.CryptoError
}

export class OutgoingRequests extends Context.Service<
  OutgoingRequests,
  {
    /**
     * Sends what is queued, in order. What the homeserver refuses stays queued without holding up what is behind it; when it
     * takes nothing just then, everything waits for the next time. Gives what stays queued; fails only when the machine or
     * the store does.
     */
    readonly flush: Effect.Effect<ReadonlyArray<Stayed>, CryptoTurn.TurnError>
    /**
     * Wants the devices of these users followed, when that is possible: with the next flush, which comes at once while
     * `flushWanted` runs. For who is shown and not known.
     */
    want(users: Iterable<MatrixEvent.UserId>): Effect.Effect<void>
    /** Flushes when somebody is wanted, until interrupted. For whoever owns the stream, as long as he does (invariant I4). */
    readonly flushWanted: Effect.Effect<never>
    /** Sends these, in order; fails with the first that isn't taken. */
    send(requests: ReadonlyArray<CryptoEngine.OutgoingRequest>): Effect.Effect<void, SendError>
  }
>()("@twinloop/actors/OutgoingRequests") {
  static readonly layer: Layer.Layer<OutgoingRequests, never, CryptoTurn.CryptoTurn | Homeserver.Homeserver> =
    Layer.effect(
      OutgoingRequests,
      Effect.suspend(() => make)
    )
}

/** Users that are remembered as wanted: a room's page of senders; who is left out is wanted again when he is shown again. */
const WANTED = 1_000

/** Whether the homeserver has refused this one request, and may well take others. */
const isRefusal = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag === "BadRequest" || reason._tag === "Forbidden" || reason._tag === "NotFound"

const isUpload = ({ request }: CryptoEngine.OutgoingRequest): boolean =>
  request._tag === "Keys" && request.keys.kind === "upload"

type Upload = CryptoEngine.OutgoingRequest & {
  readonly request: { readonly _tag: "Keys"; readonly keys: Homeserver.KeysRequest }
}

const at = (value: unknown, member: string): unknown =>
  Predicate.isObject(value) ? (value as MatrixEvent.JsonObject)[member] : undefined

const isFilled = (value: unknown): boolean => Predicate.isObject(value) && Object.keys(value).length > 0

const hasOneTimeKeys = (asked: CryptoEngine.OutgoingRequest): asked is Upload =>
  asked.request._tag === "Keys" &&
  asked.request.keys.kind === "upload" &&
  isFilled(asked.request.keys.body.one_time_keys)

const isBadAnswer = (error: SendError): error is CryptoError.CryptoError =>
  error._tag === "CryptoError" && error.reason._tag === "CryptoBadAnswer"

/** A one-time key whose id was used for another key: the stored account is not the one that uploaded before. */
const conflicts = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag === "BadRequest" && reason.message.includes("already exists")

const make = Effect.gen(function* () {
  const turn = yield* CryptoTurn.CryptoTurn
  const homeserver = yield* Homeserver.Homeserver
  // Two that flush at once would send everything twice.
  const one = yield* Semaphore.make(1)

  const post = ({
    request
  }: CryptoEngine.OutgoingRequest): Effect.Effect<MatrixEvent.JsonObject, HomeserverError.HomeserverError> => {
    switch (request._tag) {
      case "Keys":
        return homeserver.keys(request.keys)
      case "ToDevice":
        return Effect.as(homeserver.sendToDevice(request.toDevice), {})
      case "RoomEvent":
        return Effect.map(homeserver.sendEvent(request.event), (eventId) => ({ event_id: eventId }))
    }
  }

  const markSent = (request: CryptoEngine.OutgoingRequest, answer: MatrixEvent.JsonObject) =>
    turn.change((engine, fence) => engine.markSent(fence, request, answer))

  /** Whether the homeserver has the device's keys already: then an upload of them has arrived of which nobody heard. */
  const isPublished = Effect.fnUntraced(function* (deviceKeys: MatrixEvent.JsonObject) {
    const { deviceId, userId } = homeserver.session
    const answer = yield* homeserver.keys({ kind: "query", body: { device_keys: { [userId]: [] } } })
    const known = at(at(at(answer, "device_keys"), userId), deviceId)
    return Equal.equals(at(known, "keys"), at(deviceKeys, "keys"))
  })

  /**
   * Publishes one-time keys once at most: they count as published before they are sent. Sent again after a crash, a key that
   * was handed out meanwhile would be there to be handed out once more, and whoever is second can't be read. Keys that don't
   * arrive cost nothing: the homeserver's next count asks for others.
   *
   * The first ones go with the device's own keys, which must arrive. Nobody is given any before those are known, so they may
   * be sent again until they are.
   */
  const publish = Effect.fnUntraced(function* (request: CryptoEngine.OutgoingRequest, keys: Homeserver.KeysRequest) {
    const { device_keys: deviceKeys, one_time_keys: oneTimeKeys, ...others } = keys.body
    if (Predicate.isObject(deviceKeys) && !(yield* isPublished(deviceKeys as MatrixEvent.JsonObject)))
      return yield* Effect.flatMap(post(request), (answer) => markSent(request, answer))
    if (Object.values(others).some(isFilled)) yield* homeserver.keys({ kind: "upload", body: others })
    yield* markSent(request, { one_time_key_counts: {} })
    if (deviceKeys === undefined)
      yield* homeserver.keys({ kind: "upload", body: { one_time_keys: oneTimeKeys } as MatrixEvent.JsonObject })
  })

  /** Sends a request and tells the machine the answer. */
  const deliver = (request: CryptoEngine.OutgoingRequest) =>
    hasOneTimeKeys(request)
      ? publish(request, request.request.keys)
      : Effect.flatMap(post(request), (answer) => markSent(request, answer))

  /** Says why a request stays queued. */
  const stays = Effect.fnUntraced(function* (request: CryptoEngine.OutgoingRequest, error: Stayed["error"]) {
    if (!isUpload(request) || error._tag !== "HomeserverError" || !conflicts(error)) {
      return yield* Effect.logWarning(
        `A request of the end-to-end machine stays queued and is tried again. ${error.message}`
      )
    }
    yield* Metrics.oneTimeKeyConflict
    yield* Effect.logError(
      `The homeserver has other one-time keys of this device than are stored, so messages that use them can't be decrypted. Log in again as a new device, and look for a copy of the database, or a second program, that uses this login. ${error.message}`
    )
  })

  /** Users that are wanted followed; few, since who is followed is known from then on. */
  const wanted = new Set<MatrixEvent.UserId>()
  const trackWanted = Effect.gen(function* () {
    const users = [...wanted].slice(0, WANTED)
    if (users.length === 0) return
    yield* turn.change((engine, fence) => engine.track(fence, users))
    for (const user of users) wanted.delete(user)
  })

  /** Sends a request; gives why it stays queued, if it does. */
  const attempt = Effect.fnUntraced(function* (request: CryptoEngine.OutgoingRequest) {
    const result = yield* Effect.result(deliver(request))
    if (Result.isSuccess(result)) return undefined
    const { failure } = result
    if (failure._tag !== "HomeserverError" && !isBadAnswer(failure)) return yield* failure
    yield* stays(request, failure)
    return failure
  })

  const flush = Effect.gen(function* () {
    yield* trackWanted
    const stayed: Array<Stayed> = []
    const queued = yield* turn.change((engine, fence) => engine.outgoing(fence))
    for (const [index, request] of queued.entries()) {
      const error = yield* attempt(request)
      if (error === undefined) continue
      if (error._tag === "HomeserverError" && !isRefusal(error)) {
        // It takes nothing just then, so what is behind isn't tried.
        stayed.push(...queued.slice(index).map((request) => ({ request, error })))
        break
      }
      stayed.push({ request, error })
    }
    return stayed
  })

  // One wake-up is as good as many.
  const wantedMore = yield* Queue.sliding<void>(1)
  const flushWanted = Queue.take(wantedMore).pipe(
    // What isn't sent stays queued: the extension loop's next flush meets the same error, and sees to it.
    Effect.andThen(Effect.ignore(one.withPermit(flush))),
    Effect.forever
  )

  return OutgoingRequests.of({
    flush: one.withPermit(flush),
    want: (users) =>
      Effect.suspend(() => {
        const before = wanted.size
        for (const user of users) if (wanted.size < WANTED) wanted.add(user)
        return wanted.size > before ? Effect.asVoid(Queue.offer(wantedMore, undefined)) : Effect.void
      }),
    flushWanted,
    send: (requests) => Effect.forEach(requests, deliver, { discard: true })
  })
})
