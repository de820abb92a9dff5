import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import * as TerminalSink from "../../src/push/sinks/TerminalSink.ts"
import { messageOf, notFound, sinkOf } from "./SinkKit.ts"

const printedBy = (...bodies: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const printed: Array<string> = []
    const console = { ...(yield* Console.Console), log: (text: unknown) => void printed.push(String(text)) }
    const sink = yield* sinkOf(TerminalSink.layer)
    for (const body of bodies) {
      yield* sink.show(messageOf("$1", body)).pipe(Effect.provideService(Console.Console, console))
    }
    yield* sink.show(notFound).pipe(Effect.provideService(Console.Console, console))
    return printed
  })

describe("TerminalSink", () => {
  it.effect("says when, where and what in one line, and nothing where there is nothing", () =>
    Effect.gen(function* () {
      const printed = yield* printedBy("dinner\u001b[2J\r\n12:00:00  Bank  pay")
      assert.lengthOf(printed, 1)
      assert.match(`${printed[0]}`, /^\d\d:\d\d:\d\d {2}Kitchen {2}Alice: dinner\[2J 12:00:00 Bank pay$/)
    })
  )

  it.effect("gives a long body a line of its own", () =>
    Effect.gen(function* () {
      const [text] = yield* printedBy("a".repeat(2_000))
      assert.match(`${text}`, /^\d\d:\d\d:\d\d {2}Kitchen\n {10}Alice: a+…$/)
    })
  )
})
