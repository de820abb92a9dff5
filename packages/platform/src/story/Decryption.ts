/**
 * What the account can read at the end: every message that was sent is decrypted with what its database and its key file hold.
 *
 * Messages come from the timelines in the database; those that a sliding sync has left out are asked of the homeserver.
 */
import { MainSync } from "@twinloop/actors"
import { EventDecryptor, Homeserver, type MatrixEvent, SyncStore } from "@twinloop/core"
import { Effect, Layer, Schedule } from "effect"
import * as OlmReader from "../crypto/OlmReader.ts"
import { StoreKey } from "../crypto/StoreKey.ts"
import * as NodeHomeserver from "../http/NodeHomeserver.ts"
import { RefreshLock } from "../http/RefreshLock.ts"
import type { AccountSession } from "../http/Session.ts"
import * as SessionStore from "../http/SessionStore.ts"
import * as Report from "./Report.ts"
import type { Message } from "./Sender.ts"
import { StoryError } from "./StoryError.ts"

/** Whose keys, and whose view of the rooms. */
export interface Account {
  readonly session: AccountSession
  readonly keyFile: string
  /** Role of the process whose timelines are read. */
  readonly role: string
}

/** More than the story writes to a room. */
const ENTRIES = 10_000

/** The reader over the database in scope, and the homeserver, past the gate. */
const layerReader = ({ keyFile, session }: Account) =>
  OlmReader.layer.pipe(
    Layer.provideMerge(
      NodeHomeserver.layer.pipe(
        Layer.provide(Layer.merge(SessionStore.layerMemory(session), RefreshLock.layerSingleProcess)),
        Layer.catch((error) => Layer.effect(Homeserver.Homeserver, new StoryError({ message: error.message })))
      )
    ),
    Layer.provide(StoreKey.layerFile(keyFile))
  )

/** The events of these messages as they were sent, by id, and how many of them the database lacks. */
const eventsOf = Effect.fnUntraced(function* (role: string, messages: ReadonlyArray<Message>) {
  const store = yield* SyncStore.SyncStore
  const homeserver = yield* Homeserver.Homeserver
  const events = new Map<MatrixEvent.EventId, MatrixEvent.TimelineEvent>()
  for (const roomId of new Set(messages.map((message) => message.roomId))) {
    for (const entry of yield* store.timeline({ connId: MainSync.connId(role), roomId, limit: ENTRIES })) {
      if (entry._tag === "Event") events.set(entry.event.event_id, entry.event)
    }
  }
  const missing = messages.filter(({ eventId }) => !events.has(eventId))
  for (const { eventId, roomId } of missing) {
    const { event } = yield* Effect.mapError(
      homeserver.eventContext(roomId, eventId),
      ({ message }) => new StoryError({ message: `asking for the message ${eventId}: ${message}` })
    )
    events.set(eventId, event)
  }
  return { events, fetched: missing.length }
})

/** Decrypts one message; gives its session, and why it isn't the text that was sent. */
const read = Effect.fnUntraced(function* ({ body, roomId }: Message, event: MatrixEvent.TimelineEvent) {
  const { decrypt } = yield* EventDecryptor.EventDecryptor
  const decryption = yield* Effect.mapError(
    decrypt(roomId, event),
    ({ message }) => new StoryError({ message: `decrypting the message ${event.event_id}: ${message}` })
  )
  if (decryption._tag === "Undecryptable") return { sessionId: decryption.sessionId, otherwise: decryption.reason }
  const { content, type } = decryption.event
  const isSame = type === "m.room.message" && content.body === body
  return { sessionId: decryption.sessionId, otherwise: isSame ? undefined : "OtherText" }
})

const tally = Effect.fnUntraced(function* (role: string, messages: ReadonlyArray<Message>) {
  const { events, fetched } = yield* eventsOf(role, messages)
  const sessions = new Set<string>()
  const otherwise: Array<string> = []
  for (const message of messages) {
    const found = yield* read(message, events.get(message.eventId)!)
    if (found.sessionId !== undefined) sessions.add(found.sessionId)
    if (found.otherwise !== undefined) otherwise.push(found.otherwise)
  }
  const counted: Report.Readable = {
    sent: messages.length,
    decrypted: messages.length - otherwise.length,
    undecrypted: otherwise.length,
    reasons: [...new Set(otherwise)],
    roomKeys: sessions.size,
    fetched
  }
  return counted
})

/** Counts what can be read by now, from the database in scope. */
export const count = (account: Account, messages: ReadonlyArray<Message>) =>
  Effect.provide(tally(account.role, messages), layerReader(account))

/** Waits until everything can be read, or the bound has passed: the last keys may still be on their way. */
export const settle = (account: Account, messages: ReadonlyArray<Message>) =>
  tally(account.role, messages).pipe(
    Effect.repeat({ until: ({ undecrypted }) => undecrypted === 0, schedule: Schedule.spaced("100 millis") }),
    Effect.timeoutOption(Report.bounds.lastEventMillis),
    Effect.asVoid,
    Effect.provide(layerReader(account))
  )
