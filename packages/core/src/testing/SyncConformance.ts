/**
 * What any homeserver must do for the two loops, as a suite against the `Homeserver` port.
 *
 * It runs over the model, over the dev homeserver by HTTP and over a real Synapse, so it states only what all of them
 * promise: it derives memberships from state (Synapse doesn't tell them), doesn't look at unread counts, and takes no
 * position for unknown on an extension-only connection (Synapse never forgets those).
 *
 * Real time: nothing sleeps until something is probably true; long polls are forked, and what wakes them is sent.
 *
 * Needs `@effect/vitest`, an optional peer of this package.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Scope } from "effect"
import type { JsonObject, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import type { RoomUpdate, StateSelector, SyncRequest, SyncResponse } from "../matrix/SlidingSync.ts"
import type { Homeserver } from "../sync/Homeserver.ts"
import type { HomeserverError, HomeserverErrorReason } from "../sync/HomeserverError.ts"

type Client = Homeserver["Service"]

/** Two users without rooms, each with a session of a new device, and what the port doesn't offer. */
export interface ConformanceHarness {
  readonly alice: Client
  readonly bob: Client
  /** A client of Alice's whose token the homeserver doesn't know. */
  readonly stranger: Client
  /** `POST /createRoom` by a client's user. */
  createRoom(
    by: Client,
    options: { readonly name?: string; readonly invite?: ReadonlyArray<UserId> }
  ): Effect.Effect<RoomId, unknown>
  /** `POST /join/{roomId}` */
  joinRoom(by: Client, roomId: RoomId): Effect.Effect<void, unknown>
}

const requiredState: ReadonlyArray<StateSelector> = [
  ["m.room.create", ""],
  ["m.room.name", ""],
  ["m.room.member", "$LAZY"],
  ["m.room.member", "$ME"]
]

const lists = (end: number, timelineLimit = 10): Pick<SyncRequest, "lists"> => ({
  lists: { all: { range: [0, end], requiredState, timelineLimit } }
})

interface Ask extends Partial<Omit<SyncRequest, "pos">> {
  readonly pos?: string | undefined
}

const ask = (client: Client, { pos, ...rest }: Ask): Effect.Effect<SyncResponse, HomeserverError> =>
  client.sync({
    connId: "conformance",
    timeoutMillis: 0,
    lists: {},
    roomSubscriptions: {},
    extensions: {},
    ...rest,
    ...(pos !== undefined && { pos })
  })

const roomOf = (response: SyncResponse, roomId: RoomId): RoomUpdate => {
  const room = response.rooms.find((candidate) => candidate.roomId === roomId)
  assert.isDefined(room, `the response has news of ${roomId}`)
  return room as RoomUpdate
}

const bodies = (room: RoomUpdate): ReadonlyArray<unknown> =>
  room.timeline.filter(({ type }) => type === "m.room.message").map(({ content }) => content.body)

const message = (client: Client, roomId: RoomId, body: string, txnId = body) =>
  client.sendEvent({ roomId, type: "m.room.message", txnId, content: { msgtype: "m.text", body } })

const toDevice = (from: Client, to: Client, numbers: ReadonlyArray<number>) =>
  Effect.forEach(numbers, (number) =>
    from.sendToDevice({
      type: "org.twinloop.conformance",
      txnId: `n${number}`,
      messages: { [to.session.userId]: { [to.session.deviceId]: { number } } }
    })
  )

const extensionAsk = (since?: string): Ask => ({
  connId: "encryption",
  extensions: { toDevice: { limit: 100, ...(since !== undefined && { since }) }, e2ee: true }
})

const batchOf = (response: SyncResponse): { readonly numbers: ReadonlyArray<unknown>; readonly next: string } => {
  const batch = response.extensions.toDevice
  assert.isDefined(batch, "the to-device extension answers")
  return { numbers: batch?.events.map(({ content }) => content.number) ?? [], next: batch?.nextBatch ?? "" }
}

const reasonOf = <A>(
  effect: Effect.Effect<A, HomeserverError>
): Effect.Effect<HomeserverErrorReason["_tag"] | "none"> =>
  Effect.match(effect, { onFailure: ({ reason }) => reason._tag, onSuccess: () => "none" as const })

const oneTimeKeys = (count: number, from = 0): JsonObject => ({
  one_time_keys: Object.fromEntries(
    Array.from({ length: count }, (_, index) => [
      `signed_curve25519:KEY${from + index}`,
      { key: `key${from + index}`, signatures: {} }
    ])
  )
})

const range = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)

/** Registers the suite. `makeHarness` is run once per test, in the test's scope, and gives users that nobody else uses. */
export const syncConformance = <E>(
  name: string,
  makeHarness: Effect.Effect<ConformanceHarness, E, Scope.Scope>,
  options: { readonly timeoutMillis?: number } = {}
): void => {
  const test = (title: string, body: (harness: ConformanceHarness) => Effect.Effect<void, unknown>): void => {
    it.live(title, () => Effect.scoped(Effect.flatMap(makeHarness, body)), options.timeoutMillis ?? 30_000)
  }

  describe(`sync conformance of ${name}: rooms`, () => {
    test(
      "gives the first window, the count, and state and timeline of each room",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const rooms = yield* Effect.forEach(range(1, 5), (n) => createRoom(alice, { name: `Room ${n}` }))
        const response = yield* ask(alice, lists(1))
        assert.strictEqual(response.lists.all?.count, 5)
        assert.deepStrictEqual(
          new Set(response.rooms.map(({ roomId }) => roomId)),
          new Set(rooms.slice(3)),
          "the most recent ones"
        )
        const newest = roomOf(response, rooms[4]!)
        assert.isTrue(newest.initial)
        assert.strictEqual(newest.name, "Room 5")
        assert.isAbove(newest.timeline.length, 0)
        assert.strictEqual(newest.numLive, 0, "nothing is live without a position")
        assert.isTrue(
          newest.requiredState.some(
            (event) => event.type === "m.room.member" && event.state_key === alice.session.userId
          )
        )
        assert.deepStrictEqual(response.quarantined, [])
      })
    )

    test(
      "gives only the new rooms when the window grows",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const rooms = yield* Effect.forEach(range(1, 4), (n) => createRoom(alice, { name: `Room ${n}` }))
        const first = yield* ask(alice, lists(1))
        const second = yield* ask(alice, { ...lists(3), pos: first.pos })
        assert.deepStrictEqual(new Set(second.rooms.map(({ roomId }) => roomId)), new Set(rooms.slice(0, 2)))
      })
    )

    test(
      "gives what is new since the position, and says how much of it is live",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        yield* message(alice, roomId, "one")
        yield* message(alice, roomId, "two")
        const second = yield* ask(alice, { ...lists(9), pos: first.pos })
        const room = roomOf(second, roomId)
        assert.isFalse(room.initial)
        assert.deepStrictEqual(bodies(room), ["one", "two"])
        assert.strictEqual(room.numLive, 2)
        const third = yield* ask(alice, { ...lists(9), pos: second.pos })
        assert.deepStrictEqual(third.rooms, [])
      })
    )

    test(
      "marks the gap when more happened than the timeline takes",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9, 2))
        yield* Effect.forEach(["a", "b", "c", "d"], (body) => message(alice, roomId, body))
        const room = roomOf(yield* ask(alice, { ...lists(9, 2), pos: first.pos }), roomId)
        assert.deepStrictEqual(bodies(room), ["c", "d"])
        assert.isTrue(room.limited)
        assert.isDefined(room.prevBatch)
        assert.strictEqual(room.numLive, 2)
      })
    )

    test(
      "shows an invitation as stripped state, and the room once it is joined",
      Effect.fnUntraced(function* ({ alice, bob, createRoom, joinRoom }) {
        const me = bob.session.userId
        const roomId = yield* createRoom(alice, { name: "Kitchen", invite: [me] })
        const first = yield* ask(bob, lists(9))
        const invited = roomOf(first, roomId)
        const own = invited.strippedState.find((event) => event.type === "m.room.member" && event.state_key === me)
        assert.strictEqual(own?.content.membership, "invite")
        assert.deepStrictEqual(invited.timeline, [])
        yield* joinRoom(bob, roomId)
        const joined = roomOf(yield* ask(bob, { ...lists(9), pos: first.pos }), roomId)
        assert.isTrue(joined.initial)
        assert.strictEqual(joined.joinedCount, 2)
        assert.deepStrictEqual(joined.strippedState, [])
      })
    )

    test(
      "gives a subscribed room outside of every window, and nothing of an unknown one",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        yield* createRoom(alice, { name: "Hall" })
        const params = { requiredState, timelineLimit: 5 }
        const response = yield* ask(alice, {
          ...lists(0),
          roomSubscriptions: { [roomId]: params, "!nowhere:localhost": params }
        })
        assert.strictEqual(response.rooms.length, 2)
        assert.strictEqual(roomOf(response, roomId).name, "Kitchen")
      })
    )

    test(
      "sends a room again when a subscription asks for more of its timeline",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        yield* Effect.forEach(["a", "b", "c"], (body) => message(alice, roomId, body))
        const first = yield* ask(alice, lists(9, 1))
        assert.deepStrictEqual(bodies(roomOf(first, roomId)), ["c"])
        const second = yield* ask(alice, {
          ...lists(9, 1),
          pos: first.pos,
          roomSubscriptions: { [roomId]: { requiredState, timelineLimit: 3 } }
        })
        const room = roomOf(second, roomId)
        assert.deepStrictEqual(bodies(room), ["a", "b", "c"])
        assert.strictEqual(room.numLive, 0)
        assert.isFalse(room.initial)
      })
    )

    test(
      "answers a waiting poll when something happens in a room",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        const poll = yield* Effect.forkChild(
          ask(alice, { ...lists(9), pos: first.pos, timeoutMillis: 25_000 }).pipe(Effect.timeout("20 seconds"))
        )
        yield* message(alice, roomId, "wake up")
        assert.deepStrictEqual(bodies(roomOf(yield* Fiber.join(poll), roomId)), ["wake up"])
      })
    )

    test(
      "answers a poll without news at its end, with a position to go on from",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        const second = yield* ask(alice, { ...lists(9), pos: first.pos, timeoutMillis: 100 })
        assert.deepStrictEqual(second.rooms, [])
        assert.strictEqual(second.lists.all?.count, 1)
        yield* ask(alice, { ...lists(9), pos: second.pos })
      })
    )
  })

  describe(`sync conformance of ${name}: positions`, () => {
    test(
      "gives the same again when a position is sent twice",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        yield* message(alice, roomId, "once")
        yield* ask(alice, { ...lists(9), pos: first.pos })
        const again = yield* ask(alice, { ...lists(9), pos: first.pos })
        assert.deepStrictEqual(bodies(roomOf(again, roomId)), ["once"])
      })
    )

    test(
      "doesn't know a position any more once a later one was used",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        yield* createRoom(alice, { name: "Hall" })
        const second = yield* ask(alice, { ...lists(9), pos: first.pos })
        yield* ask(alice, { ...lists(9), pos: second.pos })
        yield* message(alice, roomId, "further")
        assert.strictEqual(yield* reasonOf(ask(alice, { ...lists(9), pos: first.pos })), "UnknownPosition")
      })
    )

    test(
      "doesn't know the old positions after the connection was started afresh",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const first = yield* ask(alice, lists(9))
        const fresh = yield* ask(alice, lists(9))
        assert.isTrue(roomOf(fresh, roomId).initial)
        yield* message(alice, roomId, "news")
        assert.strictEqual(yield* reasonOf(ask(alice, { ...lists(9), pos: first.pos })), "UnknownPosition")
        yield* ask(alice, { ...lists(9), pos: fresh.pos })
      })
    )

    test(
      "keeps connections apart",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, { name: "Kitchen" })
        const one = yield* ask(alice, { ...lists(9), connId: "one" })
        const two = yield* ask(alice, { ...lists(9), connId: "two" })
        assert.isTrue(roomOf(two, roomId).initial)
        yield* message(alice, roomId, "for both")
        for (const [connId, { pos }] of [
          ["one", one],
          ["two", two]
        ] as const) {
          const response = yield* ask(alice, { ...lists(9), connId, pos })
          assert.deepStrictEqual(bodies(roomOf(response, roomId)), ["for both"])
        }
      })
    )

    test(
      "goes on with an extension-only connection from any of its positions",
      Effect.fnUntraced(function* ({ alice }) {
        const first = yield* ask(alice, extensionAsk())
        const second = yield* ask(alice, { ...extensionAsk(), pos: first.pos })
        yield* ask(alice, { ...extensionAsk(), pos: second.pos })
        yield* ask(alice, { ...extensionAsk(), pos: first.pos })
        assert.deepStrictEqual(second.rooms, [])
        assert.deepStrictEqual(second.lists, {})
      })
    )
  })

  describe(`sync conformance of ${name}: to-device`, () => {
    test(
      "I2: gives the oldest again and again until a since acknowledges them",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* toDevice(bob, alice, range(1, 3))
        const first = batchOf(yield* ask(alice, extensionAsk()))
        assert.deepStrictEqual(first.numbers, [1, 2, 3])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk())).numbers, [1, 2, 3])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk(first.next))).numbers, [])
        // They are gone for good, also for a request that acknowledges nothing.
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk())).numbers, [])
      })
    )

    test(
      "I2: takes the since for the acknowledgement, and not the position",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* toDevice(bob, alice, [1])
        const first = yield* ask(alice, extensionAsk())
        assert.deepStrictEqual(batchOf(yield* ask(alice, { ...extensionAsk(), pos: first.pos })).numbers, [1])
      })
    )

    test(
      "I2: gives the same again when a since is sent twice",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const { next } = batchOf(yield* ask(alice, extensionAsk()))
        yield* toDevice(bob, alice, [1, 2])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk(next))).numbers, [1, 2])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk(next))).numbers, [1, 2])
      })
    )

    test(
      "I2: drains more than a batch in order, each message once",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* toDevice(bob, alice, range(1, 230))
        const received: Array<unknown> = []
        let since: string | undefined
        for (const _ of range(1, 4)) {
          const { numbers, next } = batchOf(yield* ask(alice, extensionAsk(since)))
          assert.isAtMost(numbers.length, 100)
          received.push(...numbers)
          since = next
        }
        assert.deepStrictEqual(received, [...range(1, 230)])
      })
    )

    test(
      "shares one queue between the connections of a device",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* toDevice(bob, alice, [1])
        const one = batchOf(yield* ask(alice, extensionAsk()))
        assert.deepStrictEqual(one.numbers, [1])
        assert.deepStrictEqual(batchOf(yield* ask(alice, { ...extensionAsk(one.next), connId: "other" })).numbers, [])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk())).numbers, [])
      })
    )

    test(
      "sends a message once, however often its transaction is repeated",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* toDevice(bob, alice, [1, 1, 1])
        assert.deepStrictEqual(batchOf(yield* ask(alice, extensionAsk())).numbers, [1])
      })
    )

    test(
      "answers a waiting poll when a message comes",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const first = yield* ask(alice, extensionAsk())
        const since = batchOf(first).next
        const poll = yield* Effect.forkChild(
          ask(alice, { ...extensionAsk(since), pos: first.pos, timeoutMillis: 25_000 }).pipe(
            Effect.timeout("20 seconds")
          )
        )
        yield* toDevice(bob, alice, [7])
        assert.deepStrictEqual(batchOf(yield* Fiber.join(poll)).numbers, [7])
      })
    )
  })

  describe(`sync conformance of ${name}: keys and errors`, () => {
    test(
      "counts one-time keys after an upload, and after a claim",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const countOf = ask(alice, extensionAsk()).pipe(
          Effect.map(({ extensions }) => extensions.e2ee?.oneTimeKeysCount?.signed_curve25519)
        )
        yield* alice.keys({ kind: "upload", body: oneTimeKeys(3) })
        assert.strictEqual(yield* countOf, 3)
        const { userId, deviceId } = alice.session
        const claimed = yield* bob.keys({
          kind: "claim",
          body: { one_time_keys: { [userId]: { [deviceId]: "signed_curve25519" } } }
        })
        assert.deepStrictEqual(claimed.one_time_keys, {
          [userId]: { [deviceId]: { "signed_curve25519:KEY0": { key: "key0", signatures: {} } } }
        })
        assert.strictEqual(yield* countOf, 2)
      })
    )

    test(
      "refuses another key under a used key id",
      Effect.fnUntraced(function* ({ alice }) {
        yield* alice.keys({ kind: "upload", body: oneTimeKeys(1) })
        const other = { one_time_keys: { "signed_curve25519:KEY0": { key: "another", signatures: {} } } }
        assert.strictEqual(yield* reasonOf(alice.keys({ kind: "upload", body: other })), "BadRequest")
      })
    )

    test(
      "gives a device's keys, and says whose devices changed",
      Effect.fnUntraced(function* ({ alice, bob, createRoom, joinRoom }) {
        const { userId, deviceId } = bob.session
        const roomId = yield* createRoom(alice, { invite: [userId] })
        yield* joinRoom(bob, roomId)
        const first = yield* ask(alice, extensionAsk())
        const deviceKeys = {
          user_id: userId,
          device_id: deviceId,
          algorithms: ["m.olm.v1.curve25519-aes-sha2"],
          keys: { [`curve25519:${deviceId}`]: "AAAA", [`ed25519:${deviceId}`]: "BBBB" },
          signatures: {}
        }
        yield* bob.keys({ kind: "upload", body: { device_keys: deviceKeys } })
        const second = yield* ask(alice, { ...extensionAsk(), pos: first.pos })
        assert.include(second.extensions.e2ee?.deviceLists?.changed ?? [], userId)
        const queried = yield* alice.keys({ kind: "query", body: { device_keys: { [userId]: [] } } })
        const found = (queried.device_keys as { [user: string]: { [device: string]: JsonObject } })[userId]?.[deviceId]
        assert.deepStrictEqual(found?.keys, deviceKeys.keys)
      })
    )

    test(
      "gives one event for one transaction id",
      Effect.fnUntraced(function* ({ alice, createRoom }) {
        const roomId = yield* createRoom(alice, {})
        const first = yield* message(alice, roomId, "hello", "txn")
        assert.strictEqual(yield* message(alice, roomId, "hello", "txn"), first)
        const { event } = yield* alice.eventContext(roomId, first)
        assert.strictEqual(event.event_id, first)
        assert.strictEqual(event.content.body, "hello")
      })
    )

    test(
      "refuses a token that it doesn't know",
      Effect.fnUntraced(function* ({ stranger }) {
        assert.strictEqual(yield* reasonOf(ask(stranger, extensionAsk())), "Unauthorized")
      })
    )

    test(
      "refuses a room that one is not in, and an event that isn't there",
      Effect.fnUntraced(function* ({ alice, bob, createRoom }) {
        const roomId = yield* createRoom(alice, {})
        assert.oneOf(yield* reasonOf(message(bob, roomId, "let me in")), ["Forbidden", "NotFound"])
        assert.oneOf(yield* reasonOf(message(bob, "!nowhere:localhost", "hello?")), ["Forbidden", "NotFound"])
        assert.oneOf(yield* reasonOf(alice.eventContext(roomId, "$nothing")), ["Forbidden", "NotFound"])
      })
    )
  })
}
