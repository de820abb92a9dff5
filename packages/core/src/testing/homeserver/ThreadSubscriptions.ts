/**
 * Thread subscriptions of the homeserver model (MSC4306): which threads a user follows.
 *
 * Gotchas: they change no push rule and no sliding sync here; a client asks for them.
 *
 * Source: MSC4306; Synapse's `handlers/thread_subscriptions.py`.
 */
import { Result } from "effect"
import type { EventId, RoomId } from "../../matrix/MatrixEvent.ts"
import { objectAt } from "./JsonShape.ts"
import type { ModelState, Outcome, Requester, ThreadSubscription } from "./ModelState.ts"
import { nextStream, refuse } from "./ModelState.ts"
import { event } from "./RoomHistory.ts"

/** Which thread is meant. */
export interface ThreadId {
  readonly roomId: RoomId
  readonly threadRootId: EventId
}

const keyOf = ({ roomId, threadRootId }: ThreadId): string => `${roomId}\u0000${threadRootId}`

/** `M_NOT_FOUND` unless the user can see the event, also where reading the room would be forbidden. */
const visibleEvent = (requester: Requester, roomId: RoomId, eventId: EventId) =>
  Result.mapError(event(requester, roomId, eventId), (refusal) => ({ ...refusal, status: 404, errcode: "M_NOT_FOUND" }))

const known = (requester: Requester, thread: ThreadId): Outcome<ThreadSubscription | undefined> =>
  Result.map(visibleEvent(requester, thread.roomId, thread.threadRootId), () =>
    requester.user.threads.get(keyOf(thread))
  )

/** `GET …/subscription`; `M_NOT_FOUND` for a thread that the user doesn't follow. */
export const threadSubscription = (requester: Requester, thread: ThreadId): Outcome<{ readonly automatic: boolean }> =>
  Result.flatMap(known(requester, thread), (subscription) =>
    subscription === undefined || !subscription.isSubscribed
      ? refuse(404, "M_NOT_FOUND", "Not subscribed.")
      : Result.succeed({ automatic: subscription.automatic })
  )

/** Whether an event that made a client subscribe by itself may do so. */
const mayCause = (
  state: ModelState,
  requester: Requester,
  thread: ThreadId,
  causeId: EventId,
  before: ThreadSubscription | undefined
): Outcome<void> =>
  Result.flatMap(visibleEvent(requester, thread.roomId, causeId), (cause) => {
    const relation = objectAt(cause.content, "m.relates_to")
    if (relation.rel_type !== "m.thread" || relation.event_id !== thread.threadRootId)
      return refuse(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", "the event is not in the thread")
    const stream = state.events.get(causeId)?.stored.stream ?? 0
    return before !== undefined && !before.isSubscribed && stream <= before.stream
      ? refuse(409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", "the user has left the thread since the event")
      : Result.succeed(undefined)
  })

/** `PUT …/subscription`; `automatic` is the event for whose sake a client does it by itself, absent when the user does. */
export const subscribeToThread = (
  state: ModelState,
  requester: Requester,
  thread: ThreadId,
  automatic: EventId | undefined
): Outcome<void> =>
  Result.gen(function* () {
    const before = yield* known(requester, thread)
    if (automatic !== undefined) yield* mayCause(state, requester, thread, automatic, before)
    // What the user has decided by himself is not made automatic again.
    const isAutomatic = automatic !== undefined && (before?.isSubscribed !== true || before.automatic)
    requester.user.threads.set(keyOf(thread), {
      isSubscribed: true,
      automatic: isAutomatic,
      stream: nextStream(state)
    })
  })

/** `DELETE …/subscription` */
export const unsubscribeFromThread = (state: ModelState, requester: Requester, thread: ThreadId): Outcome<void> =>
  Result.map(known(requester, thread), () => {
    requester.user.threads.set(keyOf(thread), { isSubscribed: false, automatic: false, stream: nextStream(state) })
  })
