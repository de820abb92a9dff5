/**
 * An encrypted room of fifty devices on a real Synapse: each is given the key once and reads what we send, and we read each.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import * as JsSdk from "./JsSdk.ts"
import * as OlmDevice from "./OlmDevice.ts"
import * as Kit from "./ServiceKit.ts"
import * as Wire from "./Wire.ts"

const USERS = 5
const DEVICES = 10
const CONCURRENCY = 4

const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

/** Ids of the devices in a map by user and device. */
const devicesIn = (byUser: unknown): ReadonlyArray<string> =>
  Object.values(byUser as { readonly [user: string]: object }).flatMap((devices) => Object.keys(devices))

describe("an encrypted room of fifty devices on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("gives each device the key once, is read by all, and reads all", () =>
      Effect.gen(function* () {
        const wire = yield* Wire.start((yield* Synapse).baseUrl)
        const me = EncryptionKit.at(wire.baseUrl, yield* Kit.newPerson("Anna"))
        const users = yield* Effect.forEach(range(USERS), (number) => Kit.newPerson(`Other${number}`))
        const roomId = yield* Kit.createJoined(me, users, EncryptionKit.encrypted())
        // The first devices of two of them are matrix-js-sdk's.
        const clients = yield* Effect.forEach(users.slice(0, 2), JsSdk.start)
        const others = yield* Effect.forEach(users, (user, index) =>
          Effect.map(Effect.replicateEffect(EncryptionKit.newDevice(user), DEVICES - 1), (more) =>
            index < clients.length ? more : [user, ...more]
          )
        )
        const devices = yield* Effect.forEach(others.flat(), OlmDevice.make, { concurrency: CONCURRENCY })
        yield* Effect.forEach(clients, (client) => JsSdk.untilEncrypted(client, roomId))
        const all = [...clients, ...devices].map(({ person }) => person.session.deviceId)
        assert.strictEqual(all.length, USERS * DEVICES)

        const anna = yield* EncryptionKit.run(yield* Kit.newAccount(me))
        yield* Effect.orDie(anna.service.setSubscriptions([roomId]))
        yield* EncryptionKit.untilEncrypted(anna, roomId)
        const first = yield* EncryptionKit.say(anna, roomId, "to all fifty")
        const second = yield* EncryptionKit.say(anna, roomId, "to all fifty again")

        // One key each, claimed once and sent once; the second message needs neither.
        const ours = (exchanges: ReadonlyArray<Wire.Exchange>) =>
          exchanges.filter(({ token }) => token === Redacted.value(me.session.accessToken))
        const claimed = ours(yield* wire.about("/keys/claim")).flatMap(({ asked }) => devicesIn(asked["one_time_keys"]))
        assert.sameMembers(claimed, all)
        const sent = ours(yield* wire.about("/sendToDevice/m.room.encrypted/")).flatMap(({ asked }) =>
          devicesIn(asked["messages"])
        )
        assert.sameMembers(sent, all)

        yield* Effect.forEach(
          devices,
          (device) =>
            Effect.gen(function* () {
              assert.strictEqual(yield* OlmDevice.receive(device), 1)
              assert.strictEqual(yield* OlmDevice.decrypt(device, roomId, first), "to all fifty")
              assert.strictEqual(yield* OlmDevice.decrypt(device, roomId, second), "to all fifty again")
            }),
          { concurrency: CONCURRENCY, discard: true }
        )
        yield* Effect.forEach(clients, (client) =>
          Effect.map(JsSdk.untilDecrypted(client, roomId, first), (event) =>
            assert.strictEqual(event.getContent().body, "to all fifty")
          )
        )

        yield* Effect.forEach(clients, (client) => JsSdk.untilKnows(client, me))
        const timeline = yield* EncryptionKit.live(anna, roomId, 100)
        const said = [
          ...(yield* Effect.forEach(clients, (client) =>
            Effect.map(JsSdk.say(client, roomId, "from a client"), (eventId) => ({ eventId, from: client.person }))
          )),
          ...(yield* Effect.forEach(
            devices,
            (device) =>
              Effect.map(OlmDevice.say(device, roomId, me.userId, "from a device"), (eventId) => ({
                eventId,
                from: device.person
              })),
            { concurrency: CONCURRENCY }
          ))
        ]
        yield* Effect.forEach(said, ({ eventId, from }) =>
          Effect.map(timeline.decrypted(eventId), ({ decryption, event }) => {
            assert.strictEqual(event.sender, from.userId)
            assert(decryption?._tag === "Decrypted")
            assert.strictEqual(decryption.senderDevice, from.session.deviceId)
          })
        )
        // Fifty keys of ours were taken meanwhile, and more were there.
        const uploads = ours(yield* wire.about("/keys/upload"))
        assert.deepStrictEqual(
          uploads.filter(({ status }) => status !== 200),
          []
        )
        assert.isAbove(uploads.length, 1)
      })
    )
  })
})
