/**
 * How much was judged: the routes of the dev homeserver, each with the specification's endpoint at its place, and what was
 * answered there.
 *
 * Not here: what was found (`Deviations.ts`).
 */
import { deviations } from "./Deviations.ts"
import type { Judge, Judged } from "./Judge.ts"
import { additions, type Route, routeAt, routes } from "./JudgedHomeserver.ts"
import * as Specification from "./Specification.ts"
import { HOMESERVER, OURS, THEIRS } from "./Town.ts"

/** Routes that are there to say no. */
const REFUSING = ["GET /_matrix/client/v3/room_keys/version", "GET /_matrix/client/v3/sync"]

const OK = 200

/** A route that the specification has, with what was judged of one of its endpoints there. */
export interface Place {
  readonly route: string
  readonly endpoint: string
  /** How often, by status. */
  readonly answers: { readonly [status: number]: number }
}

const countsOf = (statuses: ReadonlyArray<number>) => {
  const counts: Record<number, number> = {}
  for (const status of statuses) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

const keyOf = (route: Route | undefined, endpoint: string): string => `${route?.name} ${endpoint}`

/** What was judged of every route that the specification has. */
export const places = (judged: ReadonlyArray<Judged>): ReadonlyArray<Place> => {
  const statuses = Map.groupBy(judged, ({ endpoint, method, path }) => keyOf(routeAt(method, path), endpoint))
  return routes.flatMap((route) =>
    route.operations.map((operation) => {
      const endpoint = Specification.nameOf(operation)
      const all = statuses.get(keyOf(route, endpoint)) ?? []
      return { route: route.name, endpoint, answers: countsOf(all.map(({ status }) => status)) }
    })
  )
}

/** Whether a route was seen to do what it is there for. */
export const isJudged = ({ answers, route }: Place): boolean =>
  REFUSING.includes(route) ? Object.keys(answers).length > 0 : answers[OK] !== undefined

const countedBy = (names: ReadonlyArray<string>): { readonly [name: string]: number } =>
  Object.fromEntries([...Map.groupBy(names, (name) => name)].map(([name, all]) => [name, all.length]))

/** Routes by what they are beside the specification. */
const besides = (): { readonly [why: string]: number } =>
  countedBy(routes.flatMap(({ beside }) => (beside === undefined ? [] : [beside])))

/** Everything in numbers. */
export const figures = (judge: Judge, gateways: Judge) => {
  const judged = judge.judged()
  const all = places(judged)
  const isKnown = new Set(all.filter(isJudged).map(({ route }) => route))
  const statuses = countsOf(judged.map(({ status }) => status))
  return {
    /** Of the dev homeserver. */
    routes: routes.length,
    /** Of them, those that the specification has, and those that were seen to do what they are there for. */
    specified: new Set(all.map(({ route }) => route)).size,
    judged: isKnown.size,
    beside: besides(),
    answers: judged.length + gateways.judged().length,
    statuses,
    requests: {
      [OURS]: judge.requestsOf(OURS),
      [THEIRS]: judge.requestsOf(THEIRS),
      [HOMESERVER]: gateways.requestsOf(HOMESERVER)
    },
    deviations: [...deviations.map(({ why }) => why), ...additions.map(({ why }) => why)]
  }
}
