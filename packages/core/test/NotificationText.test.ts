import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { JsonObject, StateEvent, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import type { NotificationItem, NotificationResult } from "../src/notification/NotificationItem.ts"
import { kindOf } from "../src/notification/NotificationKinds.ts"
import { maxBody, maxTitle, textOf } from "../src/notification/NotificationText.ts"

const me = "@me:hs"
const [alice, bob] = ["@alice:hs", "@bob:hs"]
const request = { roomId: "!kitchen:hs", eventId: "$1" }

type Sent = TimelineEvent | StateEvent

const event = (type: string, content: JsonObject, more: JsonObject = {}): Sent => ({
  type,
  sender: alice,
  event_id: "$1",
  content,
  ...more
})
const message = (content: JsonObject): Sent => event("m.room.message", content)
const said = (body: string): Sent => message({ msgtype: "m.text", body })
const member = (content: JsonObject, more: JsonObject = {}): Sent => event("m.room.member", content, more)

const kitchen = { roomId: "!kitchen:hs", name: "Kitchen", isEncrypted: false, isDirect: false }
const sender = { userId: alice, name: "Alice", isNameAmbiguous: false }

const itemOf = (event: Sent, more: Partial<NotificationItem> = {}): NotificationItem => ({
  kind: kindOf(event, me),
  event,
  sender,
  room: kitchen,
  isNoisy: false,
  isMention: false,
  missing: [],
  ...more
})

const text = (result: NotificationResult) => textOf({ request, result })
const shown = (event: Sent, more: Partial<NotificationItem> = {}) =>
  text({ _tag: "Event", item: itemOf(event, more) }) ?? assert.fail("nothing to show")
const body = (event: Sent): string => shown(event).body

const words = (text: string): ReadonlyArray<string> => text.split(" ")
const knownTypes = words(
  "m.room.message m.sticker m.poll.start m.call.invite m.room.member m.reaction m.room.topic m.room.encrypted"
)
const knownKeys = words(
  "body msgtype filename m.new_content m.relates_to m.in_reply_to rel_type key reason membership displayname m.poll question m.text name topic __proto__ toString"
)

const chat = { ...kitchen, name: "Alice", isDirect: true }

describe("NotificationText", () => {
  it("says where in the title and who in the body", () => {
    assert.deepStrictEqual(shown(said("dinner")), { title: "Kitchen", body: "Alice: dinner", urgency: "normal" })
  })

  it("says who only once in a direct chat that has the other's name", () => {
    assert.deepInclude(shown(said("dinner"), { room: chat }), { title: "Alice", body: "dinner" })
    assert.deepInclude(shown(said("dinner"), { room: { ...chat, name: "Plans" } }), {
      title: "Plans",
      body: "Alice: dinner"
    })
    assert.deepInclude(shown(said("dinner"), { room: { ...chat, isDirect: false } }), {
      title: "Alice",
      body: "Alice: dinner"
    })
  })

  it("shows the id of a sender whose name is another's too, and of one without a name", () => {
    const twin = { ...sender, isNameAmbiguous: true }
    assert.strictEqual(shown(said("hi"), { sender: twin }).body, "Alice (@alice:hs): hi")
    assert.deepInclude(shown(said("hi"), { sender: twin, room: chat }), { title: "Alice (@alice:hs)", body: "hi" })
    assert.strictEqual(shown(said("hi"), { sender: { ...sender, name: "\u202e\u200b" } }).body, "@alice:hs: hi")
  })

  it("tells messages of every type", () => {
    assert.strictEqual(body(message({ msgtype: "m.notice", body: "built" })), "Alice: built")
    assert.strictEqual(body(message({ msgtype: "m.emote", body: "waves" })), "* Alice waves")
    assert.strictEqual(
      body(message({ msgtype: "m.location", body: "geo", geo_uri: "geo:1,2" })),
      "Alice shared a location"
    )
    assert.strictEqual(body(event("m.sticker", { body: "Cat" })), "Alice sent a sticker: Cat")
    assert.strictEqual(body(message({ msgtype: "org.example", body: "as text" })), "Alice: as text")
    assert.strictEqual(body(message({})), "Alice sent an empty message")
    assert.strictEqual(
      body(event("org.example.thing", {})),
      "Alice sent something that can't be shown here: org.example.thing"
    )
  })

  it("tells a caption from a file's name", () => {
    const image = { msgtype: "m.image", body: "IMG_1.jpg" }
    assert.strictEqual(body(message(image)), "Alice sent an image")
    assert.strictEqual(body(message({ ...image, filename: "IMG_1.jpg" })), "Alice sent an image")
    assert.strictEqual(body(message({ ...image, filename: "IMG_1.jpg", body: "Sea" })), "Alice sent an image: Sea")
    assert.strictEqual(body(message({ msgtype: "m.video", body: "v.mp4" })), "Alice sent a video")
    assert.strictEqual(body(message({ msgtype: "m.file", body: "a.pdf" })), "Alice sent a file: a.pdf")
    assert.strictEqual(body(message({ msgtype: "m.audio", body: "a.ogg" })), "Alice sent an audio file")
    assert.strictEqual(
      body(message({ msgtype: "m.audio", body: "a.ogg", "org.matrix.msc3245.voice": {} })),
      "Alice sent a voice message"
    )
  })

  it("asks the question of a poll in both spellings", () => {
    const old = { "org.matrix.msc3381.poll.start": { question: { "org.matrix.msc1767.text": "Soup?" } } }
    assert.strictEqual(body(event("org.matrix.msc3381.poll.start", old)), "Alice asks: Soup?")
    assert.strictEqual(
      body(event("m.poll.start", { "m.poll": { question: { "m.text": [{ body: "Soup?" }] } } })),
      "Alice asks: Soup?"
    )
  })

  it("tells ringing calls from others", () => {
    const rtc = (ring: string) => event("org.matrix.msc4075.rtc.notification", { notification_type: ring })
    assert.deepInclude(shown(event("m.call.invite", {})), { body: "Alice is calling", urgency: "critical" })
    assert.deepInclude(shown(rtc("ring")), { body: "Alice is calling", urgency: "critical" })
    assert.deepInclude(shown(rtc("notification")), { body: "Alice started a call", urgency: "normal" })
  })

  it("shows of an edit what is new, and of a reaction its key", () => {
    const relation = { rel_type: "m.replace", event_id: "$0" }
    const edit = { msgtype: "m.text", body: "* now", "m.relates_to": relation }
    assert.strictEqual(body(message({ ...edit, "m.new_content": { msgtype: "m.text", body: "now" } })), "Alice: now")
    assert.strictEqual(
      body(message({ ...edit, "m.new_content": { msgtype: "m.emote", body: "waves" } })),
      "* Alice waves"
    )
    assert.strictEqual(body(message({ ...edit, "m.new_content": "now" })), "Alice: * now")
    assert.strictEqual(
      body(event("m.reaction", { "m.relates_to": { rel_type: "m.annotation", key: "👍" } })),
      "Alice reacted with 👍"
    )
  })

  it("leaves out the quotation that comes before a reply, and no other", () => {
    const reply = { "m.relates_to": { "m.in_reply_to": { event_id: "$0" } } }
    const quoting = "> <@bob:hs> one\n> two\n\nyes\n> no"
    assert.strictEqual(body(message({ msgtype: "m.text", body: quoting, ...reply })), "Alice: yes > no")
    assert.strictEqual(body(message({ msgtype: "m.text", body: "> * <@bob:hs> waves\n\nhi", ...reply })), "Alice: hi")
    assert.strictEqual(body(message({ msgtype: "m.text", body: "> my words\nhi", ...reply })), "Alice: > my words hi")
    const long = `> <@bob:hs> one\n${">\n".repeat(20_000_000)}yes`
    assert.strictEqual(body(message({ msgtype: "m.text", body: long, ...reply })), "Alice: yes")
    assert.strictEqual(body(said(quoting)), "Alice: > <@bob:hs> one > two yes > no")
  })

  it("tells invitations and memberships", () => {
    const of = (membership: string, target: string, before?: string): string =>
      body(
        member(
          { membership },
          { state_key: target, ...(before !== undefined && { unsigned: { prev_content: { membership: before } } }) }
        )
      )
    assert.strictEqual(of("invite", me), "Alice invites you")
    assert.strictEqual(of("invite", bob), "Alice invited @bob:hs")
    assert.strictEqual(of("knock", alice), "Alice asks to be let in")
    assert.strictEqual(of("join", alice), "Alice joined")
    assert.strictEqual(of("join", alice, "join"), "Alice changed the name or picture")
    assert.strictEqual(of("leave", alice), "Alice left")
    assert.strictEqual(of("leave", alice, "invite"), "Alice declined the invitation")
    assert.strictEqual(of("leave", bob), "Alice removed @bob:hs")
    assert.strictEqual(of("leave", bob, "ban"), "Alice lifted the ban on @bob:hs")
    assert.strictEqual(
      body(member({ membership: "ban", reason: "spam", displayname: "Bob" }, { state_key: bob })),
      "Alice banned Bob: spam"
    )
  })

  it("warns of a sender who may be another", () => {
    assert.strictEqual(shown(said("pay me"), { shield: { color: "red" } }).body, "⚠ Alice: pay me")
    assert.strictEqual(shown(said("hi"), { shield: { color: "grey" } }).body, "Alice: hi")
  })

  it("interrupts for calls alone, and not at all for what happens by the way", () => {
    assert.strictEqual(shown(message({ msgtype: "m.notice", body: "x" })).urgency, "low")
    assert.strictEqual(shown(message({ msgtype: "m.notice", body: "x" }), { isMention: true }).urgency, "normal")
    assert.strictEqual(shown(event("m.reaction", {})).urgency, "low")
    assert.strictEqual(shown(member({ membership: "invite" }, { state_key: me })).urgency, "normal")
  })

  it("I7: says why something can't be shown", () => {
    const encrypted = itemOf(event("m.room.encrypted", {}))
    assert.deepStrictEqual(
      text({ _tag: "Undecrypted", reason: "MissingRoomKey", message: "Its key is missing.", item: encrypted }),
      { title: "Kitchen", body: "Alice sent an encrypted message. Its key is missing.", urgency: "normal" }
    )
    assert.deepStrictEqual(text({ _tag: "Expired", missing: ["event"], message: "The time is over." }), {
      title: "Something new",
      body: "It can't be shown: The time is over.",
      urgency: "normal"
    })
    assert.include(
      text({ _tag: "Failed", failure: { class: "auth", message: "x" }, message: "Logged out." })?.body,
      "Logged out."
    )
  })

  it("shows nothing where there is nothing to show", () => {
    assert.isUndefined(text({ _tag: "FilteredOut", reason: "ownEvent", message: "" }))
    assert.isUndefined(text({ _tag: "Redacted", message: "" }))
    assert.isUndefined(text({ _tag: "NotFound", message: "" }))
  })

  it("I10: cuts between graphemes, and also a text that is one", () => {
    const family = "👩‍👩‍👧"
    const cut = body(said(family.repeat(300)))
    assert.match(cut, /^Alice: (?:👩‍👩‍👧)+…$/u)
    assert.isAtMost([...cut].length, maxBody)
    assert.strictEqual([...body(said(`a${"\u0301".repeat(5_000)}`))].length, maxBody)
    assert.strictEqual(body(said("a".repeat(maxBody - 7))), `Alice: ${"a".repeat(maxBody - 7)}`)
  })

  it("leaves no control character, no line end and no mark of direction, whatever the content is (I10)", () => {
    const strings = fc.oneof(
      fc.string({ unit: "binary", maxLength: 1_000 }),
      fc.constantFrom("m.text", "m.emote", "m.image", "m.file", "m.replace", "invite", "join", "leave", "\ud800", "")
    )
    const keys = fc.constantFrom(...knownKeys)
    const { content } = fc.letrec<{ content: JsonObject; value: unknown }>((tie) => ({
      value: fc.oneof(strings, fc.jsonValue(), fc.array(tie("value"), { maxLength: 2 }), tie("content")),
      content: fc.dictionary(fc.oneof(keys, strings), tie("value"), { maxKeys: 6 })
    }))
    const types = fc.constantFrom(...knownTypes)
    const made = fc.record(
      { type: fc.oneof(types, strings), sender: strings, content, state_key: strings, unsigned: content },
      { requiredKeys: ["type", "sender", "content"] }
    )
    const harmful = /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u
    fc.assert(
      fc.property(made, strings, strings, fc.boolean(), (event, name, room, isDirect) => {
        const sent = event as unknown as Sent
        const said = shown(sent, {
          sender: { userId: event.sender, name, isNameAmbiguous: isDirect },
          room: { ...kitchen, name: room, isDirect }
        })
        for (const [line, max] of [
          [said.title, maxTitle],
          [said.body, maxBody]
        ] as const) {
          assert.notMatch(line, harmful)
          assert.isTrue(line.isWellFormed() && line.trim() !== "")
          assert.isAtMost([...line].length, max)
        }
      }),
      { numRuns: 500 }
    )
  })
})

describe("NotificationKinds", () => {
  it("tells calls before everything else, in every spelling", () => {
    const types = ["m.call.invite", "m.call.notify", "m.rtc.notification"]
    const unstable = ["org.matrix.msc4075.rtc.notification", "org.matrix.msc4075.call.notify"]
    for (const type of [...types, ...unstable]) {
      assert.strictEqual(kindOf(event(type, { "m.relates_to": { rel_type: "m.replace" } }), me), "call")
    }
  })

  it("tells the own invitation from other memberships", () => {
    assert.strictEqual(kindOf(member({ membership: "invite" }, { state_key: me }), me), "invite")
    assert.strictEqual(kindOf(member({ membership: "invite" }, { state_key: bob }), me), "membership")
    assert.strictEqual(kindOf(member({ membership: "join" }, { state_key: me }), me), "membership")
    assert.strictEqual(kindOf(member({ membership: "invite" }), me), "other")
  })

  it("tells edits, reactions, messages and the rest", () => {
    assert.strictEqual(kindOf(message({ "m.relates_to": { rel_type: "m.replace" } }), me), "edit")
    assert.strictEqual(kindOf(event("m.reaction", {}), me), "reaction")
    for (const type of ["m.room.message", "m.room.encrypted", "m.sticker", "m.poll.start"]) {
      assert.strictEqual(kindOf(event(type, {}), me), "message")
    }
    assert.strictEqual(kindOf(event("m.room.topic", {}, { state_key: "" }), me), "other")
    assert.strictEqual(kindOf(event("constructor", {}), me), "other")
  })

  it("sees own properties only", () => {
    const inherited = Object.create({ "m.relates_to": { rel_type: "m.replace" } }) as JsonObject
    assert.strictEqual(kindOf(message(inherited), me), "message")
  })
})
