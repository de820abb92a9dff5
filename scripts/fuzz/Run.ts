/**
 * Runs inputs through the targets, and says which ones died or took long; each can be made again from the seed and its number.
 *
 * Not here: an input that never ends, which only another thread can see (`scripts/fuzz.ts`).
 */
import { Cause, Effect, Exit } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as StoryHomeserver from "../../packages/platform/src/story/StoryHomeserver.ts"
import * as Chance from "./Chance.ts"
import { mutated } from "./Mutations.ts"
import * as Targets from "./Targets.ts"

export interface Options {
  readonly seed: number
  readonly inputs: number
  /** The number of the first one; the others follow. */
  readonly first: number
  /** Whose answers are changed, besides those of the dev homeserver. */
  readonly homeserver: StoryHomeserver.Kind
}

/** An input at which a target died or took longer than it may. */
export interface Failure {
  readonly index: number
  readonly target: string
  readonly why: string
  /** The shortest text found that fails as well; its beginning, if it is long. */
  readonly input: string
}

export interface Outcome {
  readonly seed: number
  readonly homeserver: StoryHomeserver.Kind
  readonly inputs: number
  readonly failures: ReadonlyArray<Failure>
  /** Inputs of each target, and those that it took: the others were refused by a typed error. */
  readonly targets: { readonly [name: string]: { readonly inputs: number; readonly taken: number } }
  /** Inputs that took longer than `SLOW_MILLIS`. */
  readonly slow: number
  readonly slowest: { readonly index: number; readonly target: string; readonly millis: number }
}

const SLOW_MILLIS = 50
/** Far above what 64 KiB may cost on a busy machine, and far below what a loop notices. */
const LIMIT_MILLIS = 5_000
const SHRINKS = 300
const SHOWN = 2_000

interface Taken {
  readonly why: string | undefined
  readonly isTaken: boolean
  readonly millis: number
}

/** Gives the target a text, and says why it failed if it did. */
const take = async (target: Targets.Target, text: string, chance: Chance.Chance): Promise<Taken> => {
  const started = performance.now()
  const exit = await Effect.runPromiseExit(Effect.suspend(() => target.take(text, chance)))
  const millis = performance.now() - started
  const died = Exit.isFailure(exit) && !exit.cause.reasons.every(Cause.isFailReason)
  const why = died ? Cause.pretty(exit.cause) : millis > LIMIT_MILLIS ? `it took ${Math.round(millis)} ms` : undefined
  return { why, isTaken: Exit.isSuccess(exit), millis }
}

/** What is decided by chance after the text was made, once more for each shorter one. */
const after = ({ seed }: Options, index: number): Chance.Chance => Chance.of(seed ^ 0x5bd1e995, index)

/** Takes away what isn't needed to fail. */
const shrink = async (options: Options, index: number, target: Targets.Target, text: string): Promise<string> => {
  let best = text
  let tries = 0
  for (let size = Math.ceil(text.length / 2); size >= 1 && tries < SHRINKS; size = size > 1 ? Math.ceil(size / 2) : 0) {
    for (let at = 0; at < best.length && tries < SHRINKS; tries++) {
      const shorter = best.slice(0, at) + best.slice(at + size)
      const { why } = await take(target, shorter, after(options, index))
      if (why === undefined) at += size
      else best = shorter
    }
  }
  return best
}

interface Tally {
  readonly failures: Array<Failure>
  readonly targets: { [name: string]: { inputs: number; taken: number } }
  slow: number
  slowest: Outcome["slowest"]
}

/** Makes an input and gives it to its target. */
const runOne = async (options: Options, index: number, targets: ReadonlyArray<Targets.Target>, tally: Tally) => {
  const chance = Chance.of(options.seed, index)
  const target = Targets.choose(chance, targets)
  const text = mutated(chance, Chance.one(chance, target.seeds))
  const { isTaken, millis, why } = await take(target, text, after(options, index))
  const count = (tally.targets[target.name] ??= { inputs: 0, taken: 0 })
  count.inputs++
  if (isTaken) count.taken++
  if (millis > SLOW_MILLIS) tally.slow++
  if (millis > tally.slowest.millis) tally.slowest = { index, target: target.name, millis: Math.round(millis) }
  if (why === undefined) return
  const input = await shrink(options, index, target, text)
  tally.failures.push({ index, target: target.name, why, input: input.slice(0, SHOWN) })
}

/** Runs all inputs. `at` is told the number of each before it is run. */
export const run = async (options: Options, at: (index: number) => void): Promise<Outcome> => {
  const directory = mkdtempSync(join(tmpdir(), "twinloop-fuzz-"))
  const tally: Tally = { failures: [], targets: {}, slow: 0, slowest: { index: 0, target: "", millis: 0 } }
  const all = Effect.gen(function* () {
    const targets = yield* Targets.make(directory, options.homeserver)
    for (let index = options.first; index < options.first + options.inputs; index++) {
      at(index)
      yield* Effect.promise(() => runOne(options, index, targets, tally))
    }
  })
  try {
    await Effect.runPromise(Effect.scoped(all))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  const { homeserver, inputs, seed } = options
  return { seed, homeserver, inputs, ...tally }
}
