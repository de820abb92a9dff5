/**
 * One endpoint of the dev homeserver: what a handler is given, what it answers, and how both get over HTTP.
 *
 * A handler gives JSON or a `Refusal` of the model, which becomes a status with a Matrix error (spec: "Standard error
 * response"). It is interrupted when its client disconnects, so a poll that nobody waits for ends.
 *
 * Not here: the endpoints themselves (`AccountRoutes.ts`, `RoomRoutes.ts`, `PushRoutes.ts`, `SyncRoutes.ts`, `AdminRoutes.ts`).
 */
import { ByteSize, Effect, Option, Result, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { HttpMethod } from "effect/http"
import { MatrixEvent } from "@twinloop/core"
import type { HomeserverHost, HomeserverModel } from "./Model.ts"

/** The homeserver behind the endpoints. */
export type Host = HomeserverHost.HomeserverHost
/** Why a call is not served: status, errcode, message. */
export type Refusal = HomeserverModel.Refusal
/** What a handler gives: its answer's JSON, or a refusal. */
export type Outcome<A> = HomeserverModel.Outcome<A>

/** A request, read. */
export interface Call {
  readonly params: { readonly [name: string]: string | undefined }
  readonly query: { readonly [name: string]: string }
  /** The body's JSON; `{}` when there is none. */
  readonly body: unknown
  readonly token: string | undefined
  readonly source: HttpServerRequest.HttpServerRequest
}

/** An endpoint. */
export interface Endpoint {
  readonly method: HttpMethod.HttpMethod
  readonly path: `/${string}`
  readonly handle: (host: Host, call: Call) => Effect.Effect<unknown, Refusal>
}

/** Refuses a call. */
export const refuse = (status: number, errcode: string, message: string): Result.Result<never, Refusal> =>
  Result.fail({ status, errcode, message })

/** An endpoint that needs no token. */
export const open = (
  method: Endpoint["method"],
  path: Endpoint["path"],
  f: (state: HomeserverModel.ModelState, call: Call, nowMillis: number) => Outcome<unknown>
): Endpoint => ({
  method,
  path,
  handle: (host, call) => host.attempt((state, nowMillis) => f(state, call, nowMillis))
})

/** What an endpoint for users is given. */
export interface UserCall extends Call {
  readonly state: HomeserverModel.ModelState
  readonly requester: HomeserverModel.Requester
  readonly nowMillis: number
}

/** An endpoint that needs a user's token. */
export const user = (
  method: Endpoint["method"],
  path: Endpoint["path"],
  f: (call: UserCall) => Outcome<unknown>
): Endpoint => ({
  method,
  path,
  handle: (host, call) =>
    host.request(call.token, (state, requester, nowMillis) => f({ ...call, state, requester, nowMillis }))
})

/** The body, if it has the shape; else `M_BAD_JSON` with the reason. */
export const bodyOf = <A>(call: Call, schema: Schema.Decoder<A>): Outcome<A> =>
  Result.mapError(Schema.decodeUnknownResult(schema)(call.body), ({ message }) => ({
    status: 400,
    errcode: "M_BAD_JSON",
    message
  }))

/** Any JSON object. */
export const AnyObject = Schema.Record(Schema.String, Schema.Unknown)

/** A parameter of the path; the router only calls a handler when it is there. */
export const param = (call: Call, name: string): string => call.params[name] ?? ""

const notJson: Refusal = { status: 400, errcode: "M_NOT_JSON", message: "the body is not JSON" }

/** As much as Synapse takes for the largest requests of clients, uploads of media apart. */
const maxBody = ByteSize.mebibytes(10)

const tooLarge: Refusal = {
  status: 413,
  errcode: "M_TOO_LARGE",
  message: `the body is larger than ${ByteSize.format(maxBody)}, or it ended too early`
}

const tooDeep: Refusal = { status: 400, errcode: "M_BAD_JSON", message: "the body is nested too deeply" }

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

/** JSON that can be written again: what is stored here is sent to other clients. */
const parse = (text: string): Outcome<unknown> =>
  Result.flatMap(
    Result.mapError(decodeJson(text), () => notJson),
    (json) => (MatrixEvent.writable(json) === json ? Result.succeed(json) : Result.fail(tooDeep))
  )

const readBody = (source: HttpServerRequest.HttpServerRequest): Effect.Effect<unknown, Refusal> =>
  source.text.pipe(
    Effect.provideService(HttpServerRequest.MaxBodySize, maxBody),
    Effect.mapError(() => tooLarge),
    Effect.flatMap((text) => (text === "" ? Effect.succeed({}) : Effect.fromResult(parse(text))))
  )

const tokenOf = ({ headers }: HttpServerRequest.HttpServerRequest): string | undefined =>
  /^Bearer (.+)$/i.exec(headers.authorization ?? "")?.[1]

const queryOf = (source: HttpServerRequest.HttpServerRequest): Call["query"] =>
  Option.match(HttpServerRequest.toURL(source), {
    onNone: () => ({}),
    onSome: ({ searchParams }) => Object.fromEntries(searchParams)
  })

const readCall = Effect.gen(function* () {
  const source = yield* HttpServerRequest.HttpServerRequest
  const params = yield* HttpRouter.params
  const body = source.method === "GET" ? {} : yield* readBody(source)
  return { params, query: queryOf(source), body, token: tokenOf(source), source }
})

const matrixError = ({
  status,
  errcode,
  message,
  softLogout,
  interactive
}: Refusal): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(
    {
      ...interactive,
      // Without an errcode interactive authentication is only asked for: nothing was wrong yet.
      ...(errcode === "" ? {} : { errcode, error: message }),
      ...(softLogout === undefined ? {} : { soft_logout: softLogout })
    },
    { status }
  )

/** The routes of some endpoints. */
export const routes = (host: Host, endpoints: ReadonlyArray<Endpoint>) =>
  HttpRouter.addAll(
    endpoints.map(({ method, path, handle }) =>
      HttpRouter.route(
        method,
        path,
        readCall.pipe(
          Effect.flatMap((call) => handle(host, call)),
          Effect.match({
            onFailure: matrixError,
            onSuccess: (json) => HttpServerResponse.jsonUnsafe(json ?? {})
          })
        )
      )
    )
  )

const unrecognized = (status: number) =>
  Effect.succeed(matrixError({ status, errcode: "M_UNRECOGNIZED", message: "Unrecognized request" }))

/** What every other path is answered with: 404 `M_UNRECOGNIZED`, as the specification wants it. */
export const fallback = HttpRouter.add("*", "/*", unrecognized(404))

const methods: ReadonlyArray<HttpMethod.HttpMethod> = ["GET", "POST", "PUT", "DELETE", "PATCH"]

/** The paths of some endpoints by the methods that they don't have: 405 `M_UNRECOGNIZED`. Spec: "Common error codes". */
export const otherMethods = (endpoints: ReadonlyArray<Endpoint>) => {
  const served = new Set(endpoints.map(({ method, path }) => `${method} ${path}`))
  const paths = [...new Set(endpoints.map(({ path }) => path))]
  return HttpRouter.addAll(
    paths.flatMap((path) =>
      methods
        .filter((method) => !served.has(`${method} ${path}`))
        .map((method) => HttpRouter.route(method, path, unrecognized(405)))
    )
  )
}
