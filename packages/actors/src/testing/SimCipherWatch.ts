/**
 * Looks at encryption in a simulation: whether what was sent to the account can be read, and what it sent itself.
 *
 * Invariants: I2 (a key that was applied is kept; a one-time key is handed out once, and is never another one under the same
 * id; a message is sent once, and after its key), I5 (no key of the ratchet encrypts two messages, as it would if memory had
 * gone back), I9 (in the end everything can be read by everybody who should).
 *
 * Gotchas: what is only ever added to is looked at once.
 *
 * Not here: how the end-to-end machine is used (`SimCipher.ts`), notifications (`SimCheckers.ts`).
 */
import type { EventDecryptor, MatrixEvent } from "@twinloop/core"
import { HomeserverModel } from "@twinloop/core/testing"
import { Effect, Result } from "effect"
import type { TimelineItem } from "../Rooms.ts"
import { decryptorOf } from "./SimCipher.ts"
import { BOB, type Peer, type PeerMessage, plainOf } from "./SimPeer.ts"
import type { SimRecord } from "./SimRecord.ts"
import type { World } from "./Simulation.ts"

const DEVICE = "BOB"

/** A message that the application wants sent. */
interface Sending {
  readonly number: number
  readonly eventId?: string
}

export interface CipherWatch {
  /** Looks at what is new; `since` is the stored one. */
  look(since: number): Effect.Effect<void>
  /** Looks at everything once more: by now it can be read. */
  readonly lookAgain: Effect.Effect<void>
  /** What is wrong with a timeline as it is shown. */
  shown(name: string, items: ReadonlyArray<TimelineItem>): string | undefined
}

/** The key of the other user's device for what the account sends. */
interface HeldKey {
  readonly stream: number
  readonly firstIndex: number
}

/** An event of a room, and where it stands among all that happened at the homeserver. */
interface Sent {
  readonly event: MatrixEvent.TimelineEvent
  readonly stream: number
}

const bodyOf = (decryption: EventDecryptor.Decryption): unknown =>
  decryption._tag === "Decrypted" ? decryption.event.content.body : decryption.message

/** Begins to look, at a world in which nothing has happened. */
export const makeCipherWatch = (
  world: World,
  peer: Peer,
  record: SimRecord,
  sendings: ReadonlyArray<Sending>
): CipherWatch => {
  const { session, sim } = world
  const decryptor = decryptorOf(world)
  /** By room and session. */
  const held = new Map<string, HeldKey>()
  const ratchets = new Set<string>()
  /** By the message's number. */
  const sent = new Map<number, string>()
  const seen = new Map<string, number>()
  const unread = new Set<PeerMessage>()
  const confirmed = new Set<Sending>()
  let heldUpTo = 0
  let known = 0

  const takeKeys = (state: HomeserverModel.ModelState): void => {
    const ledger = HomeserverModel.ledger(state, BOB, DEVICE)
    for (; heldUpTo < ledger.length; heldUpTo++) {
      const entry = ledger[heldUpTo]
      if (entry?.type !== "m.room_key") continue
      const { room_id, session_id, session_key } = entry.content
      const name = `${String(room_id)} ${String(session_id)}`
      const firstIndex = Number(session_key)
      const before = held.get(name)
      if (before === undefined || firstIndex < before.firstIndex) held.set(name, { stream: entry.stream, firstIndex })
    }
  }

  /** Looks at a message of the account's. */
  const takeOwn = (roomId: string, { event, stream }: Sent): void => {
    const isEncrypted = event.type === "m.room.encrypted"
    const plain = isEncrypted ? plainOf(event) : undefined
    const body = String((plain?.content ?? event.content).body)
    const number = Number(/^out (\d+)$/.exec(body)?.[1])
    if (!Number.isNaN(number)) {
      const other = sent.get(number)
      record.check(
        "I2 sentOnce",
        other === undefined ? undefined : `"${body}" was sent twice: as ${other} and as ${event.event_id}`
      )
      sent.set(number, event.event_id)
    }
    if (plain === undefined) return
    const session = String(event.content.session_id)
    const ratchet = `${session} ${plain.index}`
    record.check(
      "I5 ratchetOnce",
      ratchets.has(ratchet) ? `two messages are encrypted with key ${session} at index ${plain.index}` : undefined
    )
    ratchets.add(ratchet)
    const key = held.get(`${roomId} ${session}`)
    record.check(
      "I2 keyBeforeMessage",
      key !== undefined && key.stream < stream && key.firstIndex <= plain.index
        ? undefined
        : `"${body}" was sent under key ${session} at index ${plain.index}, of which the other user's device has ${key === undefined ? "nothing" : `what follows from index ${key.firstIndex}`}`
    )
  }

  const takeEvents = (state: HomeserverModel.ModelState): void => {
    for (const [roomId, { timeline }] of state.rooms) {
      const from = seen.get(roomId) ?? 0
      for (const stored of timeline.slice(from)) if (stored.event.sender === session.userId) takeOwn(roomId, stored)
      seen.set(roomId, timeline.length)
    }
  }

  const checkKeys = (state: HomeserverModel.ModelState): void => {
    const report = Result.getOrThrow(HomeserverModel.keyReport(state, session.userId, session.deviceId))
    const { conflicts, reused } = report
    const [twice] = peer.violations
    record.check(
      "I2 oneTimeKeysOnce",
      twice ??
        (conflicts + reused > 0
          ? `ids of one-time keys were given to other keys: ${conflicts} uploads were refused, ${reused} were taken`
          : undefined)
    )
  }

  const checkSent = (): void => {
    for (const sending of sendings) {
      if (sending.eventId === undefined || confirmed.has(sending)) continue
      confirmed.add(sending)
      const there = sent.get(sending.number)
      record.check(
        "I2 sentIsThere",
        there === sending.eventId
          ? undefined
          : `message ${sending.number} was confirmed as ${sending.eventId}, and is ${there ?? "nowhere"}`
      )
    }
  }

  const checkReadable = Effect.fnUntraced(function* (message: PeerMessage) {
    const decryption = yield* Effect.orDie(decryptor.decrypt(message.roomId, message.event))
    const shown = bodyOf(decryption)
    record.check(
      "I2 keyIsKept",
      shown === message.body
        ? undefined
        : `the key ${message.key?.sessionId} of "${message.body}" was applied, and the message can't be read: ${String(shown)}`
    )
  })

  const look = Effect.fnUntraced(function* (since: number) {
    yield* sim.model((state) => {
      takeKeys(state)
      takeEvents(state)
      checkKeys(state)
    })
    checkSent()
    for (; known < peer.messages.length; known++) {
      const message = peer.messages[known]
      if (message?.key !== undefined) unread.add(message)
    }
    for (const message of unread) {
      if ((message.key?.stream ?? Infinity) > since) continue
      unread.delete(message)
      yield* checkReadable(message)
    }
  })

  return {
    look,
    lookAgain: Effect.gen(function* () {
      const encrypted = peer.messages.filter(({ key }) => key !== undefined)
      for (const message of encrypted) yield* checkReadable(message)
      record.check(
        "I9 keysCome",
        unread.size === 0 ? undefined : `${unread.size} messages wait for their keys, and all faults are over`
      )
    }),
    shown: (name, items) => {
      const dark = items.find((item) => item._tag === "Event" && item.decryption?._tag === "Undecryptable")
      return dark?._tag === "Event"
        ? `all faults are over, and ${name} shows ${dark.event.event_id} undecrypted: ${dark.decryption?._tag === "Undecryptable" ? dark.decryption.message : ""}`
        : undefined
    }
  }
}
