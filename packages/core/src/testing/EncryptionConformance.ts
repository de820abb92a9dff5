/**
 * What any homeserver must do for an end-to-end machine, as a suite against the `Homeserver` port and, for what the port
 * doesn't offer, raw requests: keys, cross-signing, device lists, devices that go, members.
 *
 * It runs over the dev homeserver by HTTP and over a real Synapse, so that a test against the one tells about the other. All
 * signatures in it are real ones, since Synapse verifies them.
 *
 * Not here: rooms, positions and the to-device queue (`SyncConformance.ts`).
 *
 * Needs `@effect/vitest`, an optional peer of this package.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Scope } from "effect"
import type { DeviceId, JsonObject, RoomId, UserId } from "../matrix/MatrixEvent.ts"
import type { E2eeUpdate, SyncResponse } from "../matrix/SlidingSync.ts"
import type { Homeserver, KeysRequest } from "../sync/Homeserver.ts"
import type { HomeserverError, HomeserverErrorReason, UserInteractiveAuth } from "../sync/HomeserverError.ts"
import { canonicalJson } from "./homeserver/CanonicalJson.ts"

type Client = Homeserver["Service"]

/** An Ed25519 key pair. Keys and signatures are unpadded Base64. */
export interface SigningKey {
  readonly publicKey: string
  sign(text: string): string
}

/** Two users without rooms and keys, each with a session of a new device, and what the port doesn't offer. */
export interface EncryptionHarness {
  readonly alice: Client
  readonly bob: Client
  /** The password of a client's user. */
  passwordOf(client: Client): string
  /** Logs a client's user in as a new device. */
  logIn(as: Client): Effect.Effect<Client, unknown, Scope.Scope>
  /** Any request with a client's token; any status is an answer. The path starts behind `/_matrix/client/v3`. */
  request(
    by: Client,
    request: { readonly method: "POST" | "PUT" | "DELETE"; readonly path: string; readonly body: JsonObject }
  ): Effect.Effect<{ readonly status: number; readonly json: JsonObject }, unknown>
  readonly newKey: Effect.Effect<SigningKey>
}

// --- asking

const ask = (client: Client, pos?: string, timeoutMillis = 0): Effect.Effect<SyncResponse, HomeserverError> =>
  client.sync({
    connId: "encryption",
    timeoutMillis,
    lists: {},
    roomSubscriptions: {},
    extensions: { toDevice: { limit: 100 }, e2ee: true },
    ...(pos !== undefined && { pos })
  })

const position = (client: Client): Effect.Effect<string, HomeserverError> => Effect.map(ask(client), ({ pos }) => pos)

const e2ee = (client: Client): Effect.Effect<E2eeUpdate, HomeserverError> =>
  Effect.map(ask(client), ({ extensions }) => extensions.e2ee ?? {})

type Lists = NonNullable<E2eeUpdate["deviceLists"]>

const listsSince = (client: Client, pos: string): Effect.Effect<Lists, HomeserverError> =>
  Effect.map(ask(client, pos), ({ extensions }) => extensions.e2ee?.deviceLists ?? { changed: [], left: [] })

const reasonOf = <A>(
  effect: Effect.Effect<A, HomeserverError>
): Effect.Effect<HomeserverErrorReason["_tag"] | "none"> =>
  Effect.match(effect, { onFailure: ({ reason }) => reason._tag, onSuccess: () => "none" as const })

const keysRequest = (client: Client, kind: KeysRequest["kind"], body: JsonObject) => client.keys({ kind, body })

interface Queried {
  readonly device_keys: { readonly [userId: UserId]: { readonly [deviceId: DeviceId]: JsonObject } }
  readonly master_keys: { readonly [userId: UserId]: JsonObject }
  readonly self_signing_keys: { readonly [userId: UserId]: JsonObject }
  readonly user_signing_keys: { readonly [userId: UserId]: JsonObject }
  readonly failures: JsonObject
}

const query = (client: Client, ...userIds: ReadonlyArray<UserId>): Effect.Effect<Queried, HomeserverError> =>
  Effect.map(
    keysRequest(client, "query", { device_keys: Object.fromEntries(userIds.map((userId) => [userId, []])) }),
    (json) => json as unknown as Queried
  )

const claim = ({ session: { userId, deviceId } }: Client, by: Client) =>
  Effect.map(
    keysRequest(by, "claim", { one_time_keys: { [userId]: { [deviceId]: "signed_curve25519" } } }),
    ({ one_time_keys }) =>
      Object.keys((one_time_keys as Queried["device_keys"])[userId]?.[deviceId] ?? {}).map((id) => id.split(":")[1])
  )

// --- keys

const oneTimeKeys = (keys: { readonly [id: string]: string }, signature = "s"): JsonObject =>
  Object.fromEntries(
    Object.entries(keys).map(([id, key]) => [
      `signed_curve25519:${id}`,
      { key, signatures: { "@somebody:localhost": { "ed25519:D": signature } } }
    ])
  )

const signed = (json: JsonObject, userId: UserId, keyId: string, key: SigningKey): JsonObject => {
  const { signatures, unsigned: _unsigned, ...rest } = json
  const others = (signatures ?? {}) as { readonly [userId: UserId]: JsonObject }
  const own = { ...others[userId], [keyId]: key.sign(canonicalJson(rest)) }
  return { ...rest, signatures: { ...others, [userId]: own } }
}

const deviceKeysOf = ({ session: { userId, deviceId } }: Client, key: SigningKey): JsonObject =>
  signed(
    {
      user_id: userId,
      device_id: deviceId,
      algorithms: ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
      keys: { [`curve25519:${deviceId}`]: key.publicKey, [`ed25519:${deviceId}`]: key.publicKey }
    },
    userId,
    `ed25519:${deviceId}`,
    key
  )

interface Identity {
  readonly body: JsonObject
  readonly master: SigningKey
  readonly selfSigning: SigningKey
  readonly userSigning: SigningKey
}

const identityOf = ({ session: { userId } }: Client, newKey: Effect.Effect<SigningKey>): Effect.Effect<Identity> =>
  Effect.gen(function* () {
    const [master, selfSigning, userSigning] = [yield* newKey, yield* newKey, yield* newKey]
    const key = (usage: string, { publicKey }: SigningKey) => ({
      user_id: userId,
      usage: [usage],
      keys: { [`ed25519:${publicKey}`]: publicKey }
    })
    const byMaster = (json: JsonObject) => signed(json, userId, `ed25519:${master.publicKey}`, master)
    const body = {
      master_key: key("master", master),
      self_signing_key: byMaster(key("self_signing", selfSigning)),
      user_signing_key: byMaster(key("user_signing", userSigning))
    }
    return { body, master, selfSigning, userSigning }
  })

const signaturesOf = (key: JsonObject | undefined, userId: UserId): ReadonlyArray<string> =>
  Object.keys(((key?.signatures ?? {}) as { readonly [userId: UserId]: JsonObject })[userId] ?? {})

// --- rooms and devices

const post = ({ request }: EncryptionHarness, by: Client, path: string, body: JsonObject = {}) =>
  Effect.map(request(by, { method: "POST", path, body }), ({ status, json }) => {
    assert.strictEqual(status, 200, `${path}: ${JSON.stringify(json)}`)
    return json
  })

const createRoom = (harness: EncryptionHarness, by: Client, ...invite: ReadonlyArray<Client>) =>
  Effect.map(
    post(harness, by, "/createRoom", { invite: invite.map(({ session }) => session.userId) }),
    ({ room_id }) => room_id as RoomId
  )

const inRoom = (harness: EncryptionHarness, roomId: RoomId) => {
  const act = (by: Client, action: string, target?: Client) =>
    post(
      harness,
      by,
      `/rooms/${encodeURIComponent(roomId)}/${action}`,
      target === undefined ? {} : { user_id: target.session.userId }
    )
  return {
    join: (by: Client) => act(by, "join"),
    leave: (by: Client) => act(by, "leave"),
    invite: (by: Client, target: Client) => act(by, "invite", target),
    kick: (by: Client, target: Client) => act(by, "kick", target),
    ban: (by: Client, target: Client) => act(by, "ban", target)
  }
}

const sharedRoom = (harness: EncryptionHarness) =>
  Effect.gen(function* () {
    const room = inRoom(harness, yield* createRoom(harness, harness.alice, harness.bob))
    yield* room.join(harness.bob)
    return room
  })

const passwordAuth = ({ passwordOf }: EncryptionHarness, client: Client, rest: JsonObject = {}): JsonObject => ({
  type: "m.login.password",
  identifier: { type: "m.id.user", user: client.session.userId },
  password: passwordOf(client),
  ...rest
})

const asksForAuth = <A>(effect: Effect.Effect<A, HomeserverError>): Effect.Effect<UserInteractiveAuth, A> =>
  Effect.map(Effect.flip(effect), ({ reason }) => {
    assert(reason._tag === "UserInteractiveAuth", `interactive authentication, and not ${reason.message}`)
    return reason
  })

/** Registers the suite. `makeHarness` is run once per test, in the test's scope, and gives users that nobody else uses. */
export const encryptionConformance = <E>(
  name: string,
  makeHarness: Effect.Effect<EncryptionHarness, E, Scope.Scope>,
  options: { readonly timeoutMillis?: number } = {}
): void => {
  const test = (
    title: string,
    body: (harness: EncryptionHarness) => Effect.Effect<void, unknown, Scope.Scope>
  ): void => {
    it.live(title, () => Effect.scoped(Effect.flatMap(makeHarness, body)), options.timeoutMillis ?? 30_000)
  }

  describe(`encryption conformance of ${name}: keys of devices`, () => {
    test(
      "gives them with the device's name, and tells who shares a room with it when either changes",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const { userId, deviceId } = bob.session
        yield* sharedRoom(harness)
        const key = yield* harness.newKey
        const before = yield* position(alice)
        const keys = deviceKeysOf(bob, key)
        yield* keysRequest(bob, "upload", { device_keys: keys })
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [userId], left: [] })
        const uploaded = yield* position(alice)
        yield* keysRequest(bob, "upload", { device_keys: keys })
        assert.deepStrictEqual(yield* listsSince(alice, uploaded), { changed: [], left: [] }, "nothing changed")
        yield* harness.request(bob, { method: "PUT", path: `/devices/${deviceId}`, body: { display_name: "Phone" } })
        assert.deepStrictEqual(yield* listsSince(alice, uploaded), { changed: [userId], left: [] })
        const { device_keys } = yield* query(alice, userId)
        assert.deepStrictEqual(device_keys, {
          [userId]: { [deviceId]: { ...keys, unsigned: { device_display_name: "Phone" } } }
        })
      })
    )

    test(
      "answers for every local user, and calls another homeserver a failure",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const unknown = "@nobody:localhost"
        const remote = "@somebody:elsewhere.test"
        const found = yield* query(alice, bob.session.userId, unknown, remote)
        assert.deepStrictEqual(found.device_keys, { [bob.session.userId]: {}, [unknown]: {} })
        assert.deepStrictEqual(Object.keys(found.failures), ["elsewhere.test"])
      })
    )

    test(
      "refuses the keys of another device and of another user",
      Effect.fnUntraced(function* ({ alice, bob, newKey }) {
        const key = yield* newKey
        const own = deviceKeysOf(alice, key)
        for (const device_keys of [{ ...own, device_id: "OTHER" }, { ...own, user_id: bob.session.userId }, {}, null])
          assert.strictEqual(yield* reasonOf(keysRequest(alice, "upload", { device_keys })), "BadRequest")
        assert.deepStrictEqual((yield* query(alice, alice.session.userId)).device_keys, { [alice.session.userId]: {} })
      })
    )

    test(
      "wakes a poll of who shares a room when a device gets its keys",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        yield* sharedRoom(harness)
        const key = yield* harness.newKey
        const pos = yield* position(alice)
        const poll = yield* Effect.forkChild(Effect.timeout(ask(alice, pos, 25_000), "20 seconds"))
        yield* keysRequest(bob, "upload", { device_keys: deviceKeysOf(bob, key) })
        const { extensions } = yield* Fiber.join(poll)
        assert.deepStrictEqual(extensions.e2ee?.deviceLists?.changed, [bob.session.userId])
      })
    )
  })

  describe(`encryption conformance of ${name}: one-time keys`, () => {
    test(
      "are taken again under other signatures, and refused under another value, then with all the others",
      Effect.fnUntraced(function* ({ alice, newKey }) {
        yield* keysRequest(alice, "upload", { one_time_keys: oneTimeKeys({ A: "1" }) })
        const again = { one_time_keys: oneTimeKeys({ A: "1", B: "2" }, "other") }
        assert.deepStrictEqual((yield* keysRequest(alice, "upload", again)).one_time_key_counts, {
          signed_curve25519: 2
        })
        const device_keys = deviceKeysOf(alice, yield* newKey)
        const conflict = { device_keys, one_time_keys: oneTimeKeys({ A: "other", C: "3" }) }
        const { reason } = yield* Effect.flip(keysRequest(alice, "upload", conflict))
        assert.deepInclude(reason, { _tag: "BadRequest", status: 400, errcode: "M_UNKNOWN" })
        assert.include(reason.message, "One time key signed_curve25519:A already exists.")
        assert.deepStrictEqual((yield* e2ee(alice)).oneTimeKeysCount, { signed_curve25519: 2 })
        // The device's own keys of the same request were taken before the conflict was found.
        const { userId, deviceId } = alice.session
        assert.deepStrictEqual(Object.keys((yield* query(alice, userId)).device_keys[userId]!), [deviceId])
      })
    )

    test(
      "are refused with a malformed id, without signatures, and when they are too many",
      Effect.fnUntraced(function* ({ alice }) {
        const key = { key: "1", signatures: {} }
        const many = Object.fromEntries(Array.from({ length: 501 }, (_, index) => [`K${index}`, `${index}`]))
        const refused = [{ bare: key }, { "signed_curve25519:A": { key: "1" } }, oneTimeKeys(many)]
        for (const one_time_keys of refused)
          assert.strictEqual(yield* reasonOf(keysRequest(alice, "upload", { one_time_keys })), "BadRequest")
        assert.deepStrictEqual((yield* e2ee(alice)).oneTimeKeysCount, { signed_curve25519: 0 })
      })
    )

    test(
      "are given once each, and their ids are free for other keys then",
      Effect.fnUntraced(function* ({ alice, bob }) {
        yield* keysRequest(alice, "upload", { one_time_keys: oneTimeKeys({ A: "1" }) })
        assert.deepStrictEqual(yield* claim(alice, bob), ["A"])
        assert.deepStrictEqual(yield* claim(alice, bob), [])
        yield* keysRequest(alice, "upload", { one_time_keys: oneTimeKeys({ A: "2" }) })
        assert.deepStrictEqual(yield* claim(alice, bob), ["A"])
      })
    )

    test(
      "are followed by the fallback key, again and again, which is used until there is another",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const fallback = (id: string) => ({ fallback_keys: oneTimeKeys({ [id]: id }) })
        const unused = Effect.map(e2ee(alice), ({ unusedFallbackKeyTypes }) => unusedFallbackKeyTypes)
        assert.deepStrictEqual(yield* unused, [])
        yield* keysRequest(alice, "upload", { one_time_keys: oneTimeKeys({ A: "1" }), ...fallback("F") })
        assert.deepStrictEqual(yield* claim(alice, bob), ["A"])
        assert.deepStrictEqual(yield* unused, ["signed_curve25519"])
        assert.deepStrictEqual([yield* claim(alice, bob), yield* claim(alice, bob)], [["F"], ["F"]])
        assert.deepStrictEqual(yield* unused, [])
        yield* keysRequest(alice, "upload", fallback("F"))
        assert.deepStrictEqual(yield* unused, [], "the same one again is as used as before")
        yield* keysRequest(alice, "upload", fallback("G"))
        assert.deepStrictEqual(yield* unused, ["signed_curve25519"])
        assert.deepStrictEqual(yield* claim(alice, bob), ["G"])
      })
    )

    test(
      "of a device that has none are none, and of another homeserver a failure",
      Effect.fnUntraced(function* ({ alice, bob }) {
        const algorithm = "signed_curve25519"
        const one_time_keys = {
          [bob.session.userId]: { [bob.session.deviceId]: algorithm, NOBODY: algorithm },
          "@nobody:localhost": { D: algorithm },
          "@somebody:elsewhere.test": { D: algorithm }
        }
        const claimed = yield* keysRequest(alice, "claim", { one_time_keys })
        assert.deepStrictEqual(claimed.one_time_keys, {})
        assert.deepStrictEqual(Object.keys(claimed.failures as JsonObject), ["elsewhere.test"])
      })
    )
  })

  describe(`encryption conformance of ${name}: cross-signing`, () => {
    test(
      "takes the first keys as they are, the same ones again, and others only from who says who he is",
      Effect.fnUntraced(function* (harness) {
        const { alice, newKey } = harness
        const { userId } = alice.session
        const first = yield* identityOf(alice, newKey)
        yield* keysRequest(alice, "deviceSigning", first.body)
        yield* keysRequest(alice, "deviceSigning", first.body)
        const { body } = yield* identityOf(alice, newKey)
        const asked = yield* asksForAuth(keysRequest(alice, "deviceSigning", body))
        assert.isDefined(asked.session)
        assert.deepStrictEqual(asked.flows, [{ stages: ["m.login.password"] }])
        assert.isUndefined(asked.errcode)
        const auth = passwordAuth(harness, alice, { session: asked.session })
        const wrong = { ...body, auth: { ...auth, password: "certainly wrong" } }
        const askedAgain = yield* asksForAuth(keysRequest(alice, "deviceSigning", wrong))
        assert.strictEqual(askedAgain.session, asked.session)
        assert.strictEqual(askedAgain.errcode, "M_FORBIDDEN")
        // The login is as valid as ever.
        assert.deepStrictEqual((yield* query(alice, userId)).master_keys[userId], first.body.master_key)
        yield* keysRequest(alice, "deviceSigning", { ...body, auth })
        assert.deepStrictEqual((yield* query(alice, userId)).master_keys[userId], body.master_key)
      })
    )

    test(
      "refuses keys without a master key, of another user, and without its signature",
      Effect.fnUntraced(function* ({ alice, bob, newKey }) {
        const { body } = yield* identityOf(alice, newKey)
        const others = yield* identityOf(bob, newKey)
        const { signatures: _signatures, ...unsigned } = body.self_signing_key as JsonObject
        const refused = [
          { self_signing_key: body.self_signing_key },
          { master_key: others.body.master_key },
          { ...body, self_signing_key: unsigned },
          { ...body, master_key: { ...(body.master_key as JsonObject), usage: ["self_signing"] } }
        ]
        for (const keys of refused)
          assert.strictEqual(yield* reasonOf(keysRequest(alice, "deviceSigning", keys)), "BadRequest")
        assert.deepStrictEqual((yield* query(alice, alice.session.userId)).master_keys, {})
      })
    )

    test(
      "shows keys to everybody, the user-signing key to its owner, and tells of them",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob, newKey } = harness
        const { userId } = alice.session
        yield* sharedRoom(harness)
        const before = yield* position(bob)
        const { body } = yield* identityOf(alice, newKey)
        yield* keysRequest(alice, "deviceSigning", body)
        assert.deepStrictEqual((yield* listsSince(bob, before)).changed, [userId])
        const own = yield* query(alice, userId)
        const others = yield* query(bob, userId)
        for (const { master_keys, self_signing_keys } of [own, others]) {
          assert.deepStrictEqual(master_keys, { [userId]: body.master_key })
          assert.deepStrictEqual(self_signing_keys, { [userId]: body.self_signing_key })
        }
        assert.deepStrictEqual(own.user_signing_keys, { [userId]: body.user_signing_key })
        assert.deepStrictEqual(others.user_signing_keys, {})
      })
    )

    test(
      "shows a device's signature to everybody, and a master key's to whoever made it",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob, newKey } = harness
        const { userId, deviceId } = alice.session
        yield* sharedRoom(harness)
        const deviceKey = yield* newKey
        const deviceKeys = deviceKeysOf(alice, deviceKey)
        yield* keysRequest(alice, "upload", { device_keys: deviceKeys })
        const { body, master, selfSigning } = yield* identityOf(alice, newKey)
        yield* keysRequest(alice, "deviceSigning", body)
        const masterKey = body.master_key as JsonObject
        const selfSigningId = `ed25519:${selfSigning.publicKey}`
        const before = yield* position(bob)
        const { failures } = yield* keysRequest(alice, "signatures", {
          [userId]: {
            [deviceId]: signed(deviceKeys, userId, selfSigningId, selfSigning),
            [master.publicKey]: signed(masterKey, userId, `ed25519:${deviceId}`, deviceKey)
          }
        })
        assert.deepStrictEqual(failures, {})
        assert.deepStrictEqual((yield* listsSince(bob, before)).changed, [userId])
        const own = yield* query(alice, userId)
        const others = yield* query(bob, userId)
        for (const { device_keys } of [own, others])
          assert.sameMembers(
            [...signaturesOf(device_keys[userId]?.[deviceId], userId)],
            [`ed25519:${deviceId}`, selfSigningId]
          )
        assert.deepStrictEqual(signaturesOf(own.master_keys[userId], userId), [`ed25519:${deviceId}`])
        assert.deepStrictEqual(signaturesOf(others.master_keys[userId], userId), [])
      })
    )

    test(
      "shows the signature of somebody else's master key to who made it, and tells him alone",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob, newKey } = harness
        const { userId } = alice.session
        yield* sharedRoom(harness)
        const { body, master } = yield* identityOf(alice, newKey)
        yield* keysRequest(alice, "deviceSigning", body)
        const bobs = yield* identityOf(bob, newKey)
        yield* keysRequest(bob, "deviceSigning", bobs.body)
        const [before, beforeBob] = [yield* position(alice), yield* position(bob)]
        const userSigningId = `ed25519:${bobs.userSigning.publicKey}`
        const signedMaster = signed(body.master_key as JsonObject, bob.session.userId, userSigningId, bobs.userSigning)
        const sent = { [userId]: { [master.publicKey]: signedMaster } }
        assert.deepStrictEqual((yield* keysRequest(bob, "signatures", sent)).failures, {})
        assert.deepStrictEqual((yield* listsSince(bob, beforeBob)).changed, [userId])
        assert.deepStrictEqual((yield* listsSince(alice, before)).changed, [])
        const shown = yield* query(bob, userId)
        assert.deepStrictEqual(signaturesOf(shown.master_keys[userId], bob.session.userId), [userSigningId])
        const own = yield* query(alice, userId)
        assert.deepStrictEqual(signaturesOf(own.master_keys[userId], bob.session.userId), [])
      })
    )

    test(
      "names the signatures that it can't take",
      Effect.fnUntraced(function* ({ alice, bob, newKey }) {
        const { userId, deviceId } = alice.session
        const deviceKeys = deviceKeysOf(alice, yield* newKey)
        yield* keysRequest(alice, "upload", { device_keys: deviceKeys })
        const failuresOf = (body: JsonObject) =>
          Effect.map(keysRequest(alice, "signatures", body), ({ failures }) =>
            Object.entries(failures as { readonly [userId: UserId]: JsonObject }).flatMap(([user, byKey]) =>
              Object.entries(byKey as { readonly [key: string]: { readonly errcode: string } }).map(
                ([key, { errcode }]) => `${user} ${key} ${errcode}`
              )
            )
          )
        const without = yield* failuresOf({ [userId]: { [deviceId]: deviceKeys } })
        assert.deepStrictEqual(without, [`${userId} ${deviceId} M_NOT_FOUND`], "there is no key to have signed it")
        const { body, selfSigning } = yield* identityOf(alice, newKey)
        yield* keysRequest(alice, "deviceSigning", body)
        const selfSigningId = `ed25519:${selfSigning.publicKey}`
        const signedDevice = signed(deviceKeys, userId, selfSigningId, selfSigning)
        const changed = signed({ ...deviceKeys, algorithms: [] }, userId, selfSigningId, selfSigning)
        assert.deepStrictEqual(yield* failuresOf({ [userId]: { [deviceId]: deviceKeys, OTHER: signedDevice } }), [
          `${userId} ${deviceId} M_INVALID_SIGNATURE`,
          `${userId} OTHER M_NOT_FOUND`
        ])
        assert.deepStrictEqual(yield* failuresOf({ [userId]: { [deviceId]: changed } }), [
          `${userId} ${deviceId} M_UNKNOWN`
        ])
        assert.deepStrictEqual(yield* failuresOf({ [bob.session.userId]: { KEY: body.master_key } }), [
          `${bob.session.userId} KEY M_NOT_FOUND`
        ])
      })
    )
  })

  describe(`encryption conformance of ${name}: devices`, () => {
    const vanishes = Effect.fnUntraced(function* (
      harness: EncryptionHarness,
      remove: (phone: Client) => Effect.Effect<unknown, unknown>
    ) {
      const { alice, bob, newKey } = harness
      const { userId } = alice.session
      yield* sharedRoom(harness)
      const phone = yield* harness.logIn(alice)
      const { deviceId } = phone.session
      yield* keysRequest(phone, "upload", { device_keys: deviceKeysOf(phone, yield* newKey) })
      assert.deepStrictEqual(Object.keys((yield* query(bob, userId)).device_keys[userId]!), [deviceId])
      const [before, beforeAlice] = [yield* position(bob), yield* position(alice)]
      yield* remove(phone)
      assert.deepStrictEqual((yield* query(bob, userId)).device_keys, { [userId]: {} })
      assert.deepStrictEqual(yield* listsSince(bob, before), { changed: [userId], left: [] })
      assert.deepStrictEqual(yield* listsSince(alice, beforeAlice), { changed: [userId], left: [] })
      assert.strictEqual(yield* reasonOf(ask(phone)), "Unauthorized")
    })

    test("vanish when they log out, and others are told", (harness) =>
      vanishes(harness, (phone) => post(harness, phone, "/logout")))

    const deletions = {
      "DELETE /devices/{deviceId}": ({ session: { deviceId } }: Client) =>
        ({ method: "DELETE", path: `/devices/${deviceId}`, body: {} }) as const,
      "POST /delete_devices": ({ session: { deviceId } }: Client) =>
        ({ method: "POST", path: "/delete_devices", body: { devices: [deviceId] } }) as const
    }
    for (const [endpoint, deletion] of Object.entries(deletions)) {
      test(`vanish by ${endpoint}, once the user has said who he is`, (harness) =>
        vanishes(
          harness,
          Effect.fnUntraced(function* (phone) {
            const { alice, bob, request } = harness
            const asked = deletion(phone)
            const first = yield* request(alice, asked)
            assert.strictEqual(first.status, 401)
            assert.deepStrictEqual(first.json.flows, [{ stages: ["m.login.password"] }])
            const { session } = first.json
            const answer = (auth: JsonObject) => request(alice, { ...asked, body: { ...asked.body, auth } })
            const wrong = yield* answer(passwordAuth(harness, alice, { session, password: "certainly wrong" }))
            assert.deepStrictEqual([wrong.status, wrong.json.errcode], [401, "M_FORBIDDEN"])
            assert.strictEqual((yield* answer({ session: "made up" })).status, 400)
            assert.strictEqual(yield* reasonOf(ask(phone)), "none", "it is still there")
            assert.strictEqual((yield* answer(passwordAuth(harness, bob))).status, 403)
            assert.strictEqual((yield* answer(passwordAuth(harness, alice, { session }))).status, 200)
          })
        ))
    }

    test(
      "aren't deleted by an authentication that was begun for something else",
      Effect.fnUntraced(function* (harness) {
        const { alice, request } = harness
        const phone = yield* harness.logIn(alice)
        const begun = yield* request(alice, deletions["DELETE /devices/{deviceId}"](phone))
        const asked = deletions["POST /delete_devices"](phone)
        const auth = passwordAuth(harness, alice, { session: begun.json.session })
        assert.strictEqual((yield* request(alice, { ...asked, body: { ...asked.body, auth } })).status, 403)
        assert.strictEqual(yield* reasonOf(ask(phone)), "none")
      })
    )

    test(
      "tell their owner's others when they come",
      Effect.fnUntraced(function* (harness) {
        const { alice } = harness
        const before = yield* position(alice)
        yield* harness.logIn(alice)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [alice.session.userId], left: [] })
      })
    )

    test(
      "all get what is sent to *, unless another is named beside it",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const phone = yield* harness.logIn(alice)
        const send = (txnId: string, byDevice: { readonly [deviceId: DeviceId]: JsonObject }) =>
          bob.sendToDevice({
            type: "org.twinloop.conformance",
            txnId,
            messages: { [alice.session.userId]: byDevice }
          })
        yield* send("t1", { "*": { n: 1 } })
        yield* send("t2", { "*": { n: 2 }, [phone.session.deviceId]: { n: 3 } })
        const received = (client: Client) =>
          Effect.map(ask(client), ({ extensions }) => extensions.toDevice?.events.map(({ content }) => content.n))
        assert.deepStrictEqual(yield* received(alice), [1])
        assert.deepStrictEqual(yield* received(phone), [1, 3])
      })
    )
  })

  describe(`encryption conformance of ${name}: whom one shares rooms with`, () => {
    test(
      "tells of who is invited, and not once more when he joins; and him of all who are there",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const [aliceId, bobId] = [alice.session.userId, bob.session.userId]
        const room = inRoom(harness, yield* createRoom(harness, alice))
        const [before, beforeBob] = [yield* position(alice), yield* position(bob)]
        yield* room.invite(alice, bob)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [bobId], left: [] })
        assert.deepStrictEqual(yield* listsSince(bob, beforeBob), { changed: [], left: [] })
        const invited = yield* position(alice)
        yield* room.join(bob)
        assert.deepStrictEqual(yield* listsSince(alice, invited), { changed: [], left: [] })
        const lists = yield* listsSince(bob, beforeBob)
        assert.deepStrictEqual([[...lists.changed].sort(), lists.left], [[aliceId, bobId].sort(), []])
      })
    )

    test(
      "tells each of the other when they share no room any more, and not before",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const [first, second] = [yield* sharedRoom(harness), yield* sharedRoom(harness)]
        const [before, beforeBob] = [yield* position(alice), yield* position(bob)]
        yield* first.leave(bob)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [], left: [] })
        assert.deepStrictEqual(yield* listsSince(bob, beforeBob), { changed: [], left: [] })
        yield* second.kick(alice, bob)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [], left: [bob.session.userId] })
        assert.deepStrictEqual(yield* listsSince(bob, beforeBob), { changed: [], left: [alice.session.userId] })
      })
    )

    test(
      "tells of who declines, and of who comes back",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const room = inRoom(harness, yield* createRoom(harness, alice, bob))
        const before = yield* position(alice)
        yield* room.leave(bob)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [], left: [bob.session.userId] })
        yield* room.invite(alice, bob)
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [bob.session.userId], left: [] })
      })
    )

    test(
      "doesn't tell of strangers' devices",
      Effect.fnUntraced(function* ({ alice, bob, newKey }) {
        const before = yield* position(alice)
        yield* keysRequest(bob, "upload", { device_keys: deviceKeysOf(bob, yield* newKey) })
        assert.deepStrictEqual(yield* listsSince(alice, before), { changed: [], left: [] })
      })
    )

    test(
      "names the members of a room that is encrypted by then, and nobody who went",
      Effect.fnUntraced(function* (harness) {
        const { alice, bob } = harness
        const roomId = yield* createRoom(harness, alice, bob)
        const room = inRoom(harness, roomId)
        const [aliceId, bobId] = [alice.session.userId, bob.session.userId]
        const state = {
          roomId,
          type: "m.room.encryption",
          stateKey: "",
          content: { algorithm: "m.megolm.v1.aes-sha2" }
        }
        const eventId = yield* alice.sendState(state)
        assert.strictEqual(yield* alice.sendState(state), eventId, "setting it again changes nothing")
        const { event } = yield* alice.eventContext(roomId, eventId)
        assert.deepInclude(event, { type: state.type, state_key: "", content: state.content })
        const members = () =>
          Effect.map(alice.members(roomId), (found) =>
            found.map(({ userId, membership }) => `${membership} ${userId}`).sort()
          )
        assert.deepStrictEqual(yield* members(), [`invite ${bobId}`, `join ${aliceId}`])
        assert.strictEqual(yield* reasonOf(bob.members(roomId)), "Forbidden", "he is invited only")
        yield* room.join(bob)
        assert.deepStrictEqual(yield* members(), [`join ${aliceId}`, `join ${bobId}`])
        yield* room.leave(bob)
        assert.deepStrictEqual(yield* members(), [`join ${aliceId}`])
        yield* room.ban(alice, bob)
        assert.deepStrictEqual(yield* members(), [`join ${aliceId}`])
        assert.strictEqual(yield* reasonOf(alice.members("!nowhere:localhost")), "Forbidden")
        assert.strictEqual(yield* reasonOf(bob.sendState(state)), "Forbidden")
      })
    )
  })
}
