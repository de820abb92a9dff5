/**
 * Requests for the dev homeserver that are drawn from the specification's own schemas: most of them right, some wrong in any
 * way, by their token, path, query or body. Whatever comes must be answered as the specification says.
 *
 * Gotchas: a drawn request may end its token or leave its room, so each has an account and a room of its own.
 *
 * Not here: the judge (`Judge.ts`), requests that must succeed (`Sweep.ts`).
 */
import { Effect } from "effect"
import * as fc from "fast-check"
import { addUser, ask, type Place } from "../../../packages/platform/test/DevHarness.ts"
import type { JsonSchema } from "./JsonSchemas.ts"
import type { Route } from "./JudgedHomeserver.ts"
import type { Operation } from "./Specification.ts"
import { asUser, post, put, segment } from "./Sweep.ts"

const anything = fc.jsonValue({ maxDepth: 2 })

const texts = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 12 }),
  fc.constantFrom("m.room.message", "m.room.member", "@alice:localhost", "join", "b", "")
)

const merged = (parts: ReadonlyArray<unknown>): unknown =>
  parts.every((part) => typeof part === "object" && part !== null) ? Object.assign({}, ...parts) : parts.at(-1)

/** Values of a schema; now and then, at any depth, something else. */
const valuesOf = (schema: JsonSchema): fc.Arbitrary<unknown> =>
  fc.oneof({ arbitrary: rightOf(schema), weight: 24 }, { arbitrary: anything, weight: 1 })

const objectsOf = ({ additionalProperties, properties = {}, required = [] }: JsonSchema): fc.Arbitrary<unknown> => {
  const named = Object.entries(properties as { readonly [name: string]: JsonSchema })
  const record = fc.record(Object.fromEntries(named.map(([name, schema]) => [name, valuesOf(schema)])), {
    requiredKeys: required as Array<string>
  })
  const others = fc.dictionary(
    texts,
    additionalProperties === undefined ? anything : valuesOf(additionalProperties as JsonSchema),
    {
      maxKeys: 2
    }
  )
  return fc.tuple(others, record).map(merged)
}

const rightOf = (schema: JsonSchema): fc.Arbitrary<unknown> => {
  if (Array.isArray(schema.enum)) return fc.constantFrom(...(schema.enum as ReadonlyArray<unknown>))
  if (Array.isArray(schema.anyOf)) return fc.oneof(...(schema.anyOf as ReadonlyArray<JsonSchema>).map(valuesOf))
  if (Array.isArray(schema.allOf))
    return fc.tuple(...(schema.allOf as ReadonlyArray<JsonSchema>).map(valuesOf)).map(merged)
  switch (schema.type) {
    case "string":
      return texts
    case "integer":
      return fc.integer()
    case "number":
      return fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
    case "boolean":
      return fc.boolean()
    case "null":
      return fc.constant(null)
    case "array":
      return fc.array(valuesOf(schema.items as JsonSchema), { maxLength: 3 })
    case "object":
      return objectsOf(schema)
    default:
      return anything
  }
}

/** A request that is drawn; variables of the path are by name, where an account's own are meant. */
export interface Drawn {
  readonly method: string
  /** With the names of its variables. */
  readonly path: string
  readonly token: "right" | "wrong" | "none"
  readonly variables: ReadonlyArray<{ readonly isRight: boolean; readonly text: string }>
  readonly query: { readonly [name: string]: unknown }
  /** As it is sent. */
  readonly body: string | undefined
}

const bodiesOf = ({ body, method }: Operation): fc.Arbitrary<string | undefined> => {
  if (method === "GET") return fc.constant(undefined)
  const right = body === undefined ? fc.constant({}) : valuesOf(body)
  return fc.oneof(
    { arbitrary: right.map((json) => JSON.stringify(json)), weight: 12 },
    { arbitrary: fc.constantFrom(undefined, "", "{", "[]", "null", '"text"'), weight: 1 }
  )
}

const queriesOf = ({ query }: Operation) =>
  fc.record(Object.fromEntries(query.map(({ name, schema }) => [name, valuesOf(schema)])), {
    requiredKeys: query.flatMap(({ name, required }) => (required ? [name] : []))
  })

const drawnOf = ({ method, operations, path }: Route): fc.Arbitrary<Drawn> =>
  fc.constantFrom(...operations).chain((operation) =>
    fc.record({
      method: fc.constant(method),
      path: fc.constant(path),
      token: fc.oneof({ arbitrary: fc.constant("right" as const), weight: 12 }, fc.constantFrom("wrong", "none")),
      variables: fc.array(
        fc.record({
          isRight: fc.oneof({ arbitrary: fc.constant(true), weight: 5 }, fc.constant(false)),
          text: texts.filter((text) => text !== "")
        }),
        { minLength: 4, maxLength: 4 }
      ),
      query: queriesOf(operation),
      body: bodiesOf(operation)
    })
  )

/** Requests for any of these routes, each as likely. */
export const requests = (routes: ReadonlyArray<Route>): fc.Arbitrary<Drawn> =>
  fc.oneof(...routes.filter(({ operations }) => operations.length > 0).map(drawnOf))

/** What an account's own ids are, by the names that routes have for them. */
const scene = Effect.fnUntraced(function* (place: Place, name: string) {
  const account = yield* addUser(place, name)
  const as = asUser(place, account)
  const { room_id } = yield* as("/createRoom", post())
  const room = `/rooms/${segment(String(room_id))}`
  const { event_id } = yield* as(`${room}/send/m.room.message/t1`, put({ msgtype: "m.text", body: "soup" }))
  const right: { readonly [name: string]: string } = {
    userId: account.user_id,
    deviceId: account.device_id,
    roomId: String(room_id),
    eventId: String(event_id),
    type: "m.room.create",
    stateKey: "",
    kind: "override",
    ruleId: ".m.rule.master",
    field: "displayname"
  }
  return { account, right }
})

let drawn = 0

/** Sends a drawn request, of an account and in a room that are made past the judge. */
export const send = Effect.fnUntraced(function* (
  unjudged: Place,
  place: Place,
  { body, method, path: template, query, token, variables }: Drawn
) {
  drawn += 1
  const { account, right } = yield* scene(unjudged, `user${drawn}`)
  let index = 0
  const path = template.replaceAll(/:([a-zA-Z]+)/g, (_, name: string) => {
    const { isRight, text } = variables[index++ % variables.length]!
    return segment(isRight ? (right[name] ?? text) : text)
  })
  const values = Object.entries(query).map(
    ([name, value]) => `${segment(name)}=${segment(typeof value === "string" ? value : JSON.stringify(value))}`
  )
  const tokens = { right: account.access_token, wrong: "made up", none: undefined }
  yield* ask(place, values.length === 0 ? path : `${path}?${values.join("&")}`, {
    method,
    token: tokens[token],
    ...(body !== undefined && { body })
  })
})
