/**
 * What the Matrix specification says of each endpoint, from its own npm package: v1.10, the newest version of which more than
 * emojis was published (`@matrix-org/spec`).
 *
 * Includes finding the endpoint of a request: of several templates that fit, the one with the most literal path.
 *
 * Gotchas: the package has types and not OpenAPI (`JsonSchemas.ts`), and no schemas of what events of a type contain. Endpoints
 * that were added later are unknown here; the client-server API only grew since, but for `redacts` and the like of room versions.
 *
 * Not here: what is made of it (`Judge.ts`).
 */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as JsonSchemas from "./JsonSchemas.ts"
import type { Declarations, JsonSchema, Member } from "./JsonSchemas.ts"

/** What is said of one endpoint. */
export interface Operation {
  readonly method: string
  /** `/_matrix/client/v3/rooms/{roomId}/join` */
  readonly template: string
  /** By name; the schema is of the value, which goes over the wire as text. */
  readonly query: ReadonlyArray<{ readonly name: string; readonly schema: JsonSchema; readonly required: boolean }>
  /** The schema of the request's JSON; absent where a request has no body, or none that is JSON. */
  readonly body: JsonSchema | undefined
  /** Whether there must be one. */
  readonly bodyRequired: boolean
  /** Schemas by status; `undefined` where a status is documented without what it comes with. */
  readonly answers: ReadonlyMap<number, JsonSchema | undefined>
}

/** `GET /_matrix/client/versions` */
export const nameOf = ({ method, template }: Operation): string => `${method} ${template}`

const find = (members: ReadonlyArray<Member>, name: string) => members.find((member) => member.name === name)?.type

const jsonIn = ({ membersOf, schemaOf }: Declarations, container: Parameters<typeof membersOf>[0]) => {
  const json = find(membersOf(find(membersOf(container), "content")), "application/json")
  return json === undefined ? undefined : schemaOf(json)
}

const operationOf = (
  declarations: Declarations,
  [method, template]: readonly [method: string, template: string],
  members: ReadonlyArray<Member>
): Operation => {
  const { membersOf, schemaOf } = declarations
  const query = membersOf(find(membersOf(find(members, "parameters")), "query"))
  return {
    method: method.toUpperCase(),
    template,
    query: query.map(({ name, optional, type }) => ({ name, schema: schemaOf(type), required: !optional })),
    body: jsonIn(declarations, find(members, "requestBody")),
    bodyRequired: members.some(({ name, optional }) => name === "requestBody" && !optional),
    answers: new Map(
      membersOf(find(members, "responses")).map(({ name, type }) => [Number(name), jsonIn(declarations, type)])
    )
  }
}

const load = (file: string): ReadonlyArray<Operation> => {
  const path = fileURLToPath(new URL(`../../../node_modules/@matrix-org/spec/${file}`, import.meta.url))
  const declarations = JsonSchemas.read(readFileSync(path, "utf8"), file)
  const operations = new Map(declarations.interfaceOf("operations").map(({ name, type }) => [name, type]))
  return declarations.interfaceOf("paths").flatMap(({ name: template, type }) =>
    declarations.membersOf(type).map(({ name: method, type: operation }) => {
      const members = declarations.membersOf(operations.get(JsonSchemas.indexOf(operation) ?? "") ?? operation)
      // One that is documented twice has a space at the end of its second name.
      return operationOf(declarations, [method, template.trimEnd()], members)
    })
  )
}

/** The client-server API. */
export const clientServer = (): ReadonlyArray<Operation> => load("client-server.d.ts")

/** What homeservers ask of push gateways. */
export const pushGateway = (): ReadonlyArray<Operation> => load("push-gateway.d.ts")

const segmentsOf = (path: string): ReadonlyArray<string> => path.replace(/\/+$/, "").split("/")

const isVariable = (segment: string | undefined): boolean => segment !== undefined && /^(:|\{)/.test(segment)

/** The segments of a template and of what is held against it, in pairs; `undefined` when their numbers differ. */
const paired = (template: string, path: string) => {
  const given = segmentsOf(path)
  const wanted = segmentsOf(template)
  // The slash before an empty state key may be left out.
  const isShort = template.endsWith("/state/{eventType}/{stateKey}") && given.length === wanted.length - 1
  const compared = isShort ? wanted.slice(0, -1) : wanted
  return compared.length === given.length
    ? compared.map((segment, index) => [segment, given[index] ?? ""] as const)
    : undefined
}

/** How well a path fits a template: its shape, which sorts by how early it is literal; `undefined` if it doesn't. */
const shapeOf = (template: string, path: string): string | undefined => {
  const pairs = paired(template, path)
  return pairs?.every(([wanted, given]) => (isVariable(wanted) ? given !== "" : wanted === given)) === true
    ? pairs.map(([wanted]) => (isVariable(wanted) ? "variable" : "literal")).join(" ")
    : undefined
}

/** Those whose template fits a path best; none if none fits. */
export const fitting = <A>(all: ReadonlyArray<A>, templateOf: (one: A) => string, path: string): ReadonlyArray<A> => {
  const fits = all.flatMap((one) => {
    const shape = shapeOf(templateOf(one), path)
    return shape === undefined ? [] : [{ one, shape }]
  })
  const best = fits.map(({ shape }) => shape).toSorted()[0]
  return fits.filter(({ shape }) => shape === best).map(({ one }) => one)
}

/** Whether some path fits both a template of the specification and a route's. */
export const overlap = (template: string, route: string): boolean =>
  paired(template, route)?.every(([wanted, given]) => isVariable(wanted) || isVariable(given) || wanted === given) ??
  false
