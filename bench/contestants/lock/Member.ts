/**
 * What a process that takes locks does as it is told, whichever lock it has.
 *
 * Reads `turn NAME TURN HOLD` (one turn at a lock, held for so many milliseconds, or until the process ends),
 * `greedy NAME SEED` (turns of 100 to 1 000 ms, each right after the one before) and `usage`.
 *
 * Gotchas: each lock has a file of its own that starts it (`twinloop.ts`, `rustSdk.ts`), so that a process loads no other.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Seeded } from "../../data/Seeded.ts"
import { die, type Lock, obey, say, step, usage } from "./LockLine.ts"

/** Long enough for a hand-over to be over, and far below any time that a lock is held. */
const SAY_MILLIS = 20

const takeTurn = async (lock: Lock, name: string, turn: number, hold: () => Promise<unknown>): Promise<void> => {
  say(step("asked", name, turn))
  const release = await lock.take(name)
  say(step("taken", name, turn))
  await hold()
  const released = step("released", name, turn)
  await release()
  // Not at once: whoever is woken by the release may have to wait until this process does nothing.
  setTimeout(say, SAY_MILLIS, released)
}

const forever = (): Promise<never> => new Promise(() => {})

const beGreedy = async (lock: Lock, name: string, seed: number): Promise<void> => {
  const seeded = new Seeded(seed)
  for (let turn = 0; ; turn++) await takeTurn(lock, name, turn, () => sleep(100 + seeded.int(900)))
}

const command = async (lock: Lock, verb: string, [name = "", number = "", hold]: ReadonlyArray<string>) => {
  if (verb === "usage") say(usage())
  if (verb === "greedy") await beGreedy(lock, name, Number(number))
  if (verb === "turn")
    await takeTurn(lock, name, Number(number), hold === undefined ? forever : () => sleep(Number(hold)))
}

/** Obeys with a lock, once it is made. What fails ends the process loudly. */
export const run = (making: Promise<Lock>): void => {
  const fail = (error: unknown) => die(error instanceof Error ? `${error.stack}` : String(error))
  making.then((lock) => {
    obey((verb, args) => void command(lock, verb, args).catch(fail))
    say({ event: "ready" })
  }, fail)
}
