/**
 * The dev homeserver's sliding sync in both spellings, its to-device messages and its keys.
 *
 * Source: MSC4186; client-server API v1.12, "End-to-end encryption", "Send-to-Device messaging".
 */
import { Effect, Result, Schema } from "effect"
import { type Homeserver, SlidingSyncWire } from "@twinloop/core"
import { HomeserverModel } from "./Model.ts"
import { AnyObject, bodyOf, type Endpoint, open, param, refuse, type Refusal, user } from "./DevRoute.ts"

const v3 = "/_matrix/client/v3"

/** Sliding sync in one spelling. */
export const sync = (spelling: Homeserver.Spelling): Endpoint => ({
  method: "POST",
  path: SlidingSyncWire.path(spelling) as `/${string}`,
  handle: (host, { query, body, token }) =>
    Effect.gen(function* () {
      const invalid = (message: string): Refusal => ({ status: 400, errcode: "M_INVALID_PARAM", message })
      // Who asks comes first: a stranger learns nothing about his request.
      yield* host.request(token, () => Result.succeed(undefined))
      const request = yield* Effect.fromResult(
        Result.mapError(SlidingSyncWire.decodeRequest(spelling, { query, body }), invalid)
      )
      return SlidingSyncWire.encodeResponse(spelling, yield* host.sync(token, request))
    })
})

const keys = (path: string, kind: Homeserver.KeysRequest["kind"]): Endpoint =>
  user("POST", `${v3}/keys/${path}`, (call) =>
    Result.flatMap(bodyOf(call, AnyObject), (body) => HomeserverModel.keys(call.state, call.requester, { kind, body }))
  )

const ToDevice = Schema.Struct({ messages: Schema.Record(Schema.String, Schema.Record(Schema.String, AnyObject)) })

/** To-device messages and keys. */
export const endpoints: ReadonlyArray<Endpoint> = [
  user("PUT", `${v3}/sendToDevice/:type/:txnId`, (call) =>
    Result.flatMap(bodyOf(call, ToDevice), ({ messages }) =>
      HomeserverModel.sendToDevice(
        call.state,
        call.requester,
        { type: param(call, "type"), txnId: param(call, "txnId"), messages },
        call.nowMillis
      )
    )
  ),
  keys("upload", "upload"),
  keys("query", "query"),
  keys("claim", "claim"),
  keys("signatures/upload", "signatures"),
  keys("device_signing/upload", "deviceSigning"),
  user("GET", `${v3}/keys/changes`, (call) =>
    HomeserverModel.keyChanges(call.state, call.requester, call.query.from ?? "")
  ),
  // The classic sync is not here; saying so clearly saves a client's author some time.
  open("GET", `${v3}/sync`, () =>
    refuse(404, "M_UNRECOGNIZED", "the dev homeserver has sliding sync (MSC4186) only, not the classic /sync")
  )
]
