/**
 * Runs a homeserver model under Effect's `Clock`: every step at the current time, long polls that wait, and pushes that are
 * waited for.
 *
 * A poll waits until its user is touched, then asks the model again; it leaves when there is something to say or its time is
 * up. Interrupting it delivers nothing, as if the client had gone.
 *
 * Invariants: I8 (time comes from `Clock`, so `TestClock` drives it).
 *
 * Not here: faults (`HomeserverSim.ts`), HTTP (platform `DevHomeserver`).
 */
import { Clock, Effect, Result } from "effect"
import type { UserId } from "../../matrix/MatrixEvent.ts"
import type { SyncRequest, SyncResponse } from "../../matrix/SlidingSync.ts"
import { authenticate } from "./Accounts.ts"
import { make as makeModel, type ModelOptions, type ModelState, type Outcome, type Refusal } from "./ModelState.ts"
import type { Requester } from "./ModelState.ts"
import * as Pushes from "./Pushes.ts"
import type { Push, PushOwner } from "./Pushes.ts"
import * as SyncConnection from "./SyncConnection.ts"

/** A homeserver that runs. Failures are the model's refusals; there are no others. */
export interface HomeserverHost {
  /** Does one step on the model, and wakes the polls of whoever it concerns. */
  step<A>(f: (state: ModelState, nowMillis: number) => A): Effect.Effect<A>
  /** The same for a step that may be refused. */
  attempt<A>(f: (state: ModelState, nowMillis: number) => Outcome<A>): Effect.Effect<A, Refusal>
  /** The same on behalf of an access token's owner. */
  request<A>(
    accessToken: string | undefined,
    f: (state: ModelState, requester: Requester, nowMillis: number) => Outcome<A>
  ): Effect.Effect<A, Refusal>
  /** One sliding-sync request; waits as long as `timeoutMillis` when there is nothing to say. */
  sync(accessToken: string | undefined, request: SyncRequest): Effect.Effect<SyncResponse, Refusal>
  /**
   * Waits for something that a pusher has to send, of all pushers or of those whose owner `isWanted`, and takes it. Sending is
   * the caller's; afterwards the model is told by `pushAnswered` or `pushFailed`, and its pusher goes on.
   */
  takePush(isWanted?: (owner: PushOwner) => boolean): Effect.Effect<Push>
  /** How many polls wait for something to say. */
  readonly waitingPolls: Effect.Effect<number>
}

/** A host with a homeserver of its own. */
export const make = (options?: Partial<ModelOptions>): HomeserverHost => {
  const state = makeModel(options)
  const waiting = new Map<UserId, Set<() => void>>()

  const wakeTouched = (): void => {
    const touched = [...state.touched]
    state.touched.clear()
    for (const userId of touched) {
      const wakers = waiting.get(userId)
      // Taken out first: a woken poll may go on at once and wait again, and must not be woken again by the same step.
      waiting.delete(userId)
      wakers?.forEach((wake) => wake())
    }
  }

  const senders = new Set<() => void>()
  let pushVersion = state.pushVersion

  const wakeSenders = (): void => {
    if (pushVersion === state.pushVersion) return
    pushVersion = state.pushVersion
    const waking = [...senders]
    senders.clear()
    waking.forEach((wake) => wake())
  }

  const step: HomeserverHost["step"] = (f) =>
    Effect.map(Clock.currentTimeMillis, (nowMillis) => {
      const result = f(state, nowMillis)
      wakeTouched()
      wakeSenders()
      return result
    })

  const attempt: HomeserverHost["attempt"] = (f) => Effect.flatMap(step(f), Effect.fromResult)

  const request: HomeserverHost["request"] = (accessToken, f) =>
    attempt((state, nowMillis) =>
      Result.flatMap(authenticate(state, accessToken, nowMillis), (requester) => f(state, requester, nowMillis))
    )

  /** Ends when the user was touched after `version`. */
  const touchedAfter = (userId: UserId, version: number): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      if (state.users.get(userId)?.version !== version) return resume(Effect.void)
      const wakers = waiting.get(userId) ?? new Set()
      const wake = () => resume(Effect.void)
      waiting.set(userId, wakers.add(wake))
      return Effect.sync(() => wakers.delete(wake))
    })

  const sync = Effect.fnUntraced(function* (
    accessToken: string | undefined,
    syncRequest: SyncRequest
  ): Effect.fn.Return<SyncResponse, Refusal> {
    const poll = yield* request(accessToken, (state, requester, nowMillis) =>
      SyncConnection.open(state, requester, syncRequest, nowMillis)
    )
    const { user } = poll.requester
    const deadline = (yield* Clock.currentTimeMillis) + syncRequest.timeoutMillis
    while (true) {
      const version = user.version
      const [response, remainingMillis] = yield* attempt((state, nowMillis) =>
        Result.map(SyncConnection.answer(state, poll, nowMillis), (answer) =>
          SyncConnection.mustAnswer(poll, answer) || nowMillis >= deadline
            ? ([SyncConnection.deliver(state, poll, answer, nowMillis), 0] as const)
            : ([undefined, deadline - nowMillis] as const)
        )
      )
      if (response !== undefined) return response
      yield* Effect.timeoutOption(touchedAfter(user.userId, version), remainingMillis)
    }
  })

  /** Ends when a pusher may have something to send that it had not at `version`. */
  const pushesAfter = (version: number): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      if (state.pushVersion !== version) return resume(Effect.void)
      const wake = () => resume(Effect.void)
      senders.add(wake)
      return Effect.sync(() => senders.delete(wake))
    })

  const takePush: HomeserverHost["takePush"] = Effect.fnUntraced(function* (isWanted) {
    while (true) {
      const version = state.pushVersion
      const [next, nowMillis] = yield* step(
        (_, nowMillis) => [Pushes.takePush(state, nowMillis, isWanted), nowMillis] as const
      )
      if ("body" in next) return next
      const more = pushesAfter(version)
      yield* next.untilMillis === undefined ? more : Effect.timeoutOption(more, next.untilMillis - nowMillis)
    }
  })

  const waitingPolls = Effect.sync(() => [...waiting.values()].reduce((sum, wakers) => sum + wakers.size, 0))

  return { step, attempt, request, sync, takePush, waitingPolls }
}
