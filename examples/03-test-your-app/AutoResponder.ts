/**
 * Answers to-device pings of other devices, as a bot or a bridge would.
 *
 * It consumes the inbox under a name of its own, so it goes on where it stopped, in whichever process it runs next.
 *
 * Gotchas: the inbox gives an entry again when the process dies before the cursor has moved. The transaction id comes from
 * the entry's sequence number, so a repeated answer is the same answer to the homeserver (spec: "Transaction identifiers").
 */
import { Inbox } from "@twinloop/actors"
import { Homeserver, type HomeserverError, type StoreError, type SyncStore } from "@twinloop/core"
import { Effect, Schedule, Schema } from "effect"

export const PING = "org.example.ping"
export const PONG = "org.example.pong"
/** Name of the cursor in the inbox. */
export const CONSUMER = "auto-responder"

/** What a ping says: from which device it comes, and a text to send back. */
const Ping = Schema.Struct({ content: Schema.Struct({ device: Schema.NonEmptyString, text: Schema.String }) })

/** Without network an answer waits: 1 s, 2 s, 4 s, ... up to half a minute between two tries, with chance in it. */
const patience = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("30 seconds")]).pipe(Schedule.jittered)

const isPassing = ({ reason }: HomeserverError.HomeserverError): boolean =>
  reason._tag === "NetworkError" || reason._tag === "ServerError" || reason._tag === "RateLimited"

const answer = Effect.fnUntraced(function* (entry: SyncStore.InboxEntry) {
  if (entry.type !== PING) return
  const ping = Schema.decodeUnknownResult(Ping)(entry.event)
  if (ping._tag === "Failure") return yield* Effect.logWarning(`entry ${entry.sequence} is not a ping`)
  const { device, text } = ping.success.content
  const homeserver = yield* Homeserver.Homeserver
  yield* homeserver
    .sendToDevice({
      type: PONG,
      txnId: `pong-${entry.sequence}`,
      messages: { [entry.sender]: { [device]: { text } } }
    })
    .pipe(Effect.retry({ while: isPassing, schedule: patience }))
})

/** Answers until interrupted; ends only with an error that no retry helps. */
export const run: Effect.Effect<
  never,
  HomeserverError.HomeserverError | StoreError.StoreError,
  Inbox.Inbox | Homeserver.Homeserver
> = Effect.flatMap(Inbox.Inbox, (inbox) => inbox.consume(CONSUMER, answer))
