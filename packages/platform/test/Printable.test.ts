import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import * as fc from "fast-check"
import * as ExitCode from "../src/cli/ExitCode.ts"
import * as Output from "../src/cli/Output.ts"
import * as RunText from "../src/cli/RunText.ts"
import * as MatrixError from "../src/http/MatrixError.ts"
import * as Printable from "../src/Printable.ts"

/** Clears the screen, names the window, and starts a line that looks like ours. */
const evil = "\u001b[2J\u001b]0;owned\u0007\r\nidle  main: stopped\u009b31m\u202e"

const unprintable = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u

const harmful = /[\p{Cc}\u202a-\u202e]/u

describe("Printable", () => {
  it("leaves one line without a control character of whatever it is given", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        assert.notMatch(Printable.line(text), unprintable)
      })
    )
  })

  it("makes JSON of whatever it is given, in a line without one, and loses nothing", () => {
    const text = fc.string({ unit: "binary" })
    fc.assert(
      fc.property(fc.record({ text, texts: fc.array(text) }), (value) => {
        const json = Printable.json(value)
        assert.notMatch(json, unprintable)
        assert.deepStrictEqual(JSON.parse(json), value)
      })
    )
    assert.strictEqual(Printable.json({ text: "one\\\u2028two\u009b" }), '{"text":"one\\\\\\u2028two\\u009b"}')
  })

  it("leaves every other character as it is", () => {
    assert.strictEqual(Printable.line("@zoë:例え.jp 👩‍👩‍👧 שלום"), "@zoë:例え.jp 👩‍👩‍👧 שלום")
    assert.strictEqual(Printable.lines("one\ntwo\u001b"), "one\ntwo\\u001b")
  })
})

describe("Words of others on the terminal", () => {
  it("are harmless as type and sender of an event, and as the reason of a failure", () => {
    assert.notMatch(
      RunText.line({ event: "inbox", atMillis: 1, sequence: 1, type: evil, sender: `@${evil}`, encryption: "none" }),
      harmful
    )
    const failed = { _tag: "Failed", failure: { class: "server", message: evil } } as const
    assert.notMatch(
      RunText.line({ event: "state", atMillis: 1, state: "Terminal", main: failed, extension: { _tag: "Stopped" } }),
      harmful
    )
  })

  it("are harmless in what the homeserver gives as its reason", () => {
    const { message } = MatrixError.reasonOf({
      status: 400,
      headers: {},
      json: { errcode: evil, error: evil },
      posSent: false,
      request: "POST /sync at https://hs.test",
      nowMillis: 0
    })
    assert.notMatch(message, harmful)
  })

  it.effect("are harmless in a result and in a failure", () =>
    Effect.gen(function* () {
      const printed: Array<string> = []
      const print = (text: unknown): void => void printed.push(String(text))
      const recording = { ...(yield* Console.Console), log: print, error: print }
      yield* Output.result(false, {}, [`Logged in as ${evil}`]).pipe(
        Effect.andThen(Effect.flip(ExitCode.report(false)(new Error(evil)))),
        Effect.provideService(Console.Console, recording)
      )
      assert.lengthOf(printed, 2)
      for (const text of printed) assert.notMatch(text.replaceAll("\n", ""), harmful)
    })
  )
})
