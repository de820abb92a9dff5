/**
 * Who may read and who is trusted, on a real Synapse with matrix-js-sdk as the other side: keys that are replaced, given to
 * some and kept from others; devices that are signed, and devices that are gone.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { SyncConfig, SyncServiceMachine } from "@twinloop/core"
import { Effect, Layer, Redacted } from "effect"
import { MatrixEvent as JsSdkEvent } from "matrix-js-sdk"
import { DecryptionFailureCode } from "matrix-js-sdk/lib/crypto-api/index.js"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as EncryptionKit from "./EncryptionKit.ts"
import * as JsSdk from "./JsSdk.ts"
import * as Kit from "./ServiceKit.ts"
import * as Wire from "./Wire.ts"

/** A homeserver's address of a test's own, with new people there. */
const town = Effect.gen(function* () {
  const wire = yield* Wire.start((yield* Synapse).baseUrl)
  const person = (name: string) => Effect.map(Kit.newPerson(name), (made) => EncryptionKit.at(wire.baseUrl, made))
  return { wire, person }
})

/** Anna with our service and Bert with matrix-js-sdk, joined to an encrypted room that Anna made. */
const pair = Effect.fnUntraced(function* (settings: Kit.Json = {}, config: Partial<SyncConfig.SyncConfigShape> = {}) {
  const { person, wire } = yield* town
  const [me, theirs] = [yield* person("Anna"), yield* person("Bert")]
  const roomId = yield* Kit.createJoined(me, [theirs], EncryptionKit.encrypted(settings))
  const anna = yield* EncryptionKit.run(yield* Kit.newAccount(me), config)
  const bert = yield* JsSdk.start(theirs)
  yield* EncryptionKit.untilEncrypted(anna, roomId)
  yield* JsSdk.untilEncrypted(bert, roomId)
  yield* JsSdk.untilKnows(bert, me)
  return { anna, me, bert, theirs, roomId, wire, person, timeline: yield* EncryptionKit.live(anna, roomId) }
})

const sessionOf = ({ decryption }: EncryptionKit.Shown): string | undefined => decryption?.sessionId

/** The device that a token belongs to. */
const tokenOf = ({ session }: Kit.Person): string => Redacted.value(session.accessToken)

/** Devices to which somebody has sent to-device messages of a type. */
const addressed = (exchanges: ReadonlyArray<Wire.Exchange>, by: Kit.Person, type: string): ReadonlyArray<string> =>
  exchanges
    .filter(({ path, token }) => token === tokenOf(by) && path.includes(`/sendToDevice/${type}/`))
    .flatMap(({ asked }) =>
      Object.values(asked["messages"] as { readonly [user: string]: object }).flatMap((devices) => Object.keys(devices))
    )

const text = (body: string): Kit.Json => ({ msgtype: "m.text", body })

const why = ({ decryption }: EncryptionKit.Shown): string | undefined =>
  decryption?._tag === "Undecryptable" ? decryption.reason : decryption?._tag

describe("keys and trust with matrix-js-sdk on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("replaces a key after as many messages as the room says, on both sides", () =>
      Effect.gen(function* () {
        const { anna, bert, roomId, timeline } = yield* pair({ rotation_period_msgs: 2 })
        const sessions: Array<string | undefined> = []
        const theirs: Array<string | undefined> = []
        for (const number of [1, 2, 3, 4, 5]) {
          const ours = yield* EncryptionKit.say(anna, roomId, `ours ${number}`)
          yield* JsSdk.untilDecrypted(bert, roomId, ours)
          sessions.push(sessionOf(yield* timeline.decrypted(ours)))
          theirs.push(sessionOf(yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, `theirs ${number}`))))
        }
        const pattern = (all: ReadonlyArray<string | undefined>) => all.map((one) => all.indexOf(one))
        assert.deepStrictEqual(pattern(sessions), [0, 0, 2, 2, 4])
        assert.deepStrictEqual(pattern(theirs), [0, 0, 2, 2, 4])
      })
    )

    it.effect("keeps what is said after somebody has left from who has left", () =>
      Effect.gen(function* () {
        const { anna, bert, me, person, roomId, timeline, wire } = yield* pair()
        const carla = yield* person("Carla")
        yield* Kit.call(me, "POST", Kit.roomPath(roomId, "invite"), { user_id: carla.userId })
        const before = yield* JsSdk.start(carla)
        yield* Effect.promise(() => before.client.joinRoom(roomId))
        yield* JsSdk.untilEncrypted(before, roomId)
        yield* JsSdk.untilKnows(bert, carla)
        yield* timeline.until("Carla's coming", ({ event }) => event.sender === carla.userId)

        const heard = yield* EncryptionKit.say(anna, roomId, "Carla hears this")
        yield* JsSdk.untilDecrypted(before, roomId, heard)
        yield* JsSdk.untilDecrypted(bert, roomId, heard)
        const kept = yield* timeline.decrypted(heard)

        yield* Kit.call(me, "POST", Kit.roomPath(roomId, "kick"), { user_id: carla.userId })
        const kicked = yield* timeline.until(
          "Carla's going",
          ({ event }) => event.type === "m.room.member" && event.content["membership"] === "leave"
        )
        assert.strictEqual(kicked.event.state_key, carla.userId)
        const after = yield* EncryptionKit.say(anna, roomId, "Carla doesn't hear this")
        const seen = yield* JsSdk.untilDecrypted(bert, roomId, after)
        assert.notStrictEqual(sessionOf(yield* timeline.decrypted(after)), sessionOf(kept))
        const sent = addressed(yield* wire.about("/sendToDevice/"), me, "m.room.encrypted")
        assert.deepStrictEqual(
          sent.filter((device) => device === carla.session.deviceId),
          [carla.session.deviceId]
        )

        // She gets hold of the event and of what her device knows, and it is not enough.
        const { event: wired } = seen
        const stolen = new JsSdkEvent({ ...wired, content: seen.getWireContent(), type: "m.room.encrypted" })
        yield* Effect.promise(() => before.client.decryptEventIfNeeded(stolen))
        assert.strictEqual(stolen.decryptionFailureReason, DecryptionFailureCode.MEGOLM_UNKNOWN_INBOUND_SESSION_ID)
      })
    )

    it.effect(
      "says why what was said before a device or its user came can't be read, and reads what is said then",
      () =>
        Effect.gen(function* () {
          const { bert, me, person, roomId, theirs, timeline } = yield* pair({ rotation_period_msgs: 2 })
          const early = yield* JsSdk.say(bert, roomId, "one: another key")
          yield* JsSdk.say(bert, roomId, "two: its end")
          const same = yield* JsSdk.say(bert, roomId, "three: the same key as four")
          const known = yield* timeline.decrypted(same)

          const phone = yield* EncryptionKit.newDevice(me)
          const later = yield* EncryptionKit.run(yield* Kit.newAccount(phone))
          yield* Effect.orDie(later.service.setSubscriptions([roomId]))
          const seenLater = yield* EncryptionKit.live(later, roomId)
          assert.strictEqual(why(yield* seenLater.undecryptable(same)), "MissingRoomKey")
          yield* JsSdk.untilKnows(bert, phone)
          const four = yield* seenLater.decrypted(yield* JsSdk.say(bert, roomId, "four: to the new device too"))
          assert.strictEqual(sessionOf(four), sessionOf(known))
          const unknown = yield* seenLater.until(
            "the reason",
            (item) => item.event.event_id === same && why(item) !== "MissingRoomKey"
          )
          assert.strictEqual(why(unknown), "UnknownMessageIndex")
          assert.strictEqual(why(yield* seenLater.undecryptable(early)), "MissingRoomKey")

          // Somebody who comes into the room later.
          const dora = yield* person("Dora")
          yield* Kit.call(me, "POST", Kit.roomPath(roomId, "invite"), { user_id: dora.userId })
          yield* Kit.join(dora, roomId)
          const latest = yield* EncryptionKit.run(yield* Kit.newAccount(dora))
          yield* Effect.orDie(latest.service.setSubscriptions([roomId]))
          const seenLatest = yield* EncryptionKit.live(latest, roomId)
          assert.strictEqual(why(yield* seenLatest.undecryptable(same)), "MissingRoomKey")
          yield* JsSdk.untilKnows(bert, dora)
          const five = yield* JsSdk.say(bert, roomId, "five: to Dora too")
          assert.strictEqual((yield* seenLatest.decrypted(five)).event.sender, theirs.userId)
          assert.strictEqual(why(yield* seenLatest.undecryptable(early)), "MissingRoomKey")
        })
    )

    it.effect("shows that a key is withheld, and withholds it when it is to go to trusted devices only", () =>
      Effect.gen(function* () {
        const { anna, bert, roomId, theirs, timeline } = yield* pair()
        yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, "to everybody"))
        bert.crypto.globalBlacklistUnverifiedDevices = true
        const kept = yield* JsSdk.say(bert, roomId, "to verified devices")
        const shown = yield* timeline.until(
          "the reason",
          (item) => item.event.event_id === kept && why(item) === "Withheld"
        )
        assert(shown.decryption?._tag === "Undecryptable")
        assert.strictEqual(shown.decryption.withheld?.code, "m.unverified")
        bert.crypto.globalBlacklistUnverifiedDevices = false
        yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, "to everybody again"))

        const secret = yield* EncryptionKit.say(anna, roomId, "to trusted devices", { sharing: "trusted" })
        const failed = yield* JsSdk.untilEvent(
          bert,
          roomId,
          "the reason",
          (event) =>
            event.getId() === secret &&
            event.decryptionFailureReason === DecryptionFailureCode.MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE
        )
        assert.isTrue(failed.isDecryptionFailure())

        // Once the device is trusted, and once everybody may read again.
        const { deviceId, userId } = theirs.session
        yield* Effect.orDie(anna.encryption.setLocalTrust({ userId, deviceId, trust: "verified" }))
        yield* JsSdk.untilDecrypted(
          bert,
          roomId,
          yield* EncryptionKit.say(anna, roomId, "trusted", { sharing: "trusted" })
        )
        yield* Effect.orDie(anna.encryption.setLocalTrust({ userId, deviceId, trust: "blocked" }))
        const blocked = yield* EncryptionKit.say(anna, roomId, "to all but the blocked")
        yield* JsSdk.untilEvent(
          bert,
          roomId,
          "being blocked",
          (event) =>
            event.getId() === blocked && event.decryptionFailureReason === DecryptionFailureCode.MEGOLM_KEY_WITHHELD
        )
        yield* Effect.orDie(anna.encryption.setLocalTrust({ userId, deviceId, trust: "unset" }))
        yield* JsSdk.untilDecrypted(bert, roomId, yield* EncryptionKit.say(anna, roomId, "to all again"))
      })
    )

    it.effect(
      "publishes cross-signing keys, which the other side honours, and replaces them with the password alone",
      () =>
        Effect.gen(function* () {
          const { anna, bert, me, roomId } = yield* pair()
          const { deviceId, userId } = me.session
          yield* JsSdk.untilDecrypted(bert, roomId, yield* EncryptionKit.say(anna, roomId, "who am I"))
          const signed = (what: string, isWanted: boolean) =>
            JsSdk.until(bert, what, async () => {
              const status = await bert.crypto.getDeviceVerificationStatus(userId, deviceId)
              return status?.signedByOwner === isWanted ? status : undefined
            })
          yield* signed("Anna's device, unsigned", false)

          // The first keys are taken without a question (MSC3967), once.
          yield* Effect.orDie(anna.encryption.bootstrapCrossSigning())
          const status = yield* Effect.orDie(anna.encryption.status)
          assert.deepStrictEqual(status.crossSigning, { master: true, selfSigning: true, userSigning: true })
          assert.isTrue(status.isDeviceVerified)
          yield* signed("Anna's device, signed by her", true)
          const master = () => bert.crypto.getUserVerificationStatus(userId)
          assert.isFalse((yield* Effect.promise(master)).needsUserApproval)
          // Again is as well as once.
          yield* Effect.orDie(anna.encryption.bootstrapCrossSigning())
          assert.isTrue((yield* Effect.orDie(anna.encryption.status)).isDeviceVerified)

          const refused = yield* Effect.flip(anna.encryption.bootstrapCrossSigning({ reset: true }))
          assert(refused._tag === "HomeserverError" && refused.reason._tag === "UserInteractiveAuth")
          assert.deepStrictEqual(refused.reason.flows, [{ stages: ["m.login.password"] }])
          assert.isString(refused.reason.session)
          // The new keys are made and wait to be published, with the password or never.
          const waiting = yield* Effect.orDie(anna.encryption.status)
          assert.isTrue(waiting.crossSigning.master)
          assert.isFalse(waiting.isDeviceVerified)
          const wrong = yield* Effect.flip(
            anna.encryption.bootstrapCrossSigning({
              authenticate: ({ session }) => Effect.succeed({ ...EncryptionKit.authOf(me, session), password: "wrong" })
            })
          )
          assert(wrong._tag === "HomeserverError" && wrong.reason._tag === "UserInteractiveAuth")
          assert.strictEqual(wrong.reason.errcode, "M_FORBIDDEN")
          yield* Effect.orDie(
            anna.encryption.bootstrapCrossSigning({
              authenticate: ({ session }) => Effect.succeed(EncryptionKit.authOf(me, session))
            })
          )
          assert.isTrue((yield* Effect.orDie(anna.encryption.status)).isDeviceVerified)
          yield* JsSdk.until(bert, "Anna's new identity", async () =>
            (await master()).needsUserApproval ? true : undefined
          )
          yield* signed("Anna's device, signed with her new keys", true)
        })
    )

    it.effect("shows the other side's device as signed once it is, in the live timeline", () =>
      Effect.gen(function* () {
        const { bert, roomId, timeline } = yield* pair()
        const eventId = yield* JsSdk.say(bert, roomId, "trust me")
        const code = ({ decryption }: EncryptionKit.Shown) =>
          decryption?._tag === "Decrypted" ? decryption.shield.code : undefined
        const before = yield* timeline.decrypted(eventId)
        assert.strictEqual(code(before), "UnsignedDevice")
        yield* Effect.promise(() =>
          bert.crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: async (makeRequest) => void (await makeRequest(null))
          })
        )
        const after = yield* timeline.until(
          "the signature",
          (item) => item.event.event_id === eventId && code(item) !== "UnsignedDevice"
        )
        assert.strictEqual(code(after), "UnverifiedIdentity")
        // It changed in its place, and nothing else did.
        const changes = (yield* timeline.told).filter(({ _tag }) => _tag === "Set")
        assert.isTrue(changes.every((change) => change._tag === "Set" && change.entry.index === after.index))
        assert.isAbove(changes.length, 0)
      })
    )

    it.effect("gives no key any more to a device that its owner has deleted", () =>
      Effect.gen(function* () {
        const { anna, bert, me, roomId, theirs, wire } = yield* pair()
        const second = yield* EncryptionKit.newDevice(theirs)
        const phone = yield* JsSdk.start(second)
        yield* JsSdk.untilEncrypted(phone, roomId)
        yield* JsSdk.untilKnows(bert, second)
        const sent = Effect.map(wire.about("/sendToDevice/"), (all) => addressed(all, me, "m.room.encrypted"))
        const count = (devices: ReadonlyArray<string>) => devices.filter((id) => id === second.session.deviceId).length

        const both = yield* EncryptionKit.say(anna, roomId, "to both")
        yield* JsSdk.untilDecrypted(bert, roomId, both)
        yield* JsSdk.untilDecrypted(phone, roomId, both)
        assert.strictEqual(count(yield* sent), 1)

        const devices = Effect.map(Effect.orDie(anna.encryption.devices(theirs.userId)), (all) =>
          all.map(({ deviceId }) => deviceId)
        )
        assert.sameMembers([...(yield* devices)], [theirs.session.deviceId, second.session.deviceId])
        yield* EncryptionKit.deleteDevice(theirs, second.session.deviceId)
        yield* EncryptionKit.untilDevices(anna, theirs.userId, (ids) => ids.length === 1)
        const one = yield* EncryptionKit.say(anna, roomId, "to one")
        yield* JsSdk.untilDecrypted(bert, roomId, one)
        assert.strictEqual(count(yield* sent), 1)
      })
    )

    it.effect("ends, and says why, when the own device is deleted", () =>
      Effect.gen(function* () {
        const { anna, me, roomId, timeline } = yield* pair({}, { sendWaitMillis: 500 })
        const said = yield* EncryptionKit.say(anna, roomId, "still here")
        const other = yield* EncryptionKit.newDevice(me)
        yield* EncryptionKit.deleteDevice(other, me.session.deviceId)
        const ended = yield* Kit.untilState(
          anna,
          "the end",
          (state: SyncServiceMachine.ServiceState) => state._tag === "Terminal"
        )
        assert(ended._tag === "Terminal")
        assert.strictEqual(ended.failure.class, "auth")
        const refused = yield* Effect.flip(anna.conversations.send(roomId, "m.room.message", text("gone")))
        assert.strictEqual(refused._tag, "StreamNotOwned")
        // What is stored can be read all the same.
        yield* timeline.decrypted(said)
      })
    )
  })
})
