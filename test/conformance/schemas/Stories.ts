/**
 * What is told before the judge: our client and matrix-js-sdk on one dev homeserver, each with its own sliding sync and its own
 * end-to-end machine.
 *
 * Not here: people and what is waited for (`test/synapse`), logins and pushers (`AccountStories.ts`), what is asked directly
 * (`Sweep.ts`).
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { ClientEvent, type MatrixClient, RoomEvent, RoomMemberEvent } from "matrix-js-sdk"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as JsSdk from "../../synapse/JsSdk.ts"
import * as Notifying from "../../synapse/NotificationKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import { expire, told, type Town } from "./Town.ts"

const text = (body: string): Kit.Json => ({ msgtype: "m.text", body })

const reply = (eventId: string, body: string): Kit.Json => ({
  ...text(body),
  "m.relates_to": { "m.in_reply_to": { event_id: eventId } }
})

/** Anna with our client and Bert with matrix-js-sdk, joined to an encrypted room that Anna made. */
const pair = Effect.fnUntraced(function* ({ theirs }: Town) {
  const me = yield* Kit.newPerson("Anna")
  const them = EncryptionKit.at(theirs.baseUrl, yield* Kit.newPerson("Bert"))
  const roomId = yield* Kit.createJoined(me, [them], EncryptionKit.encrypted({}, { name: "Cellar" }))
  const account = yield* Kit.newAccount(me)
  const anna = yield* EncryptionKit.run(account)
  const bert = yield* JsSdk.startSliding(them)
  yield* EncryptionKit.untilEncrypted(anna, roomId)
  yield* JsSdk.untilEncrypted(bert, roomId)
  yield* JsSdk.untilKnows(bert, me)
  return { account, anna, bert, me, roomId, them, timeline: yield* EncryptionKit.live(anna, roomId) }
})

/** They read one another, in both directions, also after the homeserver has forgotten where they were. */
export const encrypted = told((at) =>
  Effect.gen(function* () {
    const { account, anna, bert, me, roomId, them, timeline } = yield* pair(at)

    const hello = yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, "hello Anna"))
    assert.deepStrictEqual(hello.event.content, text("hello Anna"))
    assert(hello.decryption?._tag === "Decrypted")
    assert.strictEqual(hello.decryption.senderDevice, them.session.deviceId)
    const answered = yield* EncryptionKit.send(
      anna,
      roomId,
      "m.room.message",
      reply(hello.event.event_id, "hello Bert")
    )
    const answer = yield* JsSdk.untilDecrypted(bert, roomId, answered)
    assert.strictEqual(answer.getContent().body, "hello Bert")
    assert.strictEqual(answer.replyEventId, hello.event.event_id)
    assert.strictEqual(answer.getSender(), me.userId)

    // What woke a notification is shown by what the application has stored, and by the homeserver.
    const pushed = yield* Notifying.resolve(account, roomId, hello.event.event_id)
    assert.strictEqual(Notifying.bodyOf(pushed), "hello Anna")

    yield* expire(at, me)
    yield* expire(at, them)
    const late = yield* JsSdk.say(bert, roomId, "after it forgot")
    yield* timeline.decrypted(late)
    const back = yield* EncryptionKit.say(anna, roomId, "me too")
    yield* JsSdk.untilDecrypted(bert, roomId, back)
    // Both have asked again by now: one poll brings one message.
    yield* timeline.decrypted(yield* JsSdk.say(bert, roomId, "and on"))
    const shown = yield* JsSdk.events(bert, roomId)
    for (const id of [late, back])
      assert.lengthOf(
        shown.filter((event) => event.getId() === id),
        1
      )
    assert.lengthOf(
      (yield* timeline.items).filter(({ event }) => event.event_id === late),
      1
    )
  })
)

/** Each makes an identity and signs its device with it, and the other sees it; a device that is gone gets no key. */
export const signed = told((at) =>
  Effect.gen(function* () {
    const { anna, bert, me, roomId, them, timeline } = yield* pair(at)
    const code = ({ decryption }: EncryptionKit.Shown) =>
      decryption?._tag === "Decrypted" ? decryption.shield.code : undefined
    const eventId = yield* JsSdk.say(bert, roomId, "trust me")
    assert.strictEqual(code(yield* timeline.decrypted(eventId)), "UnsignedDevice")
    yield* Effect.promise(() =>
      bert.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: async (ask) => void (await ask(null)) })
    )
    yield* timeline.until(
      "the signature",
      (item) => item.event.event_id === eventId && code(item) === "UnverifiedIdentity"
    )

    yield* Effect.orDie(anna.encryption.bootstrapCrossSigning())
    const ours = () => bert.crypto.getDeviceVerificationStatus(me.userId, me.session.deviceId)
    yield* JsSdk.until(bert, "Anna's signature", async () =>
      (await ours())?.signedByOwner === true ? true : undefined
    )
    // New keys need the password.
    yield* Effect.orDie(
      anna.encryption.bootstrapCrossSigning({
        reset: true,
        authenticate: ({ session }) => Effect.succeed(EncryptionKit.authOf(me, session))
      })
    )

    // A second device is followed, and forgotten when it is gone.
    const second = EncryptionKit.at(at.theirs.baseUrl, yield* EncryptionKit.newDevice(them))
    yield* EncryptionKit.untilDevices(anna, them.userId, (ids) => !ids.includes(second.session.deviceId))
    yield* Effect.scoped(
      Effect.gen(function* () {
        const phone = yield* JsSdk.startSliding(second)
        yield* EncryptionKit.untilDevices(anna, them.userId, (ids) => ids.includes(second.session.deviceId))
        yield* JsSdk.untilDecrypted(phone, roomId, yield* EncryptionKit.say(anna, roomId, "to both"))
      })
    )
    yield* EncryptionKit.deleteDevice(them, second.session.deviceId)
    yield* EncryptionKit.untilDevices(anna, them.userId, (ids) => !ids.includes(second.session.deviceId))
  })
)

/** Waits for a signal of a client after which something is true, if it isn't yet. */
const untilTold = (client: MatrixClient, signal: Parameters<MatrixClient["on"]>[0], isTrue: () => boolean) =>
  Effect.callback<void>((resume) => {
    const look = () => {
      if (isTrue()) resume(Effect.void)
    }
    client.on(signal, look)
    look()
    return Effect.sync(() => client.off(signal, look))
  }).pipe(
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(`waited in vain for ${String(signal)}`) })
  )

/** matrix-js-sdk's own sliding sync: a window that grows, a room that is subscribed to, changes as they come, positions that end. */
export const slidingSync = told((at) =>
  Effect.gen(function* () {
    const [anna, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
    const them = EncryptionKit.at(at.theirs.baseUrl, bert)
    const rooms = yield* Effect.forEach(["One", "Two", "Three"], (name) => Kit.createJoined(anna, [them], { name }))
    const [one = "", two = "", three = ""] = rooms
    for (const number of [1, 2, 3, 4]) yield* Kit.say(anna, one, `${number}`)
    // A message each, so that the order is that of the names.
    for (const roomId of rooms) yield* Kit.say(anna, roomId, "last")

    // The window has the newest room only, and the list counts all.
    const user = yield* JsSdk.startSliding(them, { ranges: [[0, 0]], timeline_limit: 1 })
    const { client, sliding } = user
    assert.strictEqual(sliding.getListData("all")?.joinedCount, 3)
    assert.deepStrictEqual(
      client.getRooms().map((room) => room.roomId),
      [three]
    )

    // A subscription brings a room from outside of it, with more of its timeline.
    sliding.modifyRoomSubscriptions(new Set([one]))
    yield* JsSdk.until(user, "the subscribed room's timeline", () => {
      const events = client.getRoom(one)?.getLiveTimeline().getEvents() ?? []
      const bodies = events.map((event) => event.getContent().body)
      return bodies.filter((body) => body !== undefined).join() === "1,2,3,4,last" ? bodies : undefined
    })
    assert.isNull(client.getRoom(two))

    // The window grows.
    sliding.setListRanges("all", [[0, 2]])
    yield* JsSdk.until(user, "the other room", () => client.getRoom(two) ?? undefined)
    assert.strictEqual(client.getRoom(two)?.name, "Two")

    // Changes as they come: a name, a message, a receipt, typing, account data, a profile.
    yield* Kit.setState(anna, two, "m.room.name", { name: "Second" })
    yield* JsSdk.until(user, "the new name", () => (client.getRoom(two)?.name === "Second" ? true : undefined))
    const said = yield* JsSdk.say(user, two, "heard")
    yield* Kit.call(anna, "POST", Kit.roomPath(two, `receipt/m.read/${encodeURIComponent(said)}`), {})
    yield* untilTold(client, RoomEvent.Receipt, () => client.getRoom(two)?.getEventReadUpTo(anna.userId) === said)
    yield* Kit.call(anna, "PUT", Kit.roomPath(two, `typing/${anna.userId}`), { typing: true, timeout: 20_000 })
    yield* untilTold(client, RoomMemberEvent.Typing, () => client.getRoom(two)?.getMember(anna.userId)?.typing === true)
    yield* Effect.promise(() =>
      client.setRoomAccountData(two, "m.tag" as never, { tags: { "m.favourite": { order: 0.5 } } } as never)
    )
    yield* untilTold(client, RoomEvent.Tags, () => client.getRoom(two)?.tags["m.favourite"] !== undefined)
    yield* Effect.promise(() => client.setAccountData("org.twinloop.test" as never, { seen: true } as never))
    yield* untilTold(
      client,
      ClientEvent.AccountData,
      () => client.getAccountData("org.twinloop.test" as never) !== undefined
    )
    yield* Effect.promise(() => client.setDisplayName("Bertram"))
    yield* JsSdk.until(user, "the new display name", () =>
      client.getRoom(two)?.getMember(bert.userId)?.name === "Bertram" ? true : undefined
    )

    // The homeserver forgets the position: everything comes again, and nothing twice.
    yield* expire(at, bert)
    const after = yield* Kit.say(anna, three, "after it forgot")
    yield* JsSdk.untilEvent(user, three, "the message after", (event) => event.getId() === after)
    const ids = (yield* JsSdk.events(user, three)).map((event) => event.getId())
    assert.strictEqual(new Set(ids).size, ids.length)
    yield* Effect.promise(() => client.leave(three))
    yield* JsSdk.until(user, "having left", () =>
      client.getRoom(three)?.getMyMembership() === "join" ? undefined : true
    )
  })
)
