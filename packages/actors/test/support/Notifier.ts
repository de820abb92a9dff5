/**
 * What notification processes of a simulated host are notified of: a room that two people share, and how results read.
 *
 * Includes the processes themselves (`NotifierProcess.ts` of the test kit).
 */
import type { MatrixEvent, NotificationItem } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect, Result } from "effect"
import { makeWorld, type World } from "../../src/testing/Simulation.ts"
import { settle } from "../../src/testing/Time.ts"
import { deviceOf, startChat } from "./Chat.ts"

export { clientIn, isStreamFree, type NotifierOptions, startNotifier } from "../../src/testing/NotifierProcess.ts"

/** Bob's device, and a room called Kitchen that he shares with Alice, the world's user. */
export const setUp = Effect.fnUntraced(function* (isEncrypted: boolean) {
  const world = yield* makeWorld()
  const bobs = yield* deviceOf(world, "bob", "BOB")
  const bob = yield* startChat(bobs, "bob")
  const roomId = yield* addRoom(world, "Kitchen", isEncrypted)
  yield* settle
  return { world, bobs, bob, roomId }
})

export const BOB = "@bob:localhost"

/** A room that Bob has made and Alice is in, and in which he is called Bob. */
export const addRoom = Effect.fnUntraced(function* (world: World, name: string, isEncrypted: boolean) {
  const roomId = yield* world.sim.addRoom({ members: [BOB, world.session.userId], isEncrypted, name })
  const content = { membership: "join", displayname: "Bob" }
  yield* world.sim.sendEvent(roomId, { type: "m.room.member", sender: BOB, stateKey: BOB, content })
  return roomId
})

/** Push rules of these overrides alone. */
export const setRules = (world: World, ...override: ReadonlyArray<MatrixEvent.JsonObject>) =>
  world.sim.setAccountData(world.session.userId, "m.push_rules", { global: { override } })

export const notifyAll = { rule_id: "all", enabled: true, conditions: [], actions: ["notify"] }

/** What a result says, as a person reads it. */
export const reading = (result: NotificationItem.NotificationResult | undefined): unknown => {
  switch (result?._tag) {
    case "Event":
      return { room: result.item.room.name, sender: result.item.sender.name, body: result.item.event.content.body }
    case "FilteredOut":
      return { filtered: result.rule ?? result.reason }
    case "Undecrypted":
      return { undecrypted: result.reason }
    default:
      return result?._tag
  }
}

/** A message by Bob in the Kitchen. */
export const says = (body: string, room = "Kitchen") => ({ room, sender: "Bob", body })

/** The item of a result that has one; anything else is the test's failure. */
export const itemOf = (result: NotificationItem.NotificationResult) =>
  result._tag === "Event" ? Effect.succeed(result.item) : Effect.die(result)

const withDevice = (
  world: World,
  change: (state: HomeserverModel.ModelState, requester: HomeserverModel.Requester) => void
) =>
  world.sim.model((state, nowMillis) =>
    change(state, Result.getOrThrow(HomeserverModel.authenticate(state, world.session.accessToken, nowMillis)))
  )

/** Keys that are sent from here on don't arrive before `deliverKeys`. */
export const holdKeys = (world: World) => withDevice(world, (state, { device }) => HomeserverModel.hold(state, device))

export const deliverKeys = (world: World) =>
  withDevice(world, (state, requester) => HomeserverModel.release(state, requester))
