/**
 * The other user of the story: keeps sending messages and numbered to-device events, and records what the homeserver took.
 *
 * Events are numbered from 1 and sent one after the other, each again until it is accepted, under one transaction id: so the
 * order of acceptance is the order of the numbers, and none is skipped.
 */
import type { Homeserver, HomeserverError } from "@twinloop/core"
import { Effect, Ref, Schedule } from "effect"

/** To-device event type of the story. */
export const TYPE = "org.twinloop.story.number"

export interface Sent {
  /** The highest number that the homeserver accepted. */
  readonly toDevice: number
  readonly messages: number
  /** room → the last event that the homeserver accepted from the sender. */
  readonly lastMessage: ReadonlyMap<string, string>
}

export interface Sender {
  readonly sent: Effect.Effect<Sent>
  /** Sends until `finish`; ends when what was on its way has been accepted. */
  readonly sending: Effect.Effect<void>
  readonly finish: Effect.Effect<void>
}

interface Options {
  readonly homeserver: Homeserver.Homeserver["Service"]
  readonly recipient: Homeserver.Session
  /** Where messages go, in turn. */
  readonly rooms: ReadonlyArray<string>
  /** Between two to-device events; messages take four times as long. */
  readonly pauseMillis: number
}

const again = Schedule.spaced("100 millis")

const untilAccepted = <A>(effect: Effect.Effect<A, HomeserverError.HomeserverError>): Effect.Effect<A> =>
  Effect.orDie(Effect.retry(effect, again))

/** Makes a sender that has sent nothing. */
export const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Sender> {
  const { homeserver, recipient } = options
  const sent = yield* Ref.make<Sent>({ toDevice: 0, messages: 0, lastMessage: new Map() })
  const finished = yield* Ref.make(false)

  const sendToDevice = (number: number) =>
    untilAccepted(
      homeserver.sendToDevice({
        type: TYPE,
        txnId: `story-d${number}`,
        messages: { [recipient.userId]: { [recipient.deviceId]: { number } } }
      })
    ).pipe(Effect.andThen(Ref.update(sent, (all) => ({ ...all, toDevice: number }))))

  const sendMessage = Effect.fnUntraced(function* (number: number) {
    const roomId = options.rooms[number % options.rooms.length]
    if (roomId === undefined) return
    const eventId = yield* untilAccepted(
      homeserver.sendEvent({
        roomId,
        type: "m.room.message",
        txnId: `story-m${number}`,
        content: { msgtype: "m.text", body: `message ${number}` }
      })
    )
    yield* Ref.update(sent, (all) => ({
      ...all,
      messages: all.messages + 1,
      lastMessage: new Map(all.lastMessage).set(roomId, eventId)
    }))
  })

  const loop = (send: (number: number) => Effect.Effect<void>, pauseMillis: number) =>
    Effect.gen(function* () {
      for (let number = 1; !(yield* Ref.get(finished)); number++) {
        yield* send(number)
        yield* Effect.sleep(pauseMillis)
      }
    })
  const sending = Effect.all([loop(sendToDevice, options.pauseMillis), loop(sendMessage, options.pauseMillis * 4)], {
    concurrency: "unbounded",
    discard: true
  })
  return { sent: Ref.get(sent), sending, finish: Ref.set(finished, true) }
})
