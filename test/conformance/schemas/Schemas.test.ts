/**
 * The dev homeserver and its clients, held against the specification's own schemas by a judge on the wire (`Judge.ts`).
 *
 * Everything that is asked in this file goes through one judge, and the last tests look at what it has found and what it has
 * seen. `npm run conformance` prints that in numbers.
 */
import { NodeServices } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { encryptionConformance, pushConformance, syncConformance } from "@twinloop/core/testing"
import { Effect } from "effect"
import * as fc from "fast-check"
import { writeFileSync } from "node:fs"
import { encryptionHarness, pushHarness, syncHarness } from "../../../packages/platform/test/DevHarness.ts"
import * as AccountStories from "./AccountStories.ts"
import * as Deviations from "./Deviations.ts"
import * as Drawn from "./Drawn.ts"
import * as Figures from "./Figures.ts"
import { TESTER } from "./Judge.ts"
import * as JudgedHomeserver from "./JudgedHomeserver.ts"
import * as Specification from "./Specification.ts"
import * as Stories from "./Stories.ts"
import * as Sweep from "./Sweep.ts"
import { HOMESERVER, OURS, THEIRS } from "./Town.ts"

const judge = JudgedHomeserver.makeJudge()
const gateways = JudgedHomeserver.makeGatewayJudge()

const found = () => Deviations.unexplained([...judge.findings(), ...gateways.findings()])

/** Where a tester asks. */
const place = Effect.flatMap(JudgedHomeserver.start(judge), (homeserver) => homeserver.at(TESTER))

syncConformance("the judged dev homeserver", Effect.flatMap(place, syncHarness))
encryptionConformance("the judged dev homeserver", Effect.flatMap(place, encryptionHarness))
pushConformance("the judged dev homeserver", Effect.flatMap(place, pushHarness))

/** What waits for others waits for up to 45 s (`JsSdk.ts`), and then says for what. */
const PATIENCE_MILLIS = 120_000

const told = <A, E>(story: Effect.Effect<A, E, NodeServices.NodeServices>) => Effect.provide(story, NodeServices.layer)

describe("Twinloop and matrix-js-sdk on the judged dev homeserver", () => {
  it.live(
    "I5: read one another's encrypted messages, also after the homeserver has forgotten where they were",
    () => told(Effect.scoped(Stories.encrypted(judge))),
    PATIENCE_MILLIS
  )

  it.live(
    "see one another's identities and devices come and go",
    () => told(Effect.scoped(Stories.signed(judge))),
    PATIENCE_MILLIS
  )
})

describe("matrix-js-sdk on the judged dev homeserver", () => {
  it.live(
    "follows a window that grows, a subscribed room, and every change, and starts anew when it is told to",
    () => told(Effect.scoped(Stories.slidingSync(judge))),
    PATIENCE_MILLIS
  )
})

describe("Twinloop on the judged dev homeserver", () => {
  it.live(
    "logs in, renews its token, gets pushes at its gateway, and logs out",
    () => told(Effect.scoped(AccountStories.account(gateways)(judge))),
    PATIENCE_MILLIS
  )
})

describe("the specification's schemas", () => {
  it.live("describe how every route answers what it is meant for", () =>
    Effect.gen(function* () {
      yield* Sweep.good(yield* place)
      assert.deepStrictEqual(found().findings, [])
    }).pipe(Effect.scoped)
  )

  it.live(
    "I7: describe how every route answers whatever it is asked",
    () =>
      Effect.gen(function* () {
        const { at, unjudged } = yield* JudgedHomeserver.start(judge)
        const tester = yield* at(TESTER)
        const runPromise = Effect.runPromiseWith(yield* Effect.context<never>())
        const isAnsweredWell = (drawn: Drawn.Drawn) =>
          runPromise(
            Effect.map(Drawn.send(unjudged, tester, drawn), () => assert.deepStrictEqual(found().findings, []))
          )
        const property = fc.asyncProperty(Drawn.requests(JudgedHomeserver.routes), isAnsweredWell)
        yield* Effect.promise(() => fc.assert(property, { numRuns: 200 }))
      }).pipe(Effect.scoped),
    PATIENCE_MILLIS
  )

  it("are those of every route, unless it says why not", () => {
    const isExplained = ({ beside, operations }: JudgedHomeserver.Route) =>
      operations.length > 0 !== (beside !== undefined)
    assert.deepStrictEqual(
      JudgedHomeserver.routes.filter((route) => !isExplained(route)).map(({ name }) => name),
      []
    )
    const unknown = judge.judged().filter(({ method, path }) => JudgedHomeserver.routeAt(method, path) === undefined)
    assert.isAbove(unknown.length, 0, "nobody asked what isn't there")
  })

  it("were met by each route where it does what it is there for", () => {
    const missing = Figures.places(judge.judged()).filter((one) => !Figures.isJudged(one))
    assert.deepStrictEqual(missing, [])
  })

  it("describe every request of both clients and of the dev homeserver, and every answer, but for known deviations", () => {
    assert.deepStrictEqual(found(), { findings: [], stale: [] })
    const isMet = ({ endpoint, status }: (typeof JudgedHomeserver.additions)[number]) =>
      judge.judged().some((one) => one.endpoint === endpoint && one.status === status)
    assert.deepStrictEqual(
      JudgedHomeserver.additions.filter((addition) => !isMet(addition)),
      []
    )
    for (const client of [OURS, THEIRS]) assert.isAbove(judge.requestsOf(client), 40, client)
    assert.isAbove(gateways.requestsOf(HOMESERVER), 0)
    // Each was told that its position is unknown, and went on.
    for (const client of [OURS, THEIRS])
      assert.isTrue(
        judge.judged().some((one) => one.client === client && one.path.endsWith("/sync") && one.status === 400),
        client
      )
  })

  it("describe everything that Twinloop asks of a homeserver, where it is in the specification", () => {
    const isSpecified = new Set(
      JudgedHomeserver.routes.flatMap(({ operations }) => operations.map(Specification.nameOf))
    )
    const asked = judge.judged().filter(({ client, endpoint }) => client === OURS && isSpecified.has(endpoint))
    assert.deepStrictEqual([...new Set(asked.map(({ endpoint }) => endpoint))].toSorted(), [
      "GET /_matrix/client/v3/account/whoami",
      "GET /_matrix/client/v3/login",
      "GET /_matrix/client/v3/pushers",
      "GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}",
      "GET /_matrix/client/v3/rooms/{roomId}/members",
      "GET /_matrix/client/versions",
      "POST /_matrix/client/v3/keys/claim",
      "POST /_matrix/client/v3/keys/device_signing/upload",
      "POST /_matrix/client/v3/keys/query",
      "POST /_matrix/client/v3/keys/signatures/upload",
      "POST /_matrix/client/v3/keys/upload",
      "POST /_matrix/client/v3/login",
      "POST /_matrix/client/v3/logout",
      "POST /_matrix/client/v3/pushers/set",
      "POST /_matrix/client/v3/refresh",
      "PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}",
      "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}",
      "PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}"
    ])
  })
})

afterAll(() => {
  const file = process.env["TWINLOOP_CONFORMANCE_FIGURES"]
  if (file !== undefined) writeFileSync(file, JSON.stringify(Figures.figures(judge, gateways)))
})
