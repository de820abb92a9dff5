/**
 * A homeserver in this process, for a first look without an account: alice, whose password is "alice", has three rooms with
 * bob, who says something every second, and sends her devices an event each.
 */
import { HomeserverModel } from "@twinloop/core/testing"
import { DevHomeserver } from "@twinloop/platform/dev"
import { Effect, Result, Schedule } from "effect"

/** Bob's message and his event, made by the model itself: he needs no client. */
const talk = (number: number) => (state: HomeserverModel.ModelState, nowMillis: number) =>
  Result.gen(function* () {
    const alice = yield* HomeserverModel.findUser(state, HomeserverModel.userIdOf(state, "alice"))
    const sender = HomeserverModel.userIdOf(state, "bob")
    const rooms = [...state.rooms.values()]
    const room = rooms[number % rooms.length]
    const content = { msgtype: "m.text", body: `message ${number}` }
    if (room !== undefined) HomeserverModel.append(state, room, { type: "m.room.message", sender, content }, nowMillis)
    for (const { deviceId } of alice.devices.values()) {
      yield* HomeserverModel.sendNumbered(state, { userId: alice.userId, deviceId, count: 1, sender }, nowMillis)
    }
  })

/** Serves until the scope closes; gives the address. */
export const start = Effect.gen(function* () {
  const { baseUrl, host } = yield* DevHomeserver.DevHomeserver
  yield* host.attempt((state, nowMillis) =>
    Result.gen(function* () {
      const alice = yield* HomeserverModel.addUser(state, { localpart: "alice", password: "alice" })
      const bob = yield* HomeserverModel.addUser(state, { localpart: "bob" })
      for (const room of HomeserverModel.addRooms(state, alice, { count: 3 }, nowMillis)) {
        const invitation = { roomId: room.roomId, target: bob.userId, membership: "invite" as const }
        yield* HomeserverModel.setMember(state, alice, invitation, nowMillis)
        yield* HomeserverModel.join(state, bob, room.roomId, nowMillis)
      }
    })
  )
  let number = 0
  const talking = Effect.suspend(() => host.attempt(talk(++number)))
  yield* Effect.forkScoped(Effect.schedule(talking, Schedule.spaced("1 second")))
  return baseUrl
})
