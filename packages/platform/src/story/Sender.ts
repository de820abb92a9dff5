/**
 * What the other user of the story sends: encrypted messages and numbered to-device events, and a record of what the
 * homeserver took.
 *
 * Events are numbered from 1 and sent one after the other, each again until it is accepted, under one transaction id: so the
 * order of acceptance is the order of the numbers, and none is skipped.
 */
import type { Homeserver, MatrixEvent } from "@twinloop/core"
import { Effect, Latch, Ref, Schedule } from "effect"
import type { Bob } from "./Bob.ts"

/** To-device event type of the story. */
export const TYPE = "org.twinloop.story.number"

/** A message that the homeserver accepted, and what it says. */
export interface Message {
  readonly roomId: MatrixEvent.RoomId
  readonly eventId: MatrixEvent.EventId
  readonly body: string
}

export interface Sent {
  /** The highest number that the homeserver accepted. */
  readonly toDevice: number
  /** Oldest first. */
  readonly messages: ReadonlyArray<Message>
}

export interface Sender {
  readonly sent: Effect.Effect<Sent>
  /** Sends until `finish`; ends when what was on its way has been accepted. */
  readonly sending: Effect.Effect<void>
  /** Lets it write messages, too: whoever shall read them must have published his keys first. */
  readonly write: Effect.Effect<void>
  /** Waits so many milliseconds between two to-device events from the next one on; messages take four times as long. */
  pace(pauseMillis: number): Effect.Effect<void>
  readonly finish: Effect.Effect<void>
}

interface Options {
  readonly bob: Bob
  readonly recipient: Homeserver.Session
  /** Where messages go, in turn. */
  readonly rooms: ReadonlyArray<string>
  /** As `pace` has it, at first. */
  readonly pauseMillis: number
}

const again = Schedule.spaced("100 millis")

/** Sends again, until the homeserver has accepted it. */
export const untilAccepted = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A> =>
  Effect.orDie(Effect.retry(effect, again))

/** Makes a sender that has sent nothing. */
export const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Sender> {
  const { bob, recipient } = options
  const sent = yield* Ref.make<Sent>({ toDevice: 0, messages: [] })
  const finished = yield* Ref.make(false)
  const writes = yield* Latch.make(false)

  const sendToDevice = (number: number) =>
    untilAccepted(
      bob.homeserver.sendToDevice({
        type: TYPE,
        txnId: `story-d${number}`,
        messages: { [recipient.userId]: { [recipient.deviceId]: { number } } }
      })
    ).pipe(Effect.andThen(Ref.update(sent, (all) => ({ ...all, toDevice: number }))))

  const sendMessage = Effect.fnUntraced(function* (number: number) {
    const roomId = options.rooms[number % options.rooms.length]
    if (roomId === undefined) return
    const body = `message ${number}`
    const eventId = yield* untilAccepted(bob.write({ roomId, txnId: `story-m${number}`, body }))
    yield* Ref.update(sent, (all) => ({ ...all, messages: [...all.messages, { roomId, eventId, body }] }))
  })

  const pause = yield* Ref.make(options.pauseMillis)
  const loop = (send: (number: number) => Effect.Effect<void>, times: number) =>
    Effect.gen(function* () {
      for (let number = 1; !(yield* Ref.get(finished)); number++) {
        yield* send(number)
        yield* Effect.sleep((yield* Ref.get(pause)) * times)
      }
    })
  const writing = Effect.andThen(writes.await, loop(sendMessage, 4))
  const sending = Effect.all([loop(sendToDevice, 1), writing], {
    concurrency: "unbounded",
    discard: true
  })
  return {
    sent: Ref.get(sent),
    sending,
    write: Effect.asVoid(writes.open),
    pace: (pauseMillis) => Ref.set(pause, pauseMillis),
    finish: Ref.set(finished, true)
  }
})
