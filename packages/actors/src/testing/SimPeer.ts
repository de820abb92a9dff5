/**
 * The other user of a simulation: his device takes keys and sends encrypted messages, and has no processes that could fail.
 *
 * He encrypts as the simulated cipher does. For each new key of a room he claims a one-time key of the account's device, as
 * for a new Olm session, and names it in the message that brings the room's key: so a key that the account has lost, or has
 * let be handed out twice, loses messages.
 *
 * Gotchas: no fault of the network meets him. What he sends is numbered like everything else in the device's queue.
 *
 * Not here: what the account's processes do with it (`SimProcesses.ts`), whether it can be read (`SimLook.ts`).
 */
import type { MatrixEvent } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect, Result } from "effect"
import { Base64 } from "effect/encoding"
import type { World } from "./Simulation.ts"

export const BOB = "@bob:localhost"
const DEVICE = "BOB"
const MEGOLM = "m.megolm.v1.aes-sha2"
/** How long he waits for one-time keys of a device that has none yet. */
const NO_KEYS_MILLIS = 2_000

/** A key under which he sends to a room. */
interface RoomKey {
  readonly roomId: string
  readonly sessionId: string
  /** Of the next message. */
  index: number
  /** Where it stands among what was sent to the device; absent until it was. */
  stream?: number
}

/** A message that he has sent. */
export interface PeerMessage {
  readonly roomId: string
  readonly eventId: string
  readonly event: MatrixEvent.TimelineEvent
  readonly body: string
  /** Absent of a message in the clear. */
  readonly key?: RoomKey
}

export interface PeerOptions {
  /** Under a key of its own. */
  readonly isNewKey: boolean
  /** How much later its key is sent; 0 for before. */
  readonly keyMillis: number
}

export interface Peer {
  /** Sends a message in the clear. */
  say(roomId: string, body: string): Effect.Effect<PeerMessage>
  /** Sends an encrypted one. */
  tell(roomId: string, body: string, options: PeerOptions): Effect.Effect<PeerMessage>
  /** Sends a to-device message that was sent before once more. */
  readonly repeat: Effect.Effect<boolean>
  readonly messages: ReadonlyArray<PeerMessage>
  /** What was wrong with one-time keys that he was given. */
  readonly violations: ReadonlyArray<string>
}

/** What a ciphertext of the simulated cipher says. */
export interface Plain {
  readonly index: number
  readonly room_id: string
  readonly type: string
  readonly content: MatrixEvent.JsonObject
}

const encode = (plain: Plain): string => Base64.encode(JSON.stringify(plain))

/** Reads a ciphertext without any key. */
export const plainOf = ({ content }: MatrixEvent.TimelineEvent): Plain =>
  JSON.parse(Result.getOrThrow(Base64.decodeString(String(content.ciphertext)))) as Plain

/** His device on the homeserver, with keys. */
export const makePeer = Effect.fnUntraced(function* (
  { session, sim }: World,
  later: (effect: Effect.Effect<unknown>) => Effect.Effect<void>
) {
  const bob = yield* sim.session("bob", DEVICE)
  const keys = new Map<string, RoomKey>()
  const messages: Array<PeerMessage> = []
  const violations: Array<string> = []
  const claimed = new Set<string>()
  let made = 0

  const ask = (kind: "upload" | "claim", body: MatrixEvent.JsonObject) =>
    sim.model((state, nowMillis) => {
      const requester = Result.getOrThrow(HomeserverModel.authenticate(state, bob.accessToken, nowMillis))
      return Result.getOrThrow(HomeserverModel.keys(state, requester, { kind, body }))
    })

  const publicKeys = { [`curve25519:${DEVICE}`]: "bob-curve25519", [`ed25519:${DEVICE}`]: "bob-ed25519" }
  const signatures = { [BOB]: { [`ed25519:${DEVICE}`]: "simulated" } }
  yield* ask("upload", {
    device_keys: { user_id: BOB, device_id: DEVICE, algorithms: [MEGOLM], keys: publicKeys, signatures },
    fallback_keys: { "signed_curve25519:FALLBACK": { key: "bob-fallback", fallback: true, signatures: {} } }
  })

  /** A one-time key of the account's device, or its fallback key; nothing while it has neither. */
  const claim = Effect.gen(function* () {
    const wanted = { [session.userId]: { [session.deviceId]: "signed_curve25519" } }
    const answer = yield* ask("claim", { one_time_keys: wanted })
    const byUser = answer.one_time_keys as { readonly [userId: string]: { readonly [deviceId: string]: object } }
    const [found] = Object.entries(byUser[session.userId]?.[session.deviceId] ?? {})
    if (found === undefined) return undefined
    const [id, { fallback, key }] = found as [string, { readonly key: string; readonly fallback?: boolean }]
    if (fallback === true) return {}
    if (claimed.has(key)) violations.push(`the one-time key ${id} (${key}) was handed out twice`)
    claimed.add(key)
    return { one_time_key: { id, key } }
  })

  const enqueue = (type: string, content: MatrixEvent.JsonObject) =>
    sim.model((state, nowMillis) => {
      const user = state.users.get(session.userId)
      const device = user?.devices.get(session.deviceId)
      if (user === undefined || device === undefined) return undefined
      const number = device.ledger.length + 1
      return HomeserverModel.enqueue(
        state,
        { user, device },
        { sender: BOB, type, content: { ...content, number } },
        nowMillis
      )
    })

  /** Sends a room's key, as soon as there is a one-time key to send it with. */
  const sendKey = (key: RoomKey): Effect.Effect<void> =>
    Effect.gen(function* () {
      if (key.stream !== undefined) return
      const named = yield* claim
      if (named === undefined) return yield* later(Effect.delay(sendKey(key), NO_KEYS_MILLIS))
      const { roomId, sessionId } = key
      const content = { algorithm: MEGOLM, room_id: roomId, session_id: sessionId, session_key: "0", ...named }
      const entry = yield* enqueue("m.room_key", content)
      if (entry !== undefined) key.stream = entry.stream
    })

  const send = Effect.fnUntraced(function* (
    roomId: string,
    body: string,
    event: { readonly type: string; readonly content: MatrixEvent.JsonObject },
    key?: RoomKey
  ) {
    const eventId = yield* sim.sendEvent(roomId, { ...event, sender: BOB })
    const sent: MatrixEvent.TimelineEvent = { ...event, event_id: eventId, sender: BOB, origin_server_ts: 0 }
    const message: PeerMessage = { roomId, eventId, event: sent, body, ...(key !== undefined && { key }) }
    messages.push(message)
    return message
  })

  const newKey = (roomId: string): RoomKey => {
    const key: RoomKey = { roomId, sessionId: `bob-${++made}`, index: 0 }
    keys.set(roomId, key)
    return key
  }

  const peer: Peer = {
    messages,
    violations,
    say: (roomId, body) => send(roomId, body, { type: "m.room.message", content: { msgtype: "m.text", body } }),
    tell: Effect.fnUntraced(function* (roomId, body, { isNewKey, keyMillis }) {
      const known = keys.get(roomId)
      const key = known === undefined || isNewKey ? newKey(roomId) : known
      if (keyMillis === 0) yield* sendKey(key)
      const content = { msgtype: "m.text", body }
      const plain = { index: key.index++, room_id: roomId, type: "m.room.message", content }
      const encrypted = {
        algorithm: MEGOLM,
        session_id: key.sessionId,
        device_id: DEVICE,
        sender_key: "bob-curve25519",
        ciphertext: encode(plain)
      }
      const message = yield* send(roomId, body, { type: "m.room.encrypted", content: encrypted }, key)
      if (keyMillis > 0) yield* later(Effect.delay(sendKey(key), keyMillis))
      return message
    }),
    repeat: sim.model((state, nowMillis) => {
      const user = state.users.get(session.userId)
      const device = user?.devices.get(session.deviceId)
      const entry = device?.ledger.findLast(({ content }) => typeof content === "object")
      if (user === undefined || device === undefined || entry === undefined) return false
      return HomeserverModel.repeat(state, { user, device }, entry.number, nowMillis) !== undefined
    })
  }
  return peer
})
