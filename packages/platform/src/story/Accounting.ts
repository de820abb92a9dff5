/** Looks into the database: what is in the inbox, and whether the rooms have what was sent to them. */
import { MainSync } from "@twinloop/actors"
import { SyncStore } from "@twinloop/core"
import { Effect, Schedule } from "effect"
import * as MonotonicClock from "../cli/MonotonicClock.ts"
import * as Report from "./Report.ts"
import * as Sender from "./Sender.ts"

/** room → the last event that the homeserver accepted from the sender. */
type LastMessages = ReadonlyMap<string, string>

/** The last message to each room. */
export const lastMessages = (messages: ReadonlyArray<Sender.Message>): LastMessages =>
  new Map(messages.map(({ eventId, roomId }) => [roomId, eventId]))

/** The numbers in the inbox, in its order. */
export const inboxNumbers = Effect.gen(function* () {
  const store = yield* SyncStore.SyncStore
  const numbers: Array<number> = []
  let after = 0
  while (true) {
    const page = yield* store.readInbox({ after, limit: 1_000 })
    for (const { event, sequence, type } of page) {
      after = sequence
      if (type === Sender.TYPE) numbers.push(Number((event.content as { readonly number?: unknown }).number))
    }
    if (page.length === 0) return numbers
  }
})

/** Waits until everything that was accepted is in the inbox, or its bound has passed; gives how long it took. */
export const settle = Effect.fnUntraced(function* (sent: number) {
  const from = yield* MonotonicClock.nowMillis
  const complete = inboxNumbers.pipe(
    Effect.map((numbers) => numbers.length >= sent),
    Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("20 millis") })
  )
  yield* Effect.timeoutOption(complete, Report.bounds.lastEventMillis)
  return (yield* MonotonicClock.nowMillis) - from
})

/** How many rooms of a process don't have the last event that the homeserver accepted. */
const countBehind = Effect.fnUntraced(function* (role: string, last: LastMessages) {
  const store = yield* SyncStore.SyncStore
  const { rooms } = yield* store.loadMain(MainSync.connId(role))
  const latest = new Map(rooms.map((room) => [room.roomId, room.latestEvent?.event_id]))
  return [...last].filter(([roomId, eventId]) => latest.get(roomId) !== eventId).length
})

/** Waits until every room has its latest message, or the bound has passed; gives how many haven't. */
export const settleRooms = Effect.fnUntraced(function* (role: string, last: LastMessages) {
  const current = Effect.repeat(countBehind(role, last), {
    until: (behind) => behind === 0,
    schedule: Schedule.spaced("50 millis")
  })
  yield* Effect.timeoutOption(current, Report.bounds.lastEventMillis)
  return yield* countBehind(role, last)
})

/** How many rooms of a process are joined. */
export const countRooms = Effect.fnUntraced(function* (role: string) {
  const store = yield* SyncStore.SyncStore
  const { rooms } = yield* store.loadMain(MainSync.connId(role))
  return rooms.filter((room) => room.membership === "join").length
})
