/**
 * A homeserver on which matrix-rust-sdk and our client meet, what it tells of both, and how many messages they read of each
 * other.
 *
 * Gotchas: it is the dev homeserver, unless `TWINLOOP_RUST_ON` says `synapse`: what fails on the one alone is the one's fault.
 *
 * Not here: people and rooms (`ServiceKit.ts`), our client (`EncryptionKit.ts`), the other one (`RustSdk.ts`).
 */
import { NodeServices } from "@effect/platform-node"
import { assert } from "@effect/vitest"
import type { Rooms } from "@twinloop/actors"
import type { MatrixEvent } from "@twinloop/core"
import { Effect, Layer, Redacted } from "effect"
import type { TestContext } from "vitest"
import { Synapse } from "../../../packages/platform/src/synapse/Synapse.ts"
import * as EncryptionKit from "../../synapse/EncryptionKit.ts"
import * as NotificationKit from "../../synapse/NotificationKit.ts"
import * as Kit from "../../synapse/ServiceKit.ts"
import * as RustSdk from "./RustSdk.ts"

declare module "vitest" {
  interface TaskMeta {
    /** How many messages of the other side each has shown decrypted, each counted once. */
    readByRustSdk?: number
    readByTwinloop?: number
  }
}

/** Whether the homeserver is ours, and tells more than others do. */
export const isDev = process.env["TWINLOOP_RUST_ON"] !== "synapse"

/** For the names of suites. */
export const place = isDev ? "the dev homeserver" : "Synapse"

/** Longer than any test. */
const TOKEN_MILLIS = 3_600_000

/** A homeserver of its own for the tests of a file. */
export const homeserver = Layer.provideMerge(
  isDev ? NotificationKit.layerDev(TOKEN_MILLIS) : Synapse.layer({ config: { bcrypt_rounds: 4 } }),
  NodeServices.layer
)

/** A request to the dev homeserver's own endpoints. */
export const admin = Effect.fnUntraced(function* (method: "GET" | "POST", path: string, body?: Kit.Json) {
  const { request } = yield* Synapse
  const { json, status } = yield* request({ method, path: `/_twinloop/${path}`, ...(body !== undefined && { body }) })
  assert.strictEqual(status, 200, JSON.stringify(json))
  return json as Kit.Json
})

/** A device, named as the dev homeserver's own endpoints want it. */
export interface Device {
  readonly user_id: string
  readonly device_id: string
}

export const deviceOf = ({ session, userId }: Kit.Person): Device => ({
  user_id: userId,
  device_id: session.deviceId
})

const query = (device: Device): string => new URLSearchParams({ ...device }).toString()

/** Lets the homeserver forget the positions of a client. */
export const expire = Effect.fnUntraced(function* ({ session }: RustSdk.RustSdk) {
  const { access_token, device_id, user_id } = session
  if (isDev) return yield* Effect.asVoid(admin("POST", "expire", { user_id, device_id }))
  const { expirePosition } = yield* Synapse
  const accessToken = Redacted.make(access_token)
  yield* Effect.forEach(["room-list", "encryption"], (connId) => expirePosition({ accessToken }, connId))
})

/** How long the dev homeserver is away. */
const AWAY_MILLIS = 3_000

/** Does something while the homeserver is away. */
export const whileAway = Effect.fnUntraced(function* <A, R>(during: Effect.Effect<A, never, R>) {
  if (!isDev) return yield* Effect.flatMap(Synapse, ({ outage }) => Effect.orDie(outage(during)))
  yield* admin("POST", "unreachable", { millis: AWAY_MILLIS })
  return yield* during
})

/** What became of a device's keys, as `GET /_twinloop/keys` says it. */
export const keysOf = (device: Device) => admin("GET", `keys?${query(device)}`)

/** A to-device message, as `GET /_twinloop/ledger` tells of it. */
interface Entry {
  readonly type: string
  readonly deliveries: number
  readonly acknowledgedAtMillis?: number
}

/** The encrypted to-device messages that came for a device, oldest first. */
export const ledgerOf = (device: Device) =>
  Effect.map(admin("GET", `ledger?${query(device)}`), ({ entries }) =>
    (entries as ReadonlyArray<Entry>).filter(({ type }) => type === "m.room.encrypted")
  )

/** Anna with our client and Rita with matrix-rust-sdk, both shown an encrypted room that Anna made. */
export const pair = Effect.fnUntraced(function* (settings: Kit.Json = {}, options: Kit.Json = { name: "Cellar" }) {
  const [anna, rita] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Rita")]
  const roomId = yield* Kit.createJoined(anna, [rita], EncryptionKit.encrypted(settings, options))
  const account = yield* Kit.newAccount(anna)
  const ours = yield* EncryptionKit.run(account)
  yield* RustSdk.untilPublished(anna, anna.session.deviceId)
  const theirs = yield* RustSdk.logIn(rita)
  yield* RustSdk.start(theirs)
  yield* EncryptionKit.untilEncrypted(ours, roomId)
  yield* RustSdk.untilRoom(theirs, roomId, "encryption", ({ isEncrypted }) => isEncrypted)
  yield* RustSdk.open(theirs, roomId)
  // It can give us its keys only once it has heard of our device; ours asks when it sends.
  yield* RustSdk.untilKnows(theirs, anna)
  return { account, anna, ours, rita, theirs, roomId, timeline: yield* EncryptionKit.live(ours, roomId) }
})

export type Pair = Effect.Success<ReturnType<typeof pair>>

/** Waits until matrix-rust-sdk shows a message of ours decrypted, and counts it. */
export const readByRustSdk = Effect.fnUntraced(function* (
  { task }: TestContext,
  { anna, roomId, theirs }: Pick<Pair, "anna" | "roomId" | "theirs">,
  eventId: string,
  body: string
) {
  const { content, sender, senderDevice } = yield* RustSdk.untilMessage(theirs, roomId, eventId)
  assert.deepStrictEqual([content.body, sender, senderDevice], [body, anna.userId, anna.session.deviceId])
  task.meta.readByRustSdk = (task.meta.readByRustSdk ?? 0) + 1
})

const countByTwinloop = (
  { task }: TestContext,
  { rita, theirs }: Pick<Pair, "rita" | "theirs">,
  { decryption, event }: Rooms.ShownEvent,
  body: string
): void => {
  assert.deepStrictEqual([event.content["body"], event.sender], [body, rita.userId])
  assert(decryption?._tag === "Decrypted")
  assert.strictEqual(decryption.senderDevice, theirs.session.device_id)
  task.meta.readByTwinloop = (task.meta.readByTwinloop ?? 0) + 1
}

/** Waits until ours shows a message of matrix-rust-sdk decrypted, and counts it. */
export const readByTwinloop = Effect.fnUntraced(function* (
  context: TestContext,
  scene: Pick<Pair, "rita" | "theirs" | "timeline">,
  eventId: string,
  body: string
) {
  countByTwinloop(context, scene, yield* scene.timeline.decrypted(eventId), body)
})

/** The same for a message in a gap of the timeline, which an application gets from the homeserver. */
export const readInGapByTwinloop = Effect.fnUntraced(function* (
  context: TestContext,
  scene: Pick<Pair, "anna" | "ours" | "rita" | "roomId" | "theirs">,
  eventId: string,
  body: string
) {
  const { anna, ours, roomId } = scene
  const path = Kit.roomPath(roomId, `event/${encodeURIComponent(eventId)}`)
  const event = (yield* Kit.call(anna, "GET", path)) as unknown as MatrixEvent.TimelineEvent
  countByTwinloop(context, scene, yield* Effect.orDie(ours.conversations.show(roomId, event)), body)
})

/** The session that an event on the homeserver is encrypted with. */
export const sessionOf = Effect.fnUntraced(function* (by: Kit.Person, roomId: string, eventId: string) {
  const { content, type } = yield* Kit.call(by, "GET", Kit.roomPath(roomId, `event/${encodeURIComponent(eventId)}`))
  assert.strictEqual(type, "m.room.encrypted")
  return String((content as Kit.Json)["session_id"])
})
