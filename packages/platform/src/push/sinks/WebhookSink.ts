/**
 * Notifications posted to an address as JSON. `SinkRecord.ts` has the shape.
 *
 * Includes two headers: `Idempotency-Key`, the event's id, by which the receiver tells that it has this one already, and,
 * with a secret, `X-Twinloop-Signature: sha256=<hex>`, the HMAC-SHA256 of the body as it was sent.
 *
 * Invariants: I10 (`ATTEMPTS`, `LIMIT_MILLIS`, `MAX_ANSWER_BYTES`).
 *
 * Gotchas: the address may be a secret, so messages name its host alone. What is sent again is the same to the byte.
 */
import { NotificationSink } from "@twinloop/core"
import { Clock, Effect, Layer, Redacted, Result, Schedule } from "effect"
import { Url } from "effect/http"
import * as HttpTransport from "../../http/HttpTransport.ts"
import * as Printable from "../../Printable.ts"
import * as Digest from "../../wake/Digest.ts"
import { jsonOf } from "./SinkRecord.ts"

const name = "webhook"

/** How often it is sent, at most. */
const ATTEMPTS = 5

/** How long one attempt may take. */
const LIMIT_MILLIS = 10_000

/** Nobody reads the answer. */
const MAX_ANSWER_BYTES = 65_536

/** 0.25, 0.5, 1 and 2 s, each by up to a fifth more or less. */
const pauses = Schedule.jittered(Schedule.exponential("250 millis"))

export interface WebhookOptions {
  /** Where to: http or https. */
  readonly url: string
  /** Shared with the receiver, to sign with. */
  readonly secret?: Redacted.Redacted
}

interface Env extends WebhookOptions {
  readonly origin: string
  readonly transport: HttpTransport.HttpTransport["Service"]
}

/** One attempt that came to nothing, and whether another may help. */
interface Refused {
  readonly why: string
  readonly canRetry: boolean
}

/** Statuses below 500 that say "later": a time limit, too early, too many. */
const later: ReadonlySet<number> = new Set([408, 425, 429])

const refusalOf = (status: number): Refused => {
  const canRetry = status >= 500 || later.has(status)
  if (canRetry) return { why: `it answers with status ${status}`, canRetry }
  if (status < 400)
    return { why: `it answers with status ${status}, a redirect; give the address where it leads`, canRetry }
  return { why: `it refuses with status ${status}; look whether address and secret are right`, canRetry }
}

/** The event's id, or a digest of what no header can hold. */
const keyOf = (eventId: string): string => (/^[!-~]{1,255}$/.test(eventId) ? eventId : Digest.sha256(eventId))

const signature = (secret: Redacted.Redacted, body: string): string =>
  process.getBuiltinModule("node:crypto").createHmac("sha256", Redacted.value(secret)).update(body).digest("hex")

const requestOf = ({ secret, url }: Env, eventId: string, body: string): HttpTransport.TransportRequest => ({
  method: "POST",
  url,
  headers: {
    "content-type": "application/json",
    "idempotency-key": keyOf(eventId),
    ...(secret !== undefined && { "x-twinloop-signature": `sha256=${signature(secret, body)}` })
  },
  body,
  maxBytes: MAX_ANSWER_BYTES
})

const attempt = ({ transport }: Env, request: HttpTransport.TransportRequest): Effect.Effect<void, Refused> =>
  transport.exchange(request).pipe(
    Effect.mapError(({ _tag, message }): Refused => ({ why: message, canRetry: _tag === "ExchangeFailed" })),
    Effect.timeoutOrElse({
      duration: LIMIT_MILLIS,
      orElse: () => Effect.fail<Refused>({ why: `no answer within ${LIMIT_MILLIS / 1_000} s`, canRetry: true })
    }),
    Effect.flatMap(({ status }) => (status >= 200 && status < 300 ? Effect.void : Effect.fail(refusalOf(status))))
  )

const failed = (origin: string, { canRetry, why }: Refused): NotificationSink.SinkError => {
  const tried = canRetry ? `${ATTEMPTS} attempts` : "it can't be tried again as it is"
  const message = Printable.line(`The notification could not be posted to ${origin}: ${why} (${tried}).`)
  return new NotificationSink.SinkError({ sink: name, message })
}

const post = (env: Env, eventId: string, body: string): Effect.Effect<void, NotificationSink.SinkError> =>
  attempt(env, requestOf(env, eventId, body)).pipe(
    Effect.retry({ schedule: pauses, times: ATTEMPTS - 1, while: ({ canRetry }) => canRetry }),
    Effect.mapError((refused) => failed(env.origin, refused))
  )

/** The host of an address that can be posted to, or `undefined`. */
export const originOf = (url: string): string | undefined => {
  const parsed = Result.getOrUndefined(Url.fromString(url))
  return parsed !== undefined && /^https?:$/.test(parsed.protocol) ? parsed.origin : undefined
}

const checked = (url: string): Effect.Effect<string, NotificationSink.SinkError> => {
  const origin = originOf(url)
  const message = "The address of the webhook can't be used. Give it with its scheme, like https://example.org/hook."
  return origin === undefined
    ? Effect.fail(new NotificationSink.SinkError({ sink: name, message }))
    : Effect.succeed(origin)
}

/** Posts to an address. Fails with a `SinkError` where it is none; each `show` fails once it has been tried in vain. */
export const layer = (
  options: WebhookOptions
): Layer.Layer<NotificationSink.NotificationSink, NotificationSink.SinkError, HttpTransport.HttpTransport> =>
  Layer.effect(
    NotificationSink.NotificationSink,
    Effect.gen(function* () {
      const env: Env = {
        ...options,
        origin: yield* checked(options.url),
        transport: yield* HttpTransport.HttpTransport
      }
      return {
        name,
        show: (resolved) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => post(env, resolved.request.eventId, jsonOf(resolved, now)))
      }
    })
  )
