import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Blocker } from "../src/lease/Lease.ts"
import type { EphemeralEvent, StateEvent, TimelineEvent } from "../src/matrix/MatrixEvent.ts"
import type { SyncResponse } from "../src/matrix/SlidingSync.ts"
import type { NotificationRequest, NotificationResult } from "../src/notification/NotificationItem.ts"
import * as NotificationFetchMachine from "../src/notification/NotificationFetchMachine.ts"
import * as NotificationMachine from "../src/notification/NotificationMachine.ts"
import type { Room } from "../src/rooms/Room.ts"
import type { Decryption } from "../src/sync/EventDecryptor.ts"
import type { ErrorClass } from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"
import { aMember, aMessage, anEvent, anInvite, aResponse, aRoom, aState } from "../src/testing/Generators.ts"

type State = NotificationMachine.State
type Input = NotificationMachine.Input
type Command = NotificationMachine.Command

const me = "@me:localhost"
const sender = "@sender:localhost"
const config: NotificationMachine.Config = { sync: defaults, ownUserId: me }
const random = 0.5
const deadlineMillis = 20_000
const room = "!room:localhost"
const other = "!other:localhost"
const push = (number: number, roomId = room): NotificationRequest => ({ roomId, eventId: `$event${number}` })
const keyOf = (number: number, roomId = room) => NotificationMachine.keyOf(push(number, roomId))
const failed = (one: ErrorClass) => ({ failure: { class: one, message: "why" }, nowMillis: 0, random })
const nothingStored: Input = { _tag: "StoreRead", rooms: [], accountData: [] }

const secret = (number: number, session = "s"): TimelineEvent =>
  anEvent(number, { type: "m.room.encrypted", content: { algorithm: "m.megolm.v1.aes-sha2", session_id: session } })
const missingKey = (session = "s"): Decryption => ({
  _tag: "Undecryptable",
  reason: "MissingRoomKey",
  message: "no key",
  sessionId: session
})
const decrypted = (event: TimelineEvent, type = "m.room.message"): Decryption => ({
  _tag: "Decrypted",
  event: { ...event, type, content: { msgtype: "m.text", body: "secret" } },
  shield: { color: "none" },
  sessionId: "s",
  senderKey: "k"
})
const rules = (...ruleset: ReadonlyArray<unknown>): EphemeralEvent => ({
  type: "m.push_rules",
  content: { global: { override: ruleset } }
})
const notifyAll = { rule_id: "all", enabled: true, conditions: [], actions: ["notify"] }

const storedRoom: Room = {
  roomId: room,
  membership: "join",
  displayName: "Kitchen",
  heroes: [],
  joinedCount: 2,
  invitedCount: 0,
  isDm: false,
  isEncrypted: false,
  bumpStamp: 0,
  unread: { notificationCount: 0, highlightCount: 0, markedUnread: false, liveSinceRead: 0 },
  typing: []
}

/** What the sync says of a room with these events, whose sender is known. */
const told = (timeline: ReadonlyArray<TimelineEvent>, roomId = room, state: ReadonlyArray<StateEvent> = []) => {
  const update = aRoom(roomId, { name: "Kitchen", messages: 0 })
  return { ...update, timeline, requiredState: [...update.requiredState, aMember(sender, "join", "Sam"), ...state] }
}
const synced = (...rooms: SyncResponse["rooms"]): Input => ({
  _tag: "Synced",
  response: aResponse({
    pos: "p",
    rooms,
    extensions: { unknown: {}, accountData: { global: [rules(notifyAll)], rooms: {} } }
  })
})

/** A machine that is driven by hand. */
const drive = (...requests: ReadonlyArray<NotificationRequest>) => {
  const started = NotificationMachine.start(config, requests, deadlineMillis)
  let state: State = started[0]
  const results = new Map<string, NotificationResult>()
  const order: Array<string> = []
  const send = (input: Input, nowMillis = 0): ReadonlyArray<Command> => {
    const [next, commands] = NotificationMachine.step(config, state, input, { nowMillis, random })
    state = next
    for (const command of commands) {
      if (command._tag !== "Emit") continue
      assert.isFalse(results.has(command.key), "a push got two results")
      results.set(command.key, command.result)
      order.push(command.key)
    }
    return commands.filter(({ _tag }) => _tag !== "Emit")
  }
  return {
    first: started[1],
    state: () => state,
    isOver: () => NotificationMachine.isOver(state),
    send,
    /** Sends all, and gives what followed from the last. */
    feed: (...inputs: ReadonlyArray<Input>) => inputs.reduce<ReadonlyArray<Command>>((_, input) => send(input), []),
    result: (number: number, roomId = room) => results.get(keyOf(number, roomId)),
    order
  }
}

const tags = (commands: ReadonlyArray<Command>) => commands.map(({ _tag }) => _tag)
const asksContext = (number: number, millis = 0, roomId = room) => ({
  _tag: "FetchContext" as const,
  key: keyOf(number, roomId),
  ...push(number, roomId),
  millis
})
const refused = (number: number, isForbidden = false): Input => ({
  _tag: "ContextRefused",
  key: keyOf(number),
  isForbidden
})
const contextFound = (number: number, event: TimelineEvent = aMessage(number)): Input => ({
  _tag: "ContextFound",
  key: keyOf(number),
  event,
  state: [aMember(sender, "join", "Sam"), aState("m.room.name", { name: "Kitchen" })]
})

describe("NotificationMachine looks for an event", () => {
  it("asks the homeserver nothing before it knows what the application has stored", () => {
    const machine = drive(push(1), push(2), push(1))
    assert.deepStrictEqual(machine.first, [{ _tag: "ReadStore", wanted: new Map([[room, ["$event1", "$event2"]]]) }])
    assert.deepStrictEqual(machine.feed({ _tag: "SyncLate" }, { _tag: "KeysWaited" }), [])
    assert.deepStrictEqual(tags(machine.send(nothingStored)), ["Sync"])
  })

  it("shows what is stored without asking anybody", () => {
    const machine = drive(push(1))
    const commands = machine.send({
      _tag: "StoreRead",
      rooms: [
        { room: storedRoom, state: [aMember(sender, "join", "Sam")], timeline: [aMessage(1)], events: [aMessage(1)] }
      ],
      accountData: [rules(notifyAll)]
    })
    assert.deepStrictEqual(commands, [])
    assert.strictEqual(machine.result(1)?._tag, "Event")
    assert.isTrue(machine.isOver())
  })

  it("asks for its surroundings at once when the first sync doesn't bring it", () => {
    const machine = drive(push(1))
    assert.deepStrictEqual(machine.feed(nothingStored, synced(told([]))), [asksContext(1)])
    machine.send(contextFound(1))
    assert.strictEqual(machine.result(1)?._tag, "Event")
  })

  it("looks three times, and at its surroundings twice, before it isn't found", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced(told([])))
    const [second] = machine.send(refused(1))
    assert.isTrue(second?._tag === "Sync" && second.request.timeoutMillis === NotificationFetchMachine.POLL_MILLIS)
    assert.deepStrictEqual(tags(machine.send(synced())), ["Sync"])
    assert.deepStrictEqual(machine.send(synced()), [asksContext(1)])
    assert.deepStrictEqual(machine.send(refused(1)), [])
    assert.strictEqual(machine.result(1)?._tag, "NotFound")
  })

  it("says that an event isn't found when the homeserver doesn't let this user see it", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced(), refused(1, true))
    const result = machine.result(1)
    assert.isTrue(result?._tag === "NotFound" && result.message.includes("left the room"))
  })

  it("waits for the sync before it says so: an invitation has no surroundings", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, { _tag: "SyncLate" }, refused(1, true))
    assert.isUndefined(machine.result(1))
    machine.send(synced(anInvite(room)))
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Event" && result.item.kind === "invite")
  })

  it("hedges: asks for the surroundings as well when the sync takes long", () => {
    const machine = drive(push(1))
    machine.send(nothingStored)
    assert.deepStrictEqual(machine.send({ _tag: "SyncLate" }), [asksContext(1)])
    machine.send(contextFound(1))
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Event" && result.item.missing.map(({ part }) => part).join() === "pushRules")
  })

  it("I9: tries a sync that fails again later, and asks for the surroundings meanwhile", () => {
    const machine = drive(push(1))
    machine.send(nothingStored)
    assert.deepStrictEqual(machine.send({ _tag: "SyncFailed", ...failed("server") }), [
      { _tag: "WaitToSync", millis: 375 },
      asksContext(1)
    ])
    assert.deepStrictEqual(tags(machine.send({ _tag: "SyncWaited" })), ["Sync"])
  })

  it("I9: starts afresh at once when the homeserver has forgotten the position", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced(told([])))
    const [again] = machine.send(refused(1))
    assert.isTrue(again?._tag === "Sync" && again.request.pos === "p")
    const commands = machine.send({ _tag: "SyncFailed", ...failed("expired") })
    const [fresh] = commands
    assert.isTrue(fresh?._tag === "Sync" && fresh.request.pos === undefined)
  })

  it("one whose surroundings hang doesn't keep the others from being looked for again", () => {
    const machine = drive(push(1), push(2))
    assert.deepStrictEqual(machine.feed(nothingStored, synced()), [asksContext(1), asksContext(2)])
    assert.deepStrictEqual(tags(machine.send(refused(2))), ["Sync"])
  })

  it("goes on looking for an event whose surroundings fail", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced())
    const commands = machine.send({ _tag: "ContextFailed", key: keyOf(1), ...failed("server") })
    assert.deepStrictEqual(tags(commands), ["FetchContext", "Sync"])
    machine.send({ _tag: "DeadlinePassed" })
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Expired" && result.message.includes("why"), "says what went wrong")
  })

  it("an event that is there isn't lost with the login; the others have failed", () => {
    const machine = drive(push(1), push(2))
    const stored: NotificationMachine.Stored = {
      room: storedRoom,
      state: [],
      timeline: [],
      events: [aMessage(1)]
    }
    machine.send({ _tag: "StoreRead", rooms: [stored], accountData: [] })
    machine.send({ _tag: "SyncFailed", ...failed("auth") })
    const [one, two] = [machine.result(1), machine.result(2)]
    assert.isTrue(one?._tag === "Event" && one.item.missing.some(({ part }) => part === "sender"))
    assert.isTrue(two?._tag === "Failed" && two.failure.class === "auth")
    assert.isTrue(machine.isOver())
  })

  it("without sliding sync asks for the surroundings alone, and believes the first answer", () => {
    const machine = drive(push(1), push(2))
    machine.send(nothingStored)
    const commands = machine.send({ _tag: "SyncFailed", ...failed("unsupported") })
    assert.deepStrictEqual(commands, [asksContext(1), asksContext(2)])
    assert.deepStrictEqual(machine.feed(contextFound(1), refused(2)), [])
    assert.deepStrictEqual([machine.result(1)?._tag, machine.result(2)?._tag], ["Event", "NotFound"])
  })

  it("ends a sync that nobody needs any more", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced())
    machine.send({ _tag: "ContextFailed", key: keyOf(1), ...failed("server") })
    assert.deepStrictEqual(tags(machine.send(contextFound(1))), ["AbortSync"])
  })
})

describe("NotificationMachine decrypts", () => {
  /** The event is there, and its key isn't. */
  const wantsKey = (...requests: ReadonlyArray<NotificationRequest>) => {
    const machine = drive(...requests)
    machine.feed(nothingStored, synced(told([secret(1), secret(2, "t"), aMessage(3)])))
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: missingKey() })
    return machine
  }
  const blocker: Blocker = { kind: "holder", holder: "app#1", peer: {}, expiresAtMillis: 10_000 }

  it("tries the stream when the key isn't there, and again with what an iteration brought", () => {
    const machine = wantsKey(push(1))
    machine.send({ _tag: "LeaseTaken" })
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: missingKey() })
    const commands = machine.send({ _tag: "Iterated", tookMillis: 1, heldMillis: 0, isEmpty: false })
    assert.deepStrictEqual(tags(commands), ["SendOutgoing", "Decrypt"])
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: decrypted(secret(1)) })
    assert.strictEqual(machine.result(1)?._tag, "Event")
    assert.isFalse(machine.isOver(), "the second iteration acknowledges")
    machine.feed({ _tag: "Sent", random }, { _tag: "Iterated", tookMillis: 1, heldMillis: 0, isEmpty: true })
    assert.deepStrictEqual(tags(machine.send({ _tag: "Sent", random })), ["ReleaseLease"])
    assert.isTrue(machine.isOver())
  })

  it("tries an event again when its own key was committed, and when anything may have been", () => {
    const machine = wantsKey(push(1), push(2))
    machine.send({ _tag: "DecryptAnswered", key: keyOf(2), decryption: missingKey("t") })
    assert.deepStrictEqual(tags(machine.send({ _tag: "LeaseBusy", blocker })), ["WatchOwner"])
    assert.deepStrictEqual(tags(machine.send({ _tag: "OwnerWatched" })), ["TryLease", "Decrypt", "Decrypt"])
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: missingKey() })
    machine.send({ _tag: "DecryptAnswered", key: keyOf(2), decryption: missingKey("t") })
    const [tried, ...others] = machine.send({ _tag: "KeysCommitted", sessions: new Set(["t"]) })
    assert.isTrue(tried?._tag === "Decrypt" && tried.key === keyOf(2))
    assert.deepStrictEqual(others, [])
  })

  it("I7: tries an event again whose key another brings while a full disk keeps the lease from this process", () => {
    const machine = wantsKey(push(1))
    assert.deepStrictEqual(tags(machine.send({ _tag: "LeaseFailed", ...failed("store") })), ["WaitForLease"])
    assert.deepStrictEqual(tags(machine.send({ _tag: "KeysCommitted" })), ["Decrypt"])
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: decrypted(secret(1)) })
    assert.strictEqual(machine.result(1)?._tag, "Event")
  })

  it("I7: tries an event again when it has the lease, before which others may have committed its key", () => {
    const machine = wantsKey(push(1))
    assert.sameMembers(tags(machine.send({ _tag: "LeaseTaken" })), ["WatchGrant", "Iterate", "Decrypt"])
    machine.send({ _tag: "IterateFailed", ...failed("network") })
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: decrypted(secret(1)) })
    assert.strictEqual(machine.result(1)?._tag, "Event")
  })

  it("I7: tries an event again when an iteration failed: a commit that is told to have failed may have brought its key", () => {
    const machine = wantsKey(push(1))
    machine.send({ _tag: "LeaseTaken" })
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: missingKey() })
    assert.sameMembers(tags(machine.send({ _tag: "IterateFailed", ...failed("store") })), ["WaitForKeys", "Decrypt"])
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: decrypted(secret(1)) })
    assert.strictEqual(machine.result(1)?._tag, "Event")
  })

  it("tries an event again whose key came while it was being decrypted", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced(told([secret(1)])))
    assert.deepStrictEqual(machine.send({ _tag: "KeysCommitted" }), [])
    const commands = machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: missingKey() })
    assert.include(tags(commands), "Decrypt")
    machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption: decrypted(secret(1)) })
    assert.strictEqual(machine.result(1)?._tag, "Event")
  })

  it("doesn't look for a key when an event is undecryptable for another reason", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, synced(told([secret(1)])))
    const decryption: Decryption = { _tag: "Undecryptable", reason: "Withheld", message: "withheld" }
    assert.deepStrictEqual(machine.send({ _tag: "DecryptAnswered", key: keyOf(1), decryption }), [])
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Undecrypted" && result.reason === "Withheld")
  })

  it("gives up on an event at which the decryptor fails three times, and on no other", () => {
    const machine = drive(push(1), push(3))
    machine.feed(nothingStored, synced(told([secret(1), aMessage(3)])))
    assert.strictEqual(machine.result(3)?._tag, "Event")
    const fails: Input = { _tag: "DecryptFailed", key: keyOf(1), ...failed("crypto") }
    assert.deepStrictEqual(
      [...machine.send(fails), ...machine.send(fails)].map(({ _tag }) => _tag),
      ["Decrypt", "Decrypt"]
    )
    assert.deepStrictEqual(machine.send(fails), [])
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Failed" && result.failure.class === "crypto")
  })

  it("an event that comes to wait for a key after the stream was given up has failed as well", () => {
    const machine = wantsKey(push(1), push(2))
    machine.send({ _tag: "LeaseFailed", ...failed("storeTerminal") })
    assert.strictEqual(machine.result(1)?._tag, "Failed")
    machine.send({ _tag: "DecryptAnswered", key: keyOf(2), decryption: missingKey("t") })
    assert.strictEqual(machine.result(2)?._tag, "Failed")
    assert.isTrue(machine.isOver())
  })

  it("shows at the deadline what it has, and says which process had the stream", () => {
    const machine = wantsKey(push(1))
    machine.send({ _tag: "LeaseBusy", blocker })
    assert.deepStrictEqual(machine.send({ _tag: "DeadlinePassed" }, deadlineMillis), [])
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Undecrypted" && result.reason === "MissingRoomKey")
    assert.isTrue(result?._tag === "Undecrypted" && result.message.includes("app#1"))
  })

  it("judges what was decrypted: a call in an encrypted room is a call, and comes first", () => {
    const machine = drive(push(1), push(2))
    machine.feed(nothingStored, synced(told([secret(1), secret(2)])), {
      _tag: "DecryptAnswered",
      key: keyOf(2),
      decryption: decrypted(secret(2), "m.call.invite")
    })
    const result = machine.result(2)
    assert.isTrue(result?._tag === "Event" && result.item.kind === "call")
  })
})

describe("NotificationMachine tells", () => {
  it("calls first, then what is urgent, then in the order of the pushes", () => {
    const machine = drive(push(1), { ...push(2), isUrgent: true }, push(3), push(4))
    const call = anEvent(4, { type: "m.call.invite", content: {} })
    machine.feed(nothingStored, synced(told([aMessage(1), aMessage(2), aMessage(3), call])))
    assert.deepStrictEqual(
      machine.order,
      [4, 2, 1, 3].map((number) => keyOf(number))
    )
  })

  it("invitations in one batch each with their own room, and none that wasn't asked for", () => {
    const machine = drive(push(1), push(2, other))
    machine.feed(nothingStored, synced(anInvite(room), anInvite(other, "@eve:localhost"), anInvite("!third:localhost")))
    const senders = [machine.result(1), machine.result(2, other)].map((result) =>
      result?._tag === "Event" ? [result.item.kind, result.item.room.roomId, result.item.sender.userId] : result?._tag
    )
    assert.deepStrictEqual(senders, [
      ["invite", room, sender],
      ["invite", other, "@eve:localhost"]
    ])
    assert.lengthOf(machine.order, 2)
  })

  it("what a rule about threads says only when it is known whether the user follows it", () => {
    const machine = drive(push(1))
    const reply = anEvent(1, { content: { body: "x", "m.relates_to": { rel_type: "m.thread", event_id: "$root" } } })
    const follows = { kind: "io.element.msc4306.thread_subscription", subscribed: true }
    const response = aResponse({
      pos: "p",
      rooms: [told([reply])],
      extensions: {
        unknown: {},
        accountData: {
          global: [rules({ rule_id: "thread", enabled: true, conditions: [follows], actions: ["notify"] })],
          rooms: {}
        }
      }
    })
    assert.deepStrictEqual(machine.feed(nothingStored, { _tag: "Synced", response }), [
      { _tag: "AskThread", key: keyOf(1), roomId: room, rootId: "$root" }
    ])
    machine.send({ _tag: "ThreadAnswered", key: keyOf(1), isSubscribed: true })
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Event" && result.item.threadRootId === "$root")
  })

  it("nothing after the deadline", () => {
    const machine = drive(push(1))
    machine.feed(nothingStored, { _tag: "DeadlinePassed" })
    const result = machine.result(1)
    assert.isTrue(result?._tag === "Expired" && result.missing.join() === "event")
    assert.deepStrictEqual(machine.send(synced(told([aMessage(1)]))), [])
    assert.lengthOf(machine.order, 1)
  })
})

describe("NotificationMachine, whatever happens", () => {
  const pushes = [push(1), push(2), push(3, other), push(4, "!gone:localhost")]
  const keys = pushes.map(NotificationMachine.keyOf)
  const blocker: Blocker = { kind: "holder", holder: "app#1", peer: {}, expiresAtMillis: 10_000 }
  const key = fc.constantFrom(...keys, "!no:localhost $such")
  const classes: ReadonlyArray<ErrorClass> = [
    "network",
    "rateLimited",
    "expired",
    "auth",
    "unsupported",
    "server",
    "rejected",
    "tooLarge",
    "store",
    "storeTerminal",
    "stale",
    "moved",
    "crypto"
  ]
  const events = fc.constantFrom<TimelineEvent>(
    aMessage(1),
    secret(1),
    secret(2, "t"),
    aMessage(2, "mine", me),
    secret(3),
    anEvent(4, { type: "m.call.invite" }),
    anEvent(9, { type: "m.room.redaction", redacts: "$event1", content: { redacts: "$event1" } })
  )
  const rooms = fc.oneof(
    fc.array(events, { maxLength: 4 }).map((timeline) => told(timeline)),
    fc.array(events, { maxLength: 4 }).map((timeline) => told(timeline, other)),
    fc.constantFrom(anInvite(other), anInvite("!gone:localhost"), anInvite("!third:localhost"))
  )
  const decryptions = fc.constantFrom<Decryption>(missingKey(), missingKey("t"), decrypted(secret(1)), {
    _tag: "Undecryptable",
    reason: "Withheld",
    message: "withheld"
  })
  const inputs: fc.Arbitrary<Input> = fc.oneof(
    fc.array(rooms, { maxLength: 3 }).map((all) => synced(...all)),
    fc.array(events, { maxLength: 3 }).map((found): Input => ({
      _tag: "StoreRead",
      rooms: found.map((event) => ({ room: storedRoom, state: [], timeline: found, events: [event] })),
      accountData: [rules(notifyAll)]
    })),
    fc.constantFrom<Input>(
      { _tag: "SyncLate" },
      { _tag: "SyncWaited" },
      { _tag: "OwnerWatched" },
      { _tag: "KeysCommitted" },
      { _tag: "KeysCommitted", sessions: new Set(["t"]) },
      { _tag: "LeaseTaken" },
      { _tag: "LeaseBusy", blocker },
      { _tag: "LeaseLost" },
      { _tag: "LeaseWanted" },
      { _tag: "Iterated", tookMillis: 0, heldMillis: 1_000, isEmpty: true },
      { _tag: "Sent", random },
      { _tag: "Expired" },
      { _tag: "KeysWaited" },
      { _tag: "OwnerGone", random },
      { _tag: "OwnerGone", dead: "app#1", random }
    ),
    fc
      .tuple(
        fc.constantFrom(
          "SyncFailed" as const,
          "LeaseFailed" as const,
          "IterateFailed" as const,
          "WatchFailed" as const
        ),
        fc.constantFrom(...classes)
      )
      .map(([_tag, one]): Input => ({ _tag, ...failed(one) })),
    fc
      .tuple(fc.constantFrom("ContextFailed" as const, "DecryptFailed" as const), key, fc.constantFrom(...classes))
      .map(([_tag, of, one]): Input => ({ _tag, key: of, ...failed(one) })),
    fc.tuple(key, events).map(([of, event]): Input => ({ _tag: "ContextFound", key: of, event, state: [{ bad: 1 }] })),
    fc.tuple(key, fc.boolean()).map(([of, isForbidden]): Input => ({ _tag: "ContextRefused", key: of, isForbidden })),
    fc.tuple(key, decryptions).map(([of, decryption]): Input => ({ _tag: "DecryptAnswered", key: of, decryption })),
    fc
      .tuple(key, fc.constantFrom(true, false, undefined))
      .map(([of, isSubscribed]): Input => ({ _tag: "ThreadAnswered", key: of, isSubscribed }))
  )
  const underGrant: ReadonlySet<Command["_tag"]> = new Set(["Iterate", "SendOutgoing", "ExpirePosition"])
  const answersATry = ({ _tag }: Input) => _tag === "LeaseTaken" || _tag === "LeaseBusy" || _tag === "LeaseFailed"

  it("I1, I7: each push gets one result by the deadline, nothing is read without the grant, and no grant is forgotten", () => {
    fc.assert(
      fc.property(fc.array(inputs, { maxLength: 60 }), (story) => {
        let [state] = NotificationMachine.start(config, [...pushes, push(1)], deadlineMillis)
        const results: Array<string> = []
        let holds = false
        let tries = 0
        const obey = (input: Input, nowMillis: number) => {
          const wasPassed = state.deadlinePassed
          const [next, commands] = NotificationMachine.step(config, state, input, { nowMillis, random })
          state = next
          for (const command of commands) {
            if (command._tag === "Emit") results.push(command.key)
            else assert.isFalse(state.deadlinePassed, `${command._tag} after the deadline`)
            if (command._tag === "TryLease") tries++
            if (command._tag === "ReleaseLease") {
              assert.isTrue(holds, "gives back what it hasn't")
              holds = false
            }
            if (underGrant.has(command._tag)) assert.isTrue(holds, `${command._tag} without a grant`)
            assert.isFalse(wasPassed, "something follows after the deadline")
          }
          if (NotificationMachine.isOver(state) && !state.deadlinePassed) assert.isFalse(holds, "over with a grant")
        }
        story.forEach((input, index) => {
          if (answersATry(input) && tries === 0) return
          if (answersATry(input)) tries--
          if (input._tag === "LeaseTaken") holds = true
          obey(input, index * 100)
        })
        obey({ _tag: "DeadlinePassed" }, deadlineMillis)
        assert.deepStrictEqual(results.toSorted(), keys.toSorted())
        assert.isTrue(NotificationMachine.isOver(state))
        for (const input of story.slice(0, 5)) obey(input, deadlineMillis)
      }),
      { numRuns: 2_000 }
    )
  })

  /** An honest answer to a command, which may fail as long as there are failures left. */
  const answerTo = (command: Command, choose: (options: number) => number, fails: () => boolean): Input | undefined => {
    const failure = failed(["network", "server", "expired", "stale"][choose(4)] as ErrorClass)
    switch (command._tag) {
      case "ReadStore":
        return nothingStored
      case "Sync":
        if (fails()) return { _tag: "SyncFailed", ...failure }
        return synced(told(choose(2) === 0 ? [] : [secret(1), aMessage(2)]), told([secret(3)], other))
      case "WaitToSync":
        return { _tag: "SyncWaited" }
      case "FetchContext":
        if (fails()) return { _tag: "ContextFailed", key: command.key, ...failure }
        return command.eventId === "$event4"
          ? { _tag: "ContextRefused", key: command.key, isForbidden: choose(2) === 0 }
          : { _tag: "ContextFound", key: command.key, event: { ...secret(1), event_id: command.eventId }, state: [] }
      case "Decrypt":
        if (fails()) return { _tag: "DecryptAnswered", key: command.key, decryption: missingKey() }
        return { _tag: "DecryptAnswered", key: command.key, decryption: decrypted(command.event) }
      case "AskThread":
        return { _tag: "ThreadAnswered", key: command.key, isSubscribed: undefined }
      case "TryLease":
        if (fails()) return { _tag: "LeaseBusy", blocker }
        return { _tag: "LeaseTaken" }
      case "Iterate":
        if (fails()) return { _tag: "IterateFailed", ...failure }
        return { _tag: "Iterated", tookMillis: 0, heldMillis: command.timeoutMillis, isEmpty: choose(2) === 0 }
      case "SendOutgoing":
        return { _tag: "Sent", random }
      case "ExpirePosition":
        return { _tag: "Expired" }
      case "WaitForLease":
      case "WaitForKeys":
        return { _tag: "KeysWaited" }
      case "WatchOwner":
        return fails() ? { _tag: "KeysCommitted" } : { _tag: "OwnerGone", random }
      default:
        return undefined
    }
  }

  it("I9: with a homeserver and a store that recover, everything gets a result and comes to rest by itself", () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(1_000)), fc.nat(12), (chance, trouble) => {
        const choose = (options: number) => chance.next().value % options
        let left = trouble
        const fails = () => left > 0 && choose(2) === 0 && left-- > 0
        let [state, pending] = NotificationMachine.start(config, pushes, deadlineMillis)
        let watching: Command | undefined
        const results: Array<string> = []
        let steps = 0
        while (pending.length > 0 || watching !== undefined) {
          assert.isBelow(steps++, 500, "it doesn't come to rest")
          const at = choose(Math.max(1, pending.length))
          const command = pending[at] ?? watching
          if (command === undefined) break
          pending = pending.filter((one) => one !== command)
          const input = answerTo(command, choose, fails)
          if (input === undefined) continue
          if (command._tag === "WatchOwner") watching = input._tag === "OwnerGone" ? undefined : command
          const [next, commands] = NotificationMachine.step(config, state, input, { nowMillis: steps, random })
          state = next
          for (const one of commands) {
            if (one._tag === "Emit") results.push(one.key)
            else if (one._tag === "UnwatchOwner") watching = undefined
            else if (one._tag === "AbortSync") pending = pending.filter(({ _tag }) => _tag !== "Sync")
            else if (one._tag === "ReleaseLease")
              pending = pending.filter(({ _tag }) => !underGrant.has(_tag) && _tag !== "WaitForKeys")
            else pending = [...pending, one]
          }
          if (watching !== undefined) pending = pending.filter((one) => one !== watching)
        }
        assert.deepStrictEqual(results.toSorted(), keys.toSorted())
        assert.isTrue(NotificationMachine.isOver(state))
      }),
      { numRuns: 1_000 }
    )
  })
})
