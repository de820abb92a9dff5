import { assert, describe, it } from "@effect/vitest"
import { Inbox, SyncService } from "@twinloop/actors"
import { Homeserver, PassThroughCrypto, RoomList, SyncConfig } from "@twinloop/core"
import type { SlidingSync } from "@twinloop/core"
import { HomeserverSim, WakeMemory } from "@twinloop/core/testing"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { CheckpointThread } from "../src/sqlite/CheckpointThread.ts"
import { countOf, counting } from "./SqlCounting.ts"
import { storesAt, temporaryFile } from "./SqliteKit.ts"

const settle = Effect.andThen(TestClock.adjust(0), Effect.repeat(Effect.yieldNow, { times: 300 }))

const noCopies = Layer.succeed(CheckpointThread, { checkpoint: () => Effect.void })

const makeHost = Effect.gen(function* () {
  const sim = Context.get(yield* Layer.build(HomeserverSim.layer()), HomeserverSim.HomeserverSim)
  const hub = yield* WakeMemory.makeHub
  const session = yield* sim.session("alice", "DEVICE")
  const filename = yield* temporaryFile
  const counted = yield* counting
  const responses: Array<SlidingSync.SyncResponse> = []
  const open = Effect.fnUntraced(function* (role: string) {
    const port = sim.homeserver(session)
    const recorded = {
      ...port,
      sync: (request: SlidingSync.SyncRequest) =>
        Effect.tap(port.sync(request), (response) => Effect.sync(() => void responses.push(response)))
    }
    const layer = SyncService.SyncService.layer.pipe(
      Layer.provideMerge(Layer.mergeAll(Inbox.Inbox.layer, RoomList.layer, PassThroughCrypto.layer)),
      Layer.provideMerge(
        Layer.mergeAll(storesAt(filename), Layer.succeed(Homeserver.Homeserver, recorded), hub.process(role))
      ),
      Layer.provide([SyncConfig.layer({ role }), noCopies])
    )
    const scope = yield* Scope.make()
    const close = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => close)
    const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
    return { service: Context.get(context, SyncService.SyncService), inbox: Context.get(context, Inbox.Inbox), close }
  })
  return { sim, session, counted, responses, open }
})

describe("costs", () => {
  it.effect("explore", () =>
    Effect.gen(function* () {
      const host = yield* makeHost
      yield* host.sim.addRooms(host.session.userId, 220)
      const app = yield* host.open("app")
      host.counted.take()
      yield* app.service.start
      yield* settle
      const ran = host.counted.take()
      const tally = (r: ReadonlyArray<string>) => { const m: Record<string, number> = {}; for (const s of r) { const k = s.replace(/\s+/g, " ").slice(0, 70); m[k] = (m[k] ?? 0) + 1 }; return m }
      console.log("START", tally(ran), (yield* host.sim.requests).map((r) => [r.operation, r.request?.connId, r.request?.timeoutMillis]))
      console.log(host.responses.map((r) => [r.rooms.length, r.rooms.reduce((a, b) => a + b.requiredState.length, 0), r.rooms.reduce((a, b) => a + b.timeline.length, 0), Object.keys(r.extensions)]))
      host.counted.takePrepared()
      yield* TestClock.adjust("1 hour")
      yield* settle
      console.log("IDLE", tally(host.counted.take()), (yield* host.sim.requests).length, host.counted.takePrepared())
      const seen: number[] = []
      yield* Effect.forkChild(app.inbox.consume("app", (e) => Effect.sync(() => void seen.push(e.sequence))))
      yield* settle
      host.counted.take()
      yield* host.sim.sendNumbered(host.session, 1000)
      yield* settle
      console.log("BATCHES", seen.length, tally(host.counted.take()))
      yield* app.close
      console.log("CLOSE", tally(host.counted.take()))
      const again = yield* host.open("app")
      console.log("OPEN", tally(host.counted.take()))
      const before = (yield* host.sim.requests).length
      yield* again.service.start
      yield* settle
      console.log("AGAIN", tally(host.counted.take()), (yield* host.sim.requests).slice(before).map((r) => [r.operation, r.request?.connId, r.request?.timeoutMillis]))
    })
  )
})
