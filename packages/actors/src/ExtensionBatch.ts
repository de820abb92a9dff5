/**
 * Applies one response of the extension stream: decrypt in memory, commit under the fence, then tell.
 *
 * For whoever owns the stream: the extension loop in the long run, a notification for a moment.
 *
 * Invariants: I1 and I2 (one fenced commit, against the position that was sent), I6 (the inbox is announced after it), I7.
 */
import { SyncStore } from "@twinloop/core"
import type { SlidingSync } from "@twinloop/core"
import { Effect } from "effect"
import type * as CryptoTurn from "./CryptoTurn.ts"
import * as Inbox from "./Inbox.ts"
import * as Metrics from "./Metrics.ts"

/** Makes a response durable; nothing of it is when this fails. */
export type Apply = (
  sent: SyncStore.ExtensionPosition,
  response: SlidingSync.SyncResponse
) => Effect.Effect<void, CryptoTurn.TurnError>

/** How this process applies responses, in turns of its end-to-end machine. */
export const make = Effect.fnUntraced(function* (
  turn: CryptoTurn.CryptoTurn["Service"]
): Effect.fn.Return<Apply, never, SyncStore.SyncStore | Inbox.Inbox> {
  const store = yield* SyncStore.SyncStore
  const inbox = yield* Inbox.Inbox
  return Effect.fnUntraced(function* (sent, response) {
    const { e2ee, toDevice } = response.extensions
    const since = toDevice?.nextBatch ?? sent.since
    const applied = yield* turn.commit(
      (engine, fence) =>
        engine.receive(fence, {
          toDevice: toDevice?.events ?? [],
          ...(e2ee === undefined ? {} : { e2ee }),
          fresh: sent.pos === undefined
        }),
      (fence, { news, value, writes }) => {
        const quarantined = [...response.quarantined, ...value.quarantined]
        const commit = store.commitExtension(fence, {
          ...(sent.since === undefined ? {} : { sentSince: sent.since }),
          position: { pos: response.pos, ...(since === undefined ? {} : { since }) },
          inbox: value.inbox,
          crypto: writes,
          news,
          quarantined
        })
        return Effect.map(commit, (entries) => ({ entries, quarantined: quarantined.length }))
      }
    )
    if (applied.entries.length > 0) yield* inbox.committed(applied.entries)
    yield* Metrics.applied(applied.entries.length, applied.quarantined)
  })
})
