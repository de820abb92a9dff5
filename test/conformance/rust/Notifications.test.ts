/**
 * Pushes of an account that has two devices: matrix-rust-sdk's `NotificationClient` on the one and ours on the other make the
 * same of each.
 *
 * Gotchas: events are said by a third party, once for both; the encrypted ones by our client, which knows both devices.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as NotificationKit from "../../synapse/NotificationKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import * as RustSdk from "./RustSdk.ts"
import * as Scene from "./Scene.ts"

/** Rita's two devices, whose keys are at the homeserver; and Anna, who talks to both in an encrypted room and in a clear one. */
const make = Effect.gen(function* () {
  const [anna, rita] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Rita")]
  // Each message has a key of its own, so that none is read without the stream of to-device messages.
  const options = EncryptionKit.encrypted({ rotation_period_msgs: 1 }, { name: "Cellar" })
  const roomId = yield* Kit.createJoined(anna, [rita], options)
  const plain = yield* Kit.createJoined(anna, [rita], { name: "Kitchen" })
  const account = yield* Kit.newAccount(rita)
  yield* Effect.scoped(Effect.andThen(EncryptionKit.run(account), RustSdk.untilPublished(rita, rita.session.deviceId)))
  const app = yield* RustSdk.logIn(rita, { holder: "app" })
  yield* RustSdk.start(app)
  yield* RustSdk.untilRooms(app, "both rooms", ({ length }) => length === 2)
  const sender = yield* EncryptionKit.run(yield* Kit.newAccount(anna))
  yield* EncryptionKit.untilEncrypted(sender, roomId)
  return { account, anna, app, plain, rita, roomId, sender }
})

type Made = Effect.Success<typeof make>

/** What is said, and how. */
const text = (body: string, more: Kit.Json = {}): Kit.Json => ({ msgtype: "m.text", body, ...more })

const kinds: ReadonlyArray<{
  readonly name: string
  readonly content: (made: Made, earlier: string) => Kit.Json
}> = [
  { name: "a message", content: () => text("dinner?") },
  { name: "a mention", content: ({ rita }) => text("Rita!", { "m.mentions": { user_ids: [rita.userId] } }) },
  { name: "a mention of the room", content: () => text("all!", { "m.mentions": { room: true } }) },
  { name: "a notice", content: () => ({ msgtype: "m.notice", body: "beep" }) },
  {
    name: "an edit",
    content: (_, earlier) =>
      text("* supper?", {
        "m.new_content": text("supper?"),
        "m.relates_to": { rel_type: "m.replace", event_id: earlier }
      })
  },
  {
    name: "a message in a thread",
    content: (_, earlier) => text("at 8", { "m.relates_to": { rel_type: "m.thread", event_id: earlier } })
  }
]

/** What both must agree on. */
interface Outcome {
  readonly outcome: string
  readonly body?: unknown
  readonly sender?: string
  readonly senderName?: string | null
  readonly roomName?: string
  readonly isEncrypted?: boolean | null
  readonly joined?: number | undefined
  readonly isNoisy?: boolean | null
  readonly isMention?: boolean | null
}

const outcomeOfTheirs = (shown: RustSdk.Notified): Outcome => {
  if (shown.status !== "Event") return { outcome: shown.status }
  const { event, hasMention, isEncrypted, isInvite, isNoisy, roomName, sender, senderName } = shown
  const { body } = event["content"] as Kit.Json
  // Nobody tells who is invited how many there are.
  const joined = isInvite ? undefined : shown.joined
  return { outcome: "Event", body, sender, senderName, roomName, isEncrypted, joined, isNoisy, isMention: hasMention }
}

const outcomeOfOurs = (result: NotificationKit.Result): Outcome => {
  if (result._tag !== "Event") return { outcome: result._tag }
  const { event, isMention, isNoisy, room, sender } = result.item
  return {
    outcome: "Event",
    body: event.content["body"],
    sender: sender.userId,
    senderName: sender.name,
    roomName: room.name,
    isEncrypted: room.isEncrypted,
    joined: room.joinedCount,
    isNoisy,
    isMention
  }
}

/** What both make of a push; they must agree. */
const agreed = Effect.fnUntraced(function* (
  { account }: Pick<Made, "account">,
  theirs: RustSdk.RustSdk,
  process: "single" | "multiple",
  roomId: string,
  eventId: string
) {
  const their = outcomeOfTheirs(yield* RustSdk.notification(theirs, process, roomId, eventId))
  const our = outcomeOfOurs(yield* NotificationKit.resolve(account, roomId, eventId))
  assert.deepStrictEqual(our, their)
  return our
})

describe(`pushes that matrix-rust-sdk's notification client and ours resolve on ${Scene.place}`, () => {
  layer(Scene.homeserver, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    for (const where of ["plain", "roomId"] as const)
      it.effect(`come to the same ${where === "plain" ? "in the clear" : "encrypted"}: all kinds`, () =>
        Effect.gen(function* () {
          const made = yield* make
          const roomId = made[where]
          // The application is asleep, and a process of its own is started for the push.
          yield* RustSdk.stop(made.app)
          const extension = yield* RustSdk.restore(made.app, { holder: "extension" })
          const outcomes: Array<readonly [string, Outcome]> = []
          let earlier = ""
          for (const { content, name } of kinds) {
            const eventId = yield* EncryptionKit.send(made.sender, roomId, "m.room.message", content(made, earlier))
            outcomes.push([name, yield* agreed(made, extension, "multiple", roomId, eventId)])
            earlier = earlier === "" ? eventId : earlier
          }
          const [name, isEncrypted] = where === "plain" ? ["Kitchen", false] : ["Cellar", true]
          assert.deepStrictEqual(outcomes[0], [
            "a message",
            {
              outcome: "Event",
              body: "dinner?",
              sender: made.anna.userId,
              senderName: "Anna",
              roomName: name,
              isEncrypted,
              joined: 2,
              isNoisy: true,
              isMention: false
            }
          ])
          assert.deepStrictEqual(
            outcomes.map(
              ([kind, { isMention, outcome }]) => `${kind}: ${outcome}${isMention === true ? ", mention" : ""}`
            ),
            [
              "a message: Event",
              "a mention: Event, mention",
              "a mention of the room: Event, mention",
              "a notice: FilteredOut",
              "an edit: FilteredOut",
              "a message in a thread: Event"
            ]
          )
        })
      )

    it.effect("come to the same while both applications sync: two processes over one store, and one process", () =>
      Effect.gen(function* () {
        const made = yield* make
        const { account, app, roomId, sender } = made
        yield* EncryptionKit.run(account)
        const extension = yield* RustSdk.restore(app, { holder: "extension" })
        for (const body of ["one", "two", "three"]) {
          const eventId = yield* EncryptionKit.say(sender, roomId, body)
          const outcome = yield* agreed(made, extension, "multiple", roomId, eventId)
          assert.deepInclude(outcome, { outcome: "Event", body, senderName: "Anna", roomName: "Cellar" })
          assert.deepStrictEqual(yield* agreed(made, app, "single", roomId, eventId), outcome)
        }
        // The application saw all of it as well, whoever of the two processes took the keys.
        yield* RustSdk.open(app, roomId)
        yield* RustSdk.untilEvent(app, roomId, "the last one", ({ content }) => content.body === "three")
        if (Scene.isDev) assert.deepInclude(yield* Scene.keysOf(app.session), { conflicts: 0, reused: 0 })
      })
    )

    it.effect("come to the same for an invitation, what was taken back, and what nobody knows", () =>
      Effect.gen(function* () {
        const made = yield* make
        const { anna, app, plain, rita } = made
        const attic = yield* Kit.createRoom(anna, { name: "Attic", invite: [rita.userId] })
        const memberEvent = yield* NotificationKit.memberEventId(anna, attic, rita)
        yield* RustSdk.stop(app)
        const extension = yield* RustSdk.restore(app, { holder: "extension" })
        const invited = yield* agreed(made, extension, "multiple", attic, memberEvent)
        assert.deepInclude(invited, { outcome: "Event", senderName: "Anna", roomName: "Attic" })
        const regretted = yield* Kit.say(anna, plain, "regretted")
        yield* NotificationKit.redact(anna, plain, regretted)
        assert.deepInclude(yield* agreed(made, extension, "multiple", plain, regretted), { outcome: "Redacted" })
      })
    )
  })
})
