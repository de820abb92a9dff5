import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import type { ListFilters, SyncRequest, SyncResponse } from "../src/matrix/SlidingSync.ts"
import * as Model from "../src/testing/HomeserverModel.ts"

const get = <A>(outcome: Model.Outcome<A>): A => Result.getOrThrowWith(outcome, ({ message }) => new Error(message))
const refusal = <A>(outcome: Model.Outcome<A>): Model.Refusal => Result.getOrThrow(Result.flip(outcome))

interface World {
  readonly state: Model.ModelState
  readonly alice: Model.Requester
  readonly bob: Model.Requester
}

const requester = (state: Model.ModelState, localpart: string): Model.Requester => {
  const user = get(Model.ensureUser(state, { localpart, password: "secret" }))
  return get(Model.authenticate(state, Model.startSession(state, user, {}, 0).accessToken, 0))
}

const makeWorld = (): World => {
  const state = Model.make()
  return { state, alice: requester(state, "alice"), bob: requester(state, "bob") }
}

const request = (rest: Partial<SyncRequest>): SyncRequest => ({
  connId: "main",
  timeoutMillis: 0,
  lists: {},
  roomSubscriptions: {},
  extensions: {},
  ...rest
})

const list = (end: number, filters?: ListFilters): Pick<SyncRequest, "lists"> => ({
  lists: {
    all: { range: [0, end], timelineLimit: 3, requiredState: [["m.room.member", "$LAZY"]], ...(filters && { filters }) }
  }
})

const sync = (
  state: Model.ModelState,
  who: Model.Requester,
  rest: Partial<SyncRequest>,
  now = 0
): Model.Outcome<SyncResponse> =>
  Result.gen(function* () {
    const poll = yield* Model.SyncConnection.open(state, who, request(rest), now)
    const answer = yield* Model.SyncConnection.answer(state, poll, now)
    return Model.SyncConnection.deliver(state, poll, answer, now)
  })

const say = (state: Model.ModelState, who: Model.Requester, roomId: string, body: string): string =>
  get(Model.send(state, who, { roomId, type: "m.room.message", content: { body }, txnId: body }, 0))

describe("HomeserverModel sessions", () => {
  it("logs in with the right password only", () => {
    const { state } = makeWorld()
    const tokens = get(Model.logIn(state, { user: "alice", password: "secret", deviceId: "PHONE" }, 0))
    assert.strictEqual(get(Model.authenticate(state, tokens.accessToken, 0)).device.deviceId, "PHONE")
    assert.strictEqual(refusal(Model.logIn(state, { user: "alice", password: "no" }, 0)).errcode, "M_FORBIDDEN")
    assert.strictEqual(refusal(Model.logIn(state, { user: "nobody", password: "" }, 0)).errcode, "M_FORBIDDEN")
  })

  it("expires a token softly, and takes its refresh token until the new one is used", () => {
    const { state } = makeWorld()
    const first = get(Model.logIn(state, { user: "alice", password: "secret", withRefresh: true }, 0))
    assert.strictEqual(first.expiresInMillis, 300_000)
    assert.isTrue(refusal(Model.authenticate(state, first.accessToken, 300_000)).softLogout)
    // The answer to the first refresh gets lost, so it is tried again.
    get(Model.refresh(state, first.refreshToken!, 300_000))
    const second = get(Model.refresh(state, first.refreshToken!, 300_000))
    get(Model.authenticate(state, second.accessToken, 300_001))
    assert.strictEqual(refusal(Model.refresh(state, first.refreshToken!, 300_002)).errcode, "M_FORBIDDEN")
    get(Model.refresh(state, second.refreshToken!, 300_003))
  })

  it("takes no token of a device's former life", () => {
    const { state, alice } = makeWorld()
    const login = { user: "alice", password: "secret", deviceId: "PHONE", withRefresh: true }
    const former = get(Model.logIn(state, login, 0))
    Model.removeDevices(state, alice.user, ["PHONE"])
    assert.strictEqual(refusal(Model.refresh(state, former.refreshToken!, 0)).errcode, "M_UNKNOWN_TOKEN")
    get(Model.logIn(state, login, 0))
    assert.strictEqual(refusal(Model.authenticate(state, former.accessToken, 0)).errcode, "M_UNKNOWN_TOKEN")
  })

  it("forgets a device with its queue on log-out", () => {
    const { state, alice } = makeWorld()
    Model.logOut(state, alice)
    get(
      Model.sendToDevice(state, alice, { type: "m.x", txnId: "1", messages: { [alice.user.userId]: { "*": {} } } }, 0)
    )
    assert.deepStrictEqual(Model.ledger(state, alice.user.userId, alice.device.deviceId), [])
  })
})

describe("HomeserverModel positions", () => {
  it("keeps an extension-only connection at position 0 for ever", () => {
    const { state, alice, bob } = makeWorld()
    const extensions = { toDevice: {}, e2ee: true as const }
    const first = get(sync(state, alice, { extensions }))
    assert.match(first.pos, /^0\//)
    get(sync(state, alice, { extensions }))
    get(sync(state, alice, { extensions, pos: first.pos }, 30 * 24 * 3_600_000))
    assert.strictEqual(refusal(sync(state, bob, { extensions, pos: "nonsense" })).errcode, "M_UNKNOWN")
  })

  it("doesn't know the position of somebody else's connection", () => {
    const { state, alice, bob } = makeWorld()
    Model.createRoom(state, alice.user, {}, 0)
    const { pos } = get(sync(state, alice, list(9)))
    assert.strictEqual(refusal(sync(state, bob, { ...list(9), pos })).errcode, "M_UNKNOWN_POS")
    assert.strictEqual(refusal(sync(state, alice, { ...list(9), pos, connId: "other" })).errcode, "M_UNKNOWN_POS")
    get(sync(state, alice, { ...list(9), pos }))
  })

  it("forgets a connection that rested for more than a week", () => {
    const { state, alice } = makeWorld()
    Model.createRoom(state, alice.user, {}, 0)
    const { pos } = get(sync(state, alice, list(9)))
    const next = get(sync(state, alice, { ...list(9), pos }, 1_000))
    const week = 7 * 24 * 3_600_000
    assert.strictEqual(
      refusal(sync(state, alice, { ...list(9), pos: next.pos }, week + 1_001)).errcode,
      "M_UNKNOWN_POS"
    )
  })

  it("ends a waiting request when another one takes its position away", () => {
    const { state, alice } = makeWorld()
    const room = Model.createRoom(state, alice.user, {}, 0)
    const { pos } = get(sync(state, alice, list(9)))
    const waiting = get(Model.SyncConnection.open(state, alice, request({ ...list(9), pos }), 0))
    get(Model.SyncConnection.answer(state, waiting, 0))
    say(state, alice, room.roomId, "news")
    const second = get(sync(state, alice, { ...list(9), pos }))
    get(sync(state, alice, { ...list(9), pos: second.pos }))
    assert.strictEqual(refusal(Model.SyncConnection.answer(state, waiting, 0)).errcode, "M_UNKNOWN_POS")
  })

  it("refuses more than 100 subscriptions and a to-device token that is no number", () => {
    const { state, alice } = makeWorld()
    const params = { requiredState: [], timelineLimit: 1 }
    const roomSubscriptions = Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`!${n}:x`, params]))
    assert.strictEqual(refusal(sync(state, alice, { roomSubscriptions })).errcode, "M_INVALID_PARAM")
    assert.strictEqual(
      refusal(sync(state, alice, { extensions: { toDevice: { since: "x" } } })).errcode,
      "M_INVALID_PARAM"
    )
  })
})

describe("HomeserverModel rooms", () => {
  it("continues a room that fell out of the window where it stopped", () => {
    const { state, alice } = makeWorld()
    const kitchen = Model.createRoom(state, alice.user, { name: "Kitchen" }, 0).roomId
    const first = get(sync(state, alice, list(0)))
    say(state, alice, kitchen, "seen")
    const second = get(sync(state, alice, { ...list(0), pos: first.pos }))
    const hall = Model.createRoom(state, alice.user, { name: "Hall" }, 0).roomId
    say(state, alice, kitchen, "missed")
    say(state, alice, hall, "on top")
    const third = get(sync(state, alice, { ...list(0), pos: second.pos }))
    assert.deepStrictEqual(
      third.rooms.map(({ roomId }) => roomId),
      [hall]
    )
    const fourth = get(sync(state, alice, { ...list(1), pos: third.pos }))
    assert.strictEqual(fourth.rooms.length, 1)
    assert.deepInclude(fourth.rooms[0], { roomId: kitchen, initial: false, limited: false, numLive: 0 })
    assert.deepStrictEqual(
      fourth.rooms[0]?.timeline.map(({ content }) => content.body),
      ["missed"]
    )
  })

  it("sends a lazily loaded member once, and again when he changes", () => {
    const { state, alice, bob } = makeWorld()
    const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
    get(Model.join(state, bob.user, roomId, 0))
    const membersIn = ({ rooms }: SyncResponse) =>
      rooms.flatMap((room) => room.requiredState.map((event) => event.state_key))
    const first = get(sync(state, alice, list(0)))
    say(state, bob, roomId, "1")
    const second = get(sync(state, alice, { ...list(0), pos: first.pos }))
    say(state, bob, roomId, "2")
    const third = get(sync(state, alice, { ...list(0), pos: second.pos }))
    get(Model.leave(state, bob.user, roomId, 0))
    const fourth = get(sync(state, alice, { ...list(0), pos: third.pos }))
    assert.include(membersIn(first), bob.user.userId)
    assert.deepStrictEqual([membersIn(second), membersIn(third), membersIn(fourth)], [[], [], [bob.user.userId]])
  })

  it("lists a room once more after leaving it, and keeps listing it after a kick", () => {
    const { state, alice, bob } = makeWorld()
    const make = () => {
      const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
      get(Model.join(state, bob.user, roomId, 0))
      return roomId
    }
    const left = make()
    const kicked = make()
    const first = get(sync(state, bob, list(9)))
    get(Model.leave(state, bob.user, left, 0))
    get(Model.setMember(state, alice.user, { roomId: kicked, target: bob.user.userId, membership: "leave" }, 0))
    const second = get(sync(state, bob, { ...list(9), pos: first.pos }))
    assert.sameMembers(
      second.rooms.map(({ roomId, membership }) => `${roomId} ${membership}`),
      [`${left} leave`, `${kicked} leave`]
    )
    say(state, alice, left, "without you")
    const third = get(sync(state, bob, { ...list(9), pos: second.pos }))
    assert.strictEqual(third.lists.all?.count, 1)
    assert.deepStrictEqual(third.rooms, [])
  })

  it("tells the device that sent an event its transaction id, and no other device", () => {
    const { state, alice } = makeWorld()
    const other = requester(state, "alice")
    const { roomId } = Model.createRoom(state, alice.user, {}, 0)
    say(state, alice, roomId, "mine")
    const transactionAt = (who: Model.Requester) => get(sync(state, who, list(0))).rooms[0]?.timeline.at(-1)?.unsigned
    assert.deepStrictEqual(transactionAt(alice), { transaction_id: "mine" })
    assert.isUndefined(transactionAt(other))
  })

  it("gives heroes to a room without a name, and null for a name that was removed", () => {
    const { state, alice, bob } = makeWorld()
    Model.setProfile(state, bob.user, { field: "displayname", value: "Bob" }, 0)
    const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
    const rename = (name: string) =>
      get(Model.send(state, alice, { roomId, type: "m.room.name", stateKey: "", content: { name } }, 0))
    const first = get(sync(state, alice, list(9)))
    assert.deepStrictEqual(first.rooms[0]?.heroes, [{ userId: bob.user.userId, displayName: "Bob" }])
    rename("Kitchen")
    const second = get(sync(state, alice, { ...list(9), pos: first.pos }))
    assert.strictEqual(second.rooms[0]?.name, "Kitchen")
    rename("")
    assert.isNull(get(sync(state, alice, { ...list(9), pos: second.pos })).rooms[0]?.name)
  })

  it("tells every joined room of a new profile, and no room of the same one again", () => {
    const { state, alice, bob } = makeWorld()
    const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
    Model.createRoom(state, bob.user, { invite: [alice.user.userId] }, 0)
    get(Model.join(state, bob.user, roomId, 0))
    const { pos } = get(sync(state, alice, list(9)))
    const setName = () => Model.setProfile(state, bob.user, { field: "displayname", value: "Bob" }, 1)
    setName()
    const { rooms, pos: next } = get(sync(state, alice, { ...list(9), pos }))
    assert.deepStrictEqual(
      rooms.map((room) => [room.roomId, room.timeline.map(({ content, state_key }) => [state_key, content])]),
      [[roomId, [[bob.user.userId, { membership: "join", displayname: "Bob" }]]]]
    )
    setName()
    assert.deepStrictEqual(get(sync(state, alice, { ...list(9), pos: next })).rooms, [])
  })

  it("filters lists and counts what passes", () => {
    const { state, alice, bob } = makeWorld()
    const plain = Model.createRoom(state, alice.user, {}, 0).roomId
    const space = Model.createRoom(state, alice.user, { creationContent: { type: "m.space" } }, 0).roomId
    const encrypted = Model.createRoom(
      state,
      alice.user,
      {
        initialState: [{ type: "m.room.encryption", stateKey: "", content: {} }]
      },
      0
    ).roomId
    const invited = Model.createRoom(state, bob.user, { invite: [alice.user.userId] }, 0).roomId
    get(Model.setAccountData(state, alice.user, { type: "m.direct", content: { "@b:x": [plain] } }))
    get(
      Model.setAccountData(state, alice.user, {
        type: "m.tag",
        content: { tags: { "m.favourite": {} } },
        roomId: plain
      })
    )
    get(Model.send(state, alice, { roomId: space, type: "m.space.child", stateKey: plain, content: { via: ["x"] } }, 0))
    const passing = (filters: ListFilters) => {
      const { rooms, lists } = get(sync(state, alice, list(9, filters)))
      assert.strictEqual(lists.all?.count, rooms.length)
      return new Set(rooms.map(({ roomId }) => roomId))
    }
    assert.deepStrictEqual(passing({}), new Set([plain, space, encrypted, invited]))
    assert.deepStrictEqual(passing({ isDm: true }), new Set([plain]))
    assert.deepStrictEqual(passing({ isInvite: true }), new Set([invited]))
    assert.deepStrictEqual(passing({ isEncrypted: true }), new Set([encrypted]))
    assert.deepStrictEqual(passing({ roomTypes: ["m.space"] }), new Set([space]))
    assert.deepStrictEqual(passing({ notRoomTypes: [null] }), new Set([space]))
    assert.deepStrictEqual(passing({ tags: ["m.favourite"] }), new Set([plain]))
    assert.deepStrictEqual(passing({ notTags: ["m.favourite"], isInvite: false }), new Set([space, encrypted]))
    assert.deepStrictEqual(passing({ spaces: [space] }), new Set([plain]))
  })

  it("pages back through history to its beginning, without a gap", () => {
    const { state, alice } = makeWorld()
    const { roomId } = Model.createRoom(state, alice.user, {}, 0)
    const sent = Array.from({ length: 7 }, (_, n) => say(state, alice, roomId, String(n)))
    const { rooms } = get(sync(state, alice, list(0)))
    const room = rooms[0]!
    let from: string | undefined = room.prevBatch!
    const ids = room.timeline.map(({ event_id }) => event_id)
    while (from !== undefined) {
      const page: { chunk: ReadonlyArray<{ event_id: string }>; end?: string } = get(
        Model.messages(alice, { roomId, dir: "b", from, limit: 2 })
      )
      ids.unshift(...page.chunk.map(({ event_id }) => event_id).reverse())
      from = page.end
    }
    assert.deepStrictEqual(ids.slice(-7), sent)
    assert.strictEqual(ids.length, state.rooms.get(roomId)?.timeline.length)
  })
})

describe("HomeserverModel extensions", () => {
  it("tells account data, receipts and typing once, and private receipts to their owner only", () => {
    const { state, alice, bob } = makeWorld()
    const { roomId } = Model.createRoom(state, alice.user, { invite: [bob.user.userId] }, 0)
    get(Model.join(state, bob.user, roomId, 0))
    const eventId = say(state, bob, roomId, "read me")
    const extensions = { accountData: true, receipts: true, typing: true } as const
    const first = get(sync(state, alice, { ...list(0), extensions }))
    assert.deepStrictEqual(
      first.extensions.accountData?.global.map(({ type }) => type),
      ["m.push_rules"]
    )
    get(Model.setAccountData(state, alice.user, { type: "m.fully_read", content: {}, roomId }))
    get(Model.setReceipt(state, bob, { roomId, type: "m.read", eventId }, 5))
    get(Model.setReceipt(state, bob, { roomId, type: "m.read.private", eventId }, 5))
    get(Model.setTyping(state, bob, { roomId, typing: true, timeoutMillis: 1_000 }, 0))
    const second = get(sync(state, alice, { ...list(0), extensions, pos: first.pos }))
    assert.deepStrictEqual(second.extensions, {
      accountData: { global: [], rooms: { [roomId]: [{ type: "m.fully_read", content: {} }] } },
      receipts: {
        [roomId]: { type: "m.receipt", content: { [eventId]: { "m.read": { [bob.user.userId]: { ts: 5 } } } } }
      },
      typing: { [roomId]: { type: "m.typing", content: { user_ids: [bob.user.userId] } } },
      unknown: {}
    })
    const third = get(sync(state, alice, { ...list(0), extensions, pos: second.pos }))
    assert.deepStrictEqual(third.extensions, {
      accountData: { global: [], rooms: {} },
      receipts: {},
      typing: {},
      unknown: {}
    })
  })

  it("says whose devices to look at, and whose no longer", () => {
    const { state, alice, bob } = makeWorld()
    const listsSince = (pos: string) =>
      get(sync(state, alice, { extensions: { e2ee: true }, pos })).extensions.e2ee?.deviceLists
    const posNow = () => get(sync(state, alice, { extensions: { e2ee: true } })).pos
    const upload = (key: string) => {
      const ids = { user_id: bob.user.userId, device_id: bob.device.deviceId }
      const device_keys = { ...ids, algorithms: [], keys: { "ed25519:D": key }, signatures: {} }
      get(Model.keys(state, bob, { kind: "upload", body: { device_keys } }))
    }
    const nothing = { changed: [], left: [] }
    const apart = posNow()
    upload("1")
    assert.deepStrictEqual(listsSince(apart), nothing, "they share no room")
    const { roomId } = Model.createRoom(state, alice.user, {}, 0)
    const before = posNow()
    const invitation = { roomId, target: bob.user.userId, membership: "invite" } as const
    get(Model.setMember(state, alice.user, invitation, 0))
    assert.deepStrictEqual(listsSince(before), { changed: [bob.user.userId], left: [] })
    const invited = posNow()
    get(Model.join(state, bob.user, roomId, 0))
    assert.deepStrictEqual(listsSince(invited), nothing, "he is known since he was invited")
    upload("2")
    assert.deepStrictEqual(listsSince(invited), { changed: [bob.user.userId], left: [] })
    const shared = posNow()
    get(Model.leave(state, bob.user, roomId, 0))
    assert.deepStrictEqual(listsSince(shared), { changed: [], left: [bob.user.userId] })
  })

  it("claims one-time keys in upload order, then the fallback key again and again", () => {
    const { state, alice, bob } = makeWorld()
    const body = {
      one_time_keys: {
        "signed_curve25519:B": { key: "1", signatures: {} },
        "signed_curve25519:A": { key: "2", signatures: {} }
      },
      fallback_keys: { "signed_curve25519:F": { key: "3", signatures: {}, fallback: true } }
    }
    get(Model.keys(state, alice, { kind: "upload", body }))
    const { userId } = alice.user
    const { deviceId } = alice.device
    const claim = () => {
      const claimed = get(
        Model.keys(state, bob, {
          kind: "claim",
          body: { one_time_keys: { [userId]: { [deviceId]: "signed_curve25519" } } }
        })
      )
      return Object.keys((claimed.one_time_keys as { [u: string]: { [d: string]: object } })[userId]![deviceId]!)
    }
    const unused = () => get(sync(state, alice, { extensions: { e2ee: true } })).extensions.e2ee?.unusedFallbackKeyTypes
    assert.deepStrictEqual([claim(), claim()], [["signed_curve25519:B"], ["signed_curve25519:A"]])
    assert.deepStrictEqual(unused(), ["signed_curve25519"])
    assert.deepStrictEqual([claim(), claim()], [["signed_curve25519:F"], ["signed_curve25519:F"]])
    assert.deepStrictEqual(unused(), [])
    assert.deepInclude(get(Model.keyReport(state, userId, deviceId)), {
      oneTimeKeys: { signed_curve25519: 0 },
      uploaded: 2,
      claimed: 2,
      fallbackUsed: 2
    })
  })

  it("counts the keys that a device made twice, refused or not", () => {
    const { state, alice, bob } = makeWorld()
    const { userId } = alice.user
    const { deviceId } = alice.device
    const upload = (key: string) =>
      Model.keys(state, alice, { kind: "upload", body: { one_time_keys: { "curve25519:A": key } } })
    const figures = () => {
      const { conflicts, reused } = get(Model.keyReport(state, userId, deviceId))
      return { conflicts, reused }
    }
    get(upload("first"))
    get(upload("first"))
    assert.deepStrictEqual(figures(), { conflicts: 0, reused: 0 })
    assert.include(refusal(upload("second")).message, "already exists")
    assert.deepStrictEqual(figures(), { conflicts: 1, reused: 0 })
    const body = { one_time_keys: { [userId]: { [deviceId]: "curve25519" } } }
    get(Model.keys(state, bob, { kind: "claim", body }))
    get(upload("second"))
    assert.deepStrictEqual(figures(), { conflicts: 1, reused: 1 })
    Model.removeDevices(state, alice.user, [deviceId])
    assert.strictEqual(refusal(Model.keyReport(state, userId, deviceId)).errcode, "M_NOT_FOUND")
  })

  it("I2: holds back what comes while it is told to, and loses none of it to an acknowledgement", () => {
    const { state, alice } = makeWorld()
    const target = { userId: alice.user.userId, deviceId: alice.device.deviceId, sender: "@x:x" }
    const send = (count: number) => get(Model.sendNumbered(state, { ...target, count }, 0))
    const toDevice = (since?: string) => {
      const extensions = { toDevice: { ...(since !== undefined && { since }) } }
      const { nextBatch, events } = get(sync(state, alice, { extensions })).extensions.toDevice!
      return { nextBatch, numbers: events.map(({ content }) => content.number) }
    }
    send(1)
    Model.hold(state, alice.device)
    send(2)
    Model.hold(state, alice.device)
    const held = toDevice()
    assert.deepStrictEqual(held.numbers, [1])
    assert.deepStrictEqual(toDevice(held.nextBatch).numbers, [])
    state.touched.clear()
    Model.release(state, alice)
    assert.isTrue(state.touched.has(alice.user.userId), "a poll that waits is answered")
    assert.deepStrictEqual(toDevice(toDevice(held.nextBatch).nextBatch).numbers, [])
    assert.deepStrictEqual(
      Model.ledger(state, target.userId, target.deviceId).map(({ deliveries }) => deliveries),
      [1, 1, 1]
    )
  })

  it("accepts a message once more when it is repeated", () => {
    const { state, alice } = makeWorld()
    const target = { userId: alice.user.userId, deviceId: alice.device.deviceId, sender: "@x:x" }
    get(Model.sendNumbered(state, { ...target, count: 2 }, 0))
    assert.strictEqual(Model.repeat(state, alice, 1, 7)?.number, 3)
    assert.isUndefined(Model.repeat(state, alice, 9, 7))
    const { events } = get(sync(state, alice, { extensions: { toDevice: {} } })).extensions.toDevice!
    assert.deepStrictEqual(
      events.map(({ content }) => content.number),
      [1, 2, 1]
    )
  })

  it("takes a since from the future for nothing", () => {
    const { state, alice } = makeWorld()
    get(
      Model.sendNumbered(
        state,
        { userId: alice.user.userId, deviceId: alice.device.deviceId, count: 2, sender: "@x:x" },
        0
      )
    )
    const { extensions } = get(sync(state, alice, { extensions: { toDevice: { since: "999999" } } }))
    assert.deepStrictEqual(extensions.toDevice, { nextBatch: "999999", events: [] })
    assert.strictEqual(get(sync(state, alice, { extensions: { toDevice: {} } })).extensions.toDevice?.events.length, 2)
  })

  it("I2: a client that stores before it acknowledges loses nothing and repeats nothing, whatever happens in between", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("send" as const), count: fc.integer({ min: 1, max: 150 }) }),
      fc.record({ kind: fc.constant("sync" as const), limit: fc.integer({ min: 1, max: 120 }), stored: fc.boolean() }),
      fc.record({ kind: fc.constant("noise" as const) })
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { state, alice } = makeWorld()
        const target = { userId: alice.user.userId, deviceId: alice.device.deviceId }
        const applied: Array<unknown> = []
        let since: string | undefined
        const exchange = (limit: number, stored: boolean) => {
          const toDevice = { limit, ...(since !== undefined && { since }) }
          const batch = get(sync(state, alice, { extensions: { toDevice } })).extensions.toDevice!
          // A client that dies before it has stored the batch asks with the old token again.
          if (!stored) return
          applied.push(...batch.events.map(({ content }) => content.number))
          since = batch.nextBatch
        }
        for (const step of steps) {
          if (step.kind === "send") get(Model.sendNumbered(state, { ...target, count: step.count, sender: "@x:x" }, 0))
          else if (step.kind === "sync") exchange(step.limit, step.stored)
          else Model.createRoom(state, alice.user, {}, 0)
        }
        const entries = Model.ledger(state, target.userId, target.deviceId)
        for (let batches = 0; batches <= entries.length / 100; batches++) exchange(100, true)
        assert.deepStrictEqual(
          applied,
          entries.map(({ number }) => number)
        )
        assert.isTrue(entries.every(({ deliveries }) => deliveries > 0))
      })
    )
  })
})

describe("HomeserverModel size", () => {
  it("serves 10 000 rooms and 100 000 to-device messages", { timeout: 20_000 }, () => {
    const { state, alice } = makeWorld()
    const rooms = Model.addRooms(state, alice.user, { count: 10_000 }, 0)
    let response = get(sync(state, alice, list(99)))
    for (let end = 199; end < 2_000; end += 100) response = get(sync(state, alice, { ...list(end), pos: response.pos }))
    assert.strictEqual(response.lists.all?.count, 10_000)
    response = get(sync(state, alice, { ...list(9_999), pos: response.pos }))
    assert.strictEqual(response.rooms.length, 8_000)
    for (let n = 0; n < 100; n++) {
      say(state, alice, rooms[n]!.roomId, String(n))
      response = get(sync(state, alice, { ...list(9_999), pos: response.pos }))
      assert.strictEqual(response.rooms.length, 1)
    }
    const target = { userId: alice.user.userId, deviceId: alice.device.deviceId }
    get(Model.sendNumbered(state, { ...target, count: 100_000, sender: "@x:x" }, 0))
    let since: string | undefined
    for (let batches = 0; batches < 1_000; batches++) {
      const toDevice = { ...(since !== undefined && { since }) }
      since = get(sync(state, alice, { connId: "e", extensions: { toDevice } })).extensions.toDevice?.nextBatch
    }
    assert.isTrue(Model.ledger(state, target.userId, target.deviceId).every(({ deliveries }) => deliveries === 1))
  })
})
