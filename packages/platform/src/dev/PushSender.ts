/**
 * Sends the dev homeserver's pushes: takes them from the model one after the other and POSTs them to their gateways.
 *
 * Several pushers send at a time, each of them one push (the model sees to that). What isn't answered within
 * `PATIENCE` with a success and a JSON object has failed, and the model says when it is tried again.
 *
 * Invariants: I4 (everything ends with the scope), I8, I10 (time and size of an answer).
 *
 * Not here: what is pushed, to whom and when (core's homeserver model).
 */
import { Effect, FiberSet, Schema } from "effect"
import type { Scope } from "effect"
import { HttpTransport } from "../http/HttpTransport.ts"
import { type HomeserverHost, HomeserverModel } from "./Model.ts"

type Push = HomeserverModel.Push

const PATIENCE = "8 seconds"

/** An answer names push keys; this is a thousand long ones. */
const MAX_ANSWER_BYTES = 1_000_000

/** Push gateway API: `rejected` is required; Synapse makes do without. */
const Answer = Schema.fromJsonString(Schema.Struct({ rejected: Schema.optionalKey(Schema.Array(Schema.Unknown)) }))
const decodeAnswer = Schema.decodeEffect(Answer)

/** The push keys that a gateway rejects; fails when it hasn't taken the push, for whatever reason. */
const post = Effect.fnUntraced(function* (transport: HttpTransport["Service"], { url, body }: Push) {
  const { status, text } = yield* transport.exchange({
    method: "POST",
    url,
    headers: { accept: "application/json", "content-type": "application/json" },
    body: JSON.stringify(body),
    maxBytes: MAX_ANSWER_BYTES
  })
  if (status < 200 || status > 299) return yield* Effect.fail(status)
  return (yield* decodeAnswer(text)).rejected ?? []
})

/** Sends one push, and tells the model what became of it. */
const deliver = (
  host: HomeserverHost.HomeserverHost,
  transport: HttpTransport["Service"],
  push: Push
): Effect.Effect<void> =>
  post(transport, push).pipe(
    Effect.timeout(PATIENCE),
    Effect.matchEffect({
      onFailure: () => host.step((state, nowMillis) => HomeserverModel.pushFailed(state, push, nowMillis)),
      onSuccess: (rejected) => host.step((state) => HomeserverModel.pushAnswered(state, push, rejected))
    })
  )

/** Starts sending, for as long as the scope lasts. */
export const run = (host: HomeserverHost.HomeserverHost): Effect.Effect<void, never, HttpTransport | Scope.Scope> =>
  Effect.gen(function* () {
    const transport = yield* HttpTransport
    const sending = yield* FiberSet.make()
    const next = Effect.flatMap(host.takePush(), (push) => FiberSet.run(sending, deliver(host, transport, push)))
    yield* Effect.forkScoped(Effect.forever(next))
  })
