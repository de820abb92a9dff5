/**
 * Ciphertexts whose key is there: real devices that have talked to one another, and what they do with a message that was changed
 * on its way.
 *
 * A target fails its input when it dies, and when it takes for genuine what nobody sent: other words, another sender without a
 * warning, one message as two.
 *
 * Not here: ciphertexts without a key, and everything in the clear (`Targets.ts`).
 */
import { MatrixEvent, type SyncStore } from "@twinloop/core"
import { HomeserverHost, HomeserverModel } from "@twinloop/core/homeserver"
import { Effect, Result, Schema } from "effect"
import type { Scope } from "effect"
import * as Peer from "../../test/processes/fixtures/Peer.ts"
import type { Target } from "./Targets.ts"

const json = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

/** Bodies with letters that mutations like to touch. */
const bodies = ["hello", "a longer message, with a few words in it", "{}[]:,\\"]

/** Alice says something to Bob, who takes the keys, and to Carol, who doesn't. */
const conversation = Effect.gen(function* () {
  const host = HomeserverHost.make({ serverName: "localhost" })
  const [alice, bob, carol] = [
    yield* Peer.open(host, "alice", "ALICE"),
    yield* Peer.open(host, "bob", "BOB"),
    yield* Peer.open(host, "carol", "CAROL")
  ]
  const users = [alice.userId, bob.userId, carol.userId]
  const roomId = yield* host.attempt((state, nowMillis) =>
    Result.gen(function* () {
      const creator = yield* HomeserverModel.findUser(state, alice.userId)
      const encryption = { type: "m.room.encryption", stateKey: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }
      const made = HomeserverModel.createRoom(
        state,
        creator,
        { invite: users.slice(1), initialState: [encryption] },
        nowMillis
      )
      for (const user of users.slice(1))
        yield* HomeserverModel.join(state, yield* HomeserverModel.findUser(state, user), made.roomId, nowMillis)
      return made.roomId
    })
  )
  const sent = yield* Effect.forEach(bodies, (body) => Peer.say(alice, { roomId, users }, body, 100))
  yield* Peer.round(bob)
  const { extensions } = yield* host.sync(carol.token, {
    connId: "fuzz",
    timeoutMillis: 0,
    lists: {},
    roomSubscriptions: {},
    extensions: { toDevice: {} }
  })
  return { alice, bob, carol, roomId, sent, toDevice: extensions.toDevice?.events ?? [] }
})

type Conversation = Effect.Success<typeof conversation>

const taken = (what: string, found: unknown) =>
  Effect.die(new Error(`${what} was taken for genuine: ${JSON.stringify(found)?.slice(0, 500)}`))

const roomTarget = Effect.fnUntraced(function* ({ alice, bob, roomId, sent }: Conversation) {
  // Each genuine one is read first, so that any other event with its ciphertext is a replay.
  const genuine = new Map<string, string>()
  for (const { body, event } of sent) {
    const read = yield* Peer.read(bob.reader, roomId, event)
    if (!("body" in read) || read.body !== body) return yield* taken("another message", read)
    genuine.set(event.event_id, body)
  }
  const target: Target = {
    name: "ciphertext with its key",
    weight: 6,
    seeds: sent.map(({ event }) => JSON.stringify(event)),
    take: (text, chance) =>
      Effect.gen(function* () {
        const given = Result.getOrUndefined(json(text)) as MatrixEvent.TimelineEvent | undefined
        if (given === undefined || MatrixEvent.whyNotTimelineEvent(given) !== undefined) return
        // Now and then it is sent again, as another event.
        const event = chance() < 0.2 ? { ...given, event_id: "$replayed" } : given
        const answer = yield* bob.reader.decrypt(roomId, event)
        if (answer._tag === "Undecryptable") return
        const { event: shown, shield } = answer
        if (genuine.get(shown.event_id) !== shown.content.body) return yield* taken("what nobody has said", shown)
        if (shown.sender !== alice.userId && shield.color !== "red") return yield* taken("another sender", shown)
      })
  }
  return target
})

/** Whether an event says what one of the genuine ones says: they bring a key, of which the inbox has only the name. */
const isGenuine = ({ event, type }: SyncStore.InboxEvent, { roomId, sent }: Conversation): boolean => {
  const { room_id: room, session_id: session } = (event as MatrixEvent.MatrixEvent).content
  return type === "m.room_key" && room === roomId && sent.some((one) => one.event.content.session_id === session)
}

const toDeviceTarget = (told: Conversation): Target => ({
  name: "to-device with its session",
  weight: 2,
  seeds: told.toDevice.map((event) => JSON.stringify(event)),
  take: (text) =>
    Effect.gen(function* () {
      const { engine, fence } = told.carol
      const event = Result.getOrUndefined(json(text)) as MatrixEvent.MatrixEvent | undefined
      if (event === undefined || MatrixEvent.whyNotEvent(event) !== undefined) return
      // Nothing of it is committed, so the next one finds the session as it was.
      yield* engine.reload(fence)
      const { value } = yield* engine.receive(fence, { toDevice: [event], fresh: false })
      for (const one of value.inbox)
        if (one.encryption === "decrypted" && !isGenuine(one, told)) return yield* taken("what nobody has sent", one)
    })
})

/** Both, over one conversation of three devices. */
export const make: Effect.Effect<ReadonlyArray<Target>, unknown, Scope.Scope> = Effect.gen(function* () {
  const told = yield* conversation
  return [yield* roomTarget(told), toDeviceTarget(told)]
})
