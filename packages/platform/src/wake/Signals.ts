/**
 * At most one signal that nobody has waited for yet; ends with the stream that brings them.
 *
 * Not a `Queue`: that resumes a waiter in another turn of the event loop, and a waiter for a lease is in a hurry.
 *
 * Invariants: I10.
 */
import { Effect } from "effect"

/** Signals of one watch, or of one listener. */
export class Signals {
  private isPending = false
  private isEnded = false
  private readonly waiters = new Set<(effect: Effect.Effect<boolean>) => void>()

  /** Wakes who waits, or is kept for who waits next. */
  offer(): void {
    const [first] = this.waiters
    if (first === undefined) this.isPending = true
    else this.resume(first, true)
  }

  /** There are no more; the one that is kept comes first. */
  end(): void {
    this.isEnded = true
    for (const waiter of this.waiters) this.resume(waiter, false)
  }

  private resume(waiter: (effect: Effect.Effect<boolean>) => void, isSignal: boolean): void {
    this.waiters.delete(waiter)
    waiter(Effect.succeed(isSignal))
  }

  /** Waits for the next signal; `false` when there is none to come. */
  readonly next: Effect.Effect<boolean> = Effect.callback((resume) => {
    if (this.isPending || this.isEnded) {
      const isSignal = this.isPending
      this.isPending = false
      return resume(Effect.succeed(isSignal))
    }
    this.waiters.add(resume)
    return Effect.sync(() => this.waiters.delete(resume))
  })
}
