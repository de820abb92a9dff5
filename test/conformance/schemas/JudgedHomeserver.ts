/**
 * The dev homeserver with a judge before it: every client has an address of its own, so that it is known whose request is judged.
 *
 * Includes which routes there are, which of them the specification knows, and what is judged of each.
 *
 * Not here: judging (`Judge.ts`), the stories that are judged.
 */
import { DevHomeserver } from "@twinloop/platform/dev"
import { SlidingSyncWire } from "@twinloop/core"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { Place } from "../../../packages/platform/test/DevHarness.ts"
import * as Wire from "../../synapse/Wire.ts"
import * as Judge from "./Judge.ts"
import type { JsonSchema } from "./JsonSchemas.ts"
import * as SlidingSyncJudge from "./SlidingSyncJudge.ts"
import * as Specification from "./Specification.ts"

const spellings = ["unstable", "v4"] as const

/** Routes that the specification doesn't have, and why the dev homeserver has them. */
const beside: ReadonlyArray<readonly [why: string, routes: RegExp]> = [
  ["the dev homeserver's own, for tests and stories", /^[A-Z]+ \/_twinloop\//],
  [
    "MSC4186: what /sync has too is judged by the schema of /sync",
    /^POST \/_matrix\/client\/(unstable|v4)\/[^ ]*sync$/
  ],
  [
    "MSC4306, subscriptions to threads: refusals are judged",
    /^[A-Z]+ \/_matrix\/client\/unstable\/io\.element\.msc4306\//
  ],
  ["added in v1.14, where the package has v1.10", /^GET \/_matrix\/client\/v3\/pushrules\/global$/],
  ["a habit of Synapse's, which clients know", /^GET \/_matrix\/client\/v3\/pushrules\/global\/:kind$/]
]

export interface Route {
  /** `GET /_matrix/client/v3/rooms/:roomId/state` */
  readonly name: string
  readonly method: string
  readonly path: string
  /** What the specification has at this place. */
  readonly operations: ReadonlyArray<Specification.Operation>
  /** Why there is nothing. */
  readonly beside?: string
}

const written = Specification.clientServer()

/** What the specification says in words only. */
export const additions = [
  {
    endpoint: "POST /_matrix/client/v3/keys/device_signing/upload",
    status: 401,
    as: "POST /_matrix/client/v3/delete_devices",
    why: "the endpoint asks for interactive authentication, whose 401 is documented with other endpoints only"
  }
] as const

const withAdditions = (operation: Specification.Operation): Specification.Operation => {
  const added = additions
    .filter(({ endpoint }) => endpoint === Specification.nameOf(operation))
    .map(
      ({ as, status }) =>
        [status, written.find((one) => Specification.nameOf(one) === as)?.answers.get(status)] as const
    )
  return added.length === 0 ? operation : { ...operation, answers: new Map([...operation.answers, ...added]) }
}

const operations = written.map(withAdditions)

const routeOf = ({ method, path }: { readonly method: string; readonly path: string }): Route => {
  const name = `${method} ${path}`
  const known = operations.filter((one) => one.method === method && Specification.overlap(one.template, path))
  const why = beside.find(([, routes]) => routes.test(name))?.[0]
  return { name, method, path, operations: known, ...(why !== undefined && { beside: why }) }
}

const noGate = { shut: Effect.void, shutFor: () => Effect.void }

/** Every route of the dev homeserver. */
export const routes: ReadonlyArray<Route> = DevHomeserver.endpoints(spellings, noGate).map(routeOf)

/** Where the answer of an operation with status 200 is described. */
const schemaOf = (template: string): JsonSchema => {
  const schema = operations.find((one) => one.template === template)?.answers.get(200)
  if (schema === undefined) throw new Error(`the specification has no answer of ${template}`)
  return schema
}

/** The route of a request; `undefined` where there is none. */
export const routeAt = (method: string, path: string): Route | undefined =>
  Specification.fitting(
    routes.filter((route) => route.method === method),
    (route) => route.path,
    path
  )[0]

const slidingSync = (spelling: (typeof spellings)[number]): Judge.Other => ({
  isAt: (_, path) => path === SlidingSyncWire.path(spelling),
  errors: { M_UNKNOWN_POS: 400, M_INVALID_PARAM: 400 },
  judge: SlidingSyncJudge.judge(schemaOf("/_matrix/client/v3/sync"))
})

const unknown: Judge.Other = {
  isAt: (method, path) => routeAt(method, path)?.beside !== undefined,
  errors: {},
  judge: () => []
}

const isServed = (path: string): boolean => Specification.fitting(routes, (route) => route.path, path).length > 0

/** A judge of the dev homeserver and its clients. */
export const makeJudge = (): Judge.Judge =>
  Judge.make({ operations, others: [...spellings.map(slidingSync), unknown], isServed })

/** A judge of a push gateway and the homeservers that push to it. */
export const makeGatewayJudge = (): Judge.Judge =>
  Judge.make({ operations: Specification.pushGateway(), others: [], isServed: () => false })

/** A dev homeserver that is judged. */
export interface Judged {
  /** The address for one kind of client. */
  at(client: string): Effect.Effect<Place, never, Scope.Scope>
  /** Past the judge, for setting the stage. */
  readonly unjudged: Place
}

/** Starts a dev homeserver until the scope closes. What it is not asked under an address of `at` is not judged. */
export const start = (
  judge: Judge.Judge,
  options: Partial<DevHomeserver.Options> = {}
): Effect.Effect<Judged, DevHomeserver.CannotListen, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(DevHomeserver.layer({ port: 0, ...options }))
    const { baseUrl } = Context.get(context, DevHomeserver.DevHomeserver)
    const note = (client: string) => (message: Wire.Message) => {
      if (!message.url.startsWith("/_twinloop/")) judge.note(client, message)
    }
    return {
      unjudged: { baseUrl },
      at: (client) => Effect.map(Wire.tap(baseUrl, note(client)), (address) => ({ baseUrl: address }))
    }
  })
