/**
 * A `LeaseStore` in memory: for tests, and for processes that share nothing with another.
 *
 * Invariants: I1, by the rules of `Lease.ts`.
 */
import { Effect, Layer, Ref } from "effect"
import * as Lease from "./Lease.ts"
import { LeaseStore } from "./LeaseStore.ts"

type Tables = ReadonlyMap<string, Lease.LeaseTable>

const tableOf = (tables: Tables, name: string): Lease.LeaseTable => tables.get(name) ?? Lease.emptyTable

/** A new, empty store. Provide one store to several simulated processes to let them contend. */
export const make: Effect.Effect<LeaseStore["Service"]> = Effect.gen(function* () {
  const tables = yield* Ref.make<Tables>(new Map())
  const decide = <A>(
    name: string,
    rule: (table: Lease.LeaseTable) => readonly [Lease.LeaseTable, A]
  ): Effect.Effect<A> =>
    Ref.modify(tables, (all) => {
      const [next, outcome] = rule(tableOf(all, name))
      return [outcome, new Map(all).set(name, next)]
    })
  return LeaseStore.of({
    take: (request) => decide(request.name, (table) => Lease.decideTake(table, request)),
    renew: (request) => decide(request.fence.name, (table) => Lease.decideRenew(table, request)),
    release: (request) => decide(request.fence.name, (table) => Lease.decideRelease(table, request)),
    leave: (request) => decide(request.name, (table) => Lease.decideLeave(table, request)),
    inspect: (name) => Effect.map(Ref.get(tables), (all) => tableOf(all, name)),
    holds: (fence) => Effect.map(Ref.get(tables), (all) => Lease.stands(tableOf(all, fence.name), fence))
  })
})

/** A store of its own per build of the layer. */
export const layerMemory: Layer.Layer<LeaseStore> = Layer.effect(LeaseStore, make)
