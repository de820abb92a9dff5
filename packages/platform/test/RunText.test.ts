import { assert, describe, it } from "@effect/vitest"
import type { RunEvent } from "../src/cli/RunEvent.ts"
import * as RunText from "../src/cli/RunText.ts"

type State = Extract<RunEvent, { event: "state" }>
type Loop = State["main"]

const syncing: Loop = { _tag: "Syncing" }
const loading: Loop = { _tag: "Loading" }
const failing = (message: string, untilMillis: number): Loop => ({
  _tag: "BackingOff",
  failure: { class: "network", message },
  untilMillis
})

const state = (state: State["state"], main: Loop, extension: Loop): State => ({
  event: "state",
  atMillis: 0,
  state,
  main,
  extension
})

/** The lines that are printed for states, in order. */
const linesOf = (states: ReadonlyArray<State>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let printed = RunText.nothingPrinted
  for (const event of states) {
    const [next, said] = RunText.ofState(printed, event)
    printed = next
    if (said !== undefined) lines.push(said.isProgress ? `... ${said.text}` : said.text)
  }
  return lines
}

const refused = "GET /versions at http://hs got no answer (ECONNREFUSED)."

describe("RunText", () => {
  it("prints a state once, whatever the time of the next try is", () => {
    const states = [1, 2, 3].map((until) => state("Running", failing(refused, until), syncing))
    assert.deepStrictEqual(linesOf(states), [`running  main: trying again: ${refused}; extension: in sync`])
  })

  it("says where the key is, and how to treat it", () => {
    const event: RunEvent = { event: "encryption", atMillis: 0, keyFile: "a.db.key" }
    assert.strictEqual(
      RunText.line(event),
      "encrypted: the key to the end-to-end keys is in a.db.key; keep it with the database, as safe as a password"
    )
  })

  it("prints what both loops say once", () => {
    assert.deepStrictEqual(linesOf([state("Offline", failing(refused, 1), failing(refused, 2))]), [
      `offline  both loops: trying again: ${refused}`
    ])
  })

  it("says how far loading has come in place of what it said before, and then that it is done", () => {
    const page = (loaded: number): State => state("Running", { _tag: "Loading", loaded, total: 250 }, syncing)
    assert.deepStrictEqual(linesOf([state("Running", loading, syncing), ...[0, 20, 100, 200].map(page)]), [
      "running  main: loading; extension: in sync",
      "running  main: loading, 0 of 250 rooms; extension: in sync",
      "... running  main: loading, 20 of 250 rooms; extension: in sync",
      "... running  main: loading, 100 of 250 rooms; extension: in sync",
      "... running  main: loading, 200 of 250 rooms; extension: in sync"
    ])
    assert.deepStrictEqual(
      linesOf([page(200), state("Running", syncing, syncing)]).at(-1),
      "running  both loops: in sync"
    )
  })

  it("doesn't flood while it is offline, says a new reason, and what comes afterwards", () => {
    const tries = Array.from({ length: 50 }, (_, index) => [
      state("Offline", failing(refused, index), failing(refused, index)),
      state("Offline", loading, failing(refused, index)),
      state("Offline", loading, loading)
    ]).flat()
    const unknown = "the host name is not known"
    const back = state("Running", syncing, syncing)
    assert.deepStrictEqual(
      linesOf([...tries, state("Offline", failing(unknown, 1), loading), ...tries, back, ...tries]),
      [
        `offline  both loops: trying again: ${refused}`,
        `offline  main: trying again: ${unknown}; extension: loading`,
        "running  both loops: in sync",
        `offline  both loops: trying again: ${refused}`
      ]
    )
  })
})
