import { assert, describe, it } from "@effect/vitest"
import { DevHomeserver } from "@twinloop/platform/dev"
import { Effect } from "effect"
import { createConnection, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { dirname, join } from "node:path"
import * as Bob from "../src/story/Bob.ts"
import * as Decryption from "../src/story/Decryption.ts"
import * as Gate from "../src/story/Gate.ts"
import type { Message } from "../src/story/Sender.ts"
import * as StoryAccounts from "../src/story/StoryAccounts.ts"
import { storesAt, temporaryFile } from "./SqliteKit.ts"

describe("What the story can read at the end", () => {
  it.live("is each message whose key came, and no other text, none in the clear, and none from before the keys", () =>
    Effect.gen(function* () {
      const { baseUrl } = yield* DevHomeserver.DevHomeserver
      const session = yield* StoryAccounts.register(baseUrl, "alice")
      const friend = yield* StoryAccounts.register(baseUrl, "bob")
      const other = yield* StoryAccounts.register(baseUrl, "carol")
      const options = { owner: session, name: "Room", guests: [friend, other] }
      const rooms = [yield* StoryAccounts.createRoom(baseUrl, options)]
      const roomId = rooms[0]!
      const database = yield* temporaryFile
      const bob = yield* Bob.make({ session: friend, database: join(dirname(database), "bob.db"), rooms })
      const carol = yield* Bob.make({ session: other, database: join(dirname(database), "carol.db"), rooms })
      const write = (writer: Bob.Bob, body: string): Effect.Effect<Message, unknown> =>
        Effect.map(writer.write({ roomId, txnId: body, body }), (eventId) => ({ roomId, eventId, body }))

      // Alice's device has no keys yet, so it is given none to this one, and Carol writes no other.
      const early = yield* write(carol, "early")
      yield* Bob.make({ session, database, rooms })
      yield* bob.untilReachable(session)
      const messages = yield* Effect.forEach(["1", "2", "3", "4", "5"], (body) => write(bob, body))
      const clear = { roomId, type: "m.room.message", txnId: "clear", content: { msgtype: "m.text", body: "clear" } }
      const inClear: Message = { roomId, eventId: yield* bob.homeserver.sendEvent(clear), body: "clear" }

      const reader = { session, keyFile: `${database}.key`, role: "main" }
      const count = (those: ReadonlyArray<Message>) =>
        Effect.provide(Decryption.count(reader, those), storesAt(database))
      yield* Effect.provide(Decryption.settle(reader, messages), storesAt(database))
      const all = yield* count(messages)
      // Three messages to a key.
      assert.deepInclude(all, { sent: 5, decrypted: 5, undecrypted: 0, reasons: [], roomKeys: 2 })

      const altered = { ...messages[0]!, body: "2" }
      const some = yield* count([messages[1]!, altered, inClear, early])
      assert.deepInclude(some, { sent: 4, decrypted: 1, undecrypted: 3 })
      assert.sameMembers([...some.reasons], ["OtherText", "Malformed", "MissingRoomKey"])
      assert.strictEqual(yield* bob.conflicts, 0)
    }).pipe(Effect.provide(DevHomeserver.layer({ port: 0 })))
  )
})

describe("The gate of the story", () => {
  it.live("counts refused one-time keys, also where the words are cut in two", () =>
    Effect.gen(function* () {
      const server = createServer((socket: Socket) => {
        socket.setNoDelay(true)
        socket.write('{"error":"One time key signed_curve25519:AAA already ex')
        socket.once("data", () => socket.end('ists."}{"error":"One time key signed_curve25519:AAB already exists."}'))
      })
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const gate = yield* Gate.make((server.address() as AddressInfo).port)
      yield* Effect.callback<void>((resume) => {
        const socket = createConnection(Number(new URL(gate.baseUrl).port), "127.0.0.1")
        // The first half has come when the second is asked for.
        socket.once("data", () => socket.write("more"))
        socket.once("close", () => resume(Effect.void))
      })
      assert.strictEqual(yield* gate.conflicts, 2)
    })
  )
})
