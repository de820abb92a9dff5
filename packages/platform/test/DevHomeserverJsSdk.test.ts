import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import {
  ClientEvent,
  createClient,
  type MatrixClient,
  type MatrixEvent,
  MsgType,
  Preset,
  type Room,
  RoomEvent
} from "matrix-js-sdk"
import { logger } from "matrix-js-sdk/lib/logger.js"
import { SlidingSync, SlidingSyncEvent, SlidingSyncState } from "matrix-js-sdk/lib/sliding-sync.js"
import { DevHomeserver, layer } from "../src/dev/DevHomeserver.ts"

const quiet = {
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  getChild: () => quiet
}

// Parts of it log to a global logger, whatever logger the client is given.
Object.assign(logger, quiet, { log: () => {} })

const list = { ranges: [[0, 19]], timeline_limit: 10, required_state: [["*", "*"]] }

const requiredState: Array<Array<string>> = [["*", "*"]]

/** A client of matrix-js-sdk that has registered and logged in with its own calls. */
const logIn = (baseUrl: string, username: string): Effect.Effect<MatrixClient> =>
  Effect.promise(async () => {
    const guest = createClient({ baseUrl, logger: quiet })
    await guest.registerRequest({ username, password: "secret", inhibit_login: true })
    const { user_id, device_id, access_token } = await guest.loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: username },
      password: "secret"
    })
    return createClient({ baseUrl, userId: user_id, deviceId: device_id, accessToken: access_token, logger: quiet })
  })

/** Starts matrix-js-sdk's own sliding sync, and waits for its first response; it stops with the scope. */
const startSync = (baseUrl: string, client: MatrixClient): Effect.Effect<SlidingSync, never, Scope.Scope> =>
  Effect.gen(function* () {
    const room = { timeline_limit: 20, required_state: requiredState }
    const sync = new SlidingSync(baseUrl, new Map([["all", { ...list }]]), room, client, 20_000)
    const completed = new Promise<void>((resolve) => {
      const onLifecycle = (state: SlidingSyncState) => {
        if (state === SlidingSyncState.Complete) resolve()
      }
      sync.on(SlidingSyncEvent.Lifecycle, onLifecycle)
    })
    yield* Effect.acquireRelease(
      Effect.promise(() => client.startClient({ slidingSync: sync })),
      () => Effect.sync(() => client.stopClient())
    )
    yield* Effect.promise(() => completed)
    return sync
  })

/** The next message with this text that a client's timeline shows. */
const heard = (client: MatrixClient, body: string): Promise<{ readonly event: MatrixEvent; readonly room: Room }> =>
  new Promise((resolve) => {
    client.on(RoomEvent.Timeline, (event, room) => {
      if (event.getContent().body === body && room !== undefined && event.getId()?.startsWith("$") === true)
        resolve({ event, room })
    })
  })

const joined = (client: MatrixClient, roomId: string): Promise<Room> =>
  new Promise((resolve) => {
    const look = () => {
      const room = client.getRoom(roomId)
      if (room?.getMyMembership() === "join") resolve(room)
    }
    client.on(RoomEvent.MyMembership, look)
    client.on(ClientEvent.Room, look)
    look()
  })

describe("DevHomeserver and matrix-js-sdk", () => {
  it.live("lets two of its clients log in, meet in a room, and talk over its own sliding sync", () =>
    Effect.gen(function* () {
      const { baseUrl } = Context.get(yield* Layer.build(layer({ port: 0 })), DevHomeserver)
      const alice = yield* logIn(baseUrl, "alice")
      const bob = yield* logIn(baseUrl, "bob")
      const bobId = bob.getSafeUserId()

      // A room from before the sync is in its first window, with its name, its members and its timeline.
      const { room_id: roomId } = yield* Effect.promise(() =>
        alice.createRoom({ name: "Kitchen", preset: Preset.PrivateChat, invite: [bobId] })
      )
      const sync = yield* startSync(baseUrl, alice)
      yield* startSync(baseUrl, bob)
      assert.strictEqual(alice.getRoom(roomId)?.name, "Kitchen")
      assert.strictEqual(sync.getListData("all")?.joinedCount, 1)
      assert.strictEqual(bob.getRoom(roomId)?.getMyMembership(), "invite")

      // Bob accepts, and both see it.
      yield* Effect.promise(() => bob.joinRoom(roomId))
      yield* Effect.promise(() => joined(bob, roomId))

      // Bob writes, and Alice's waiting poll brings it.
      const atAlice = heard(alice, "hello Alice")
      const sent = yield* Effect.promise(() => bob.sendTextMessage(roomId, "hello Alice"))
      const received = yield* Effect.promise(() => atAlice)
      assert.strictEqual(received.event.getId(), sent.event_id)
      assert.strictEqual(received.event.getSender(), bobId)
      assert.strictEqual(received.room.roomId, roomId)
      assert.strictEqual(received.room.getMember(bobId)?.membership, "join")

      // Alice answers; her own message comes back once, as the remote echo of what she sent.
      const atBob = heard(bob, "hello Bob")
      yield* Effect.promise(() => alice.sendMessage(roomId, { msgtype: MsgType.Text, body: "hello Bob" }))
      assert.strictEqual((yield* Effect.promise(() => atBob)).event.getSender(), alice.getSafeUserId())
      const echoes = received.room
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getContent().body === "hello Bob")
      assert.strictEqual(echoes.length, 1)

      // To-device messages travel beside the rooms.
      const toDevice = new Promise<{ readonly type: string; readonly content: object }>((resolve) => {
        alice.on(ClientEvent.ReceivedToDeviceMessage, ({ message }) => resolve(message))
      })
      yield* Effect.promise(() =>
        bob.sendToDevice(
          "org.twinloop.test",
          new Map([[alice.getSafeUserId(), new Map([[alice.getDeviceId() ?? "", { number: 7 }]])]])
        )
      )
      assert.deepInclude(yield* Effect.promise(() => toDevice), { type: "org.twinloop.test", content: { number: 7 } })

      // A new room comes into the running sync.
      const { room_id: second } = yield* Effect.promise(() => alice.createRoom({ name: "Hall" }))
      const hall = yield* Effect.promise(() => joined(alice, second))
      assert.strictEqual(hall.roomId, second)
    }).pipe(Effect.scoped)
  )
})
