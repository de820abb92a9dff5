/** A process of its own that appends notifications to a file, and says each event's id once it is shown. */
import { Effect } from "effect"
import * as JsonLinesSink from "../../src/push/sinks/JsonLinesSink.ts"
import { messageOf, sinkOf } from "./SinkKit.ts"

const [file = "", count = "0"] = process.argv.slice(2)

const writing = Effect.gen(function* () {
  const sink = yield* sinkOf(JsonLinesSink.layer({ file }))
  for (let index = 0; index < Number(count); index += 1) {
    yield* sink.show(messageOf(`$there${index}`))
    process.stdout.write(`$there${index}\n`)
  }
})

void Effect.runPromise(Effect.scoped(writing))
