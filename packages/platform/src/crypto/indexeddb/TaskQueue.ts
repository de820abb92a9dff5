/**
 * The order in which requests of IndexedDB are worked on: a task runs when all promises that the one before settled have
 * been heard.
 *
 * Invariants: one task at a time, first in first out, and all microtasks are done before the next.
 *
 * Gotchas:
 * - `process.nextTick` from a microtask runs once all microtasks are done, and costs a tenth of `setImmediate`, which goes
 *   through the event loop. The crypto engine makes hundreds of requests for a batch of events.
 * - Ticks alone would keep the event loop from turning for as long as requests follow one another. So the loop turns once
 *   when that has gone on for `turnMillis`.
 */

/** How long tasks may follow one another without letting the event loop turn: well below what anybody notices. */
const turnMillis = 5

interface Node {
  readonly task: () => void
  next: Node | undefined
}

let first: Node | undefined
let last: Node | undefined
let turnedAt = 0

const schedule = (): void => {
  if (performance.now() - turnedAt < turnMillis) queueMicrotask(afterMicrotasks)
  else setImmediate(turn)
}

const afterMicrotasks = (): void => process.nextTick(runFirst)

const turn = (): void => {
  turnedAt = performance.now()
  runFirst()
}

const runFirst = (): void => {
  const node = first!
  first = node.next
  if (first === undefined) last = undefined
  else schedule()
  node.task()
}

/** Runs a function when everything before it has been done. What it throws is uncaught. */
export const queueTask = (task: () => void): void => {
  const node: Node = { task, next: undefined }
  if (last === undefined) {
    first = node
    schedule()
  } else last.next = node
  last = node
}
