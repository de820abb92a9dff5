import { assert, describe, it } from "@effect/vitest"
import { Console, Deferred, Effect } from "effect"
import { spawn } from "node:child_process"
import { appendFileSync, chmodSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as JsonLinesSink from "../../src/push/sinks/JsonLinesSink.ts"
import type { SinkRecord } from "../../src/push/sinks/SinkRecord.ts"
import { temporaryDirectory } from "../SqliteKit.ts"
import { isKnown, messageOf, notFound, sinkOf } from "./SinkKit.ts"

const setUp = Effect.gen(function* () {
  const file = join(yield* temporaryDirectory, "shown.jsonl")
  return { file, sink: yield* sinkOf(JsonLinesSink.layer({ file })) }
})

/** What a reader finds that skips what isn't JSON. */
const recordsIn = (file: string): ReadonlyArray<SinkRecord> =>
  readFileSync(file, "utf8")
    .split("\n")
    .flatMap((line) => {
      try {
        return line === "" ? [] : [JSON.parse(line) as SinkRecord]
      } catch {
        return []
      }
    })

const idsIn = (file: string): ReadonlyArray<string> => recordsIn(file).map(({ eventId }) => eventId)

/**
 * Starts the writer, and resolves with the ids that it has said when it ends. `onSaid` is told how many there are as they
 * come, and may kill it.
 */
const write = (file: string, count: number, onSaid: (ids: number, kill: () => void) => void) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const program = fileURLToPath(new URL("JsonLinesWriter.ts", import.meta.url))
    const child = spawn(process.execPath, [program, file, `${count}`], { stdio: ["ignore", "pipe", "inherit"] })
    const kill = (): void => void child.kill("SIGKILL")
    let said = ""
    child.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      onSaid(said.split("\n").length - 1, kill)
    })
    child.once("close", () => resume(Effect.succeed(said.split("\n").slice(0, -1))))
    return Effect.sync(kill)
  })

describe("JsonLinesSink", () => {
  it.effect("appends one object per notification, for this user alone", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      yield* sink.show(messageOf("$1", "one\ntwo\u202e\u001b"))
      yield* sink.show(notFound)
      const [first, second] = readFileSync(file, "utf8").trimEnd().split("\n")
      assert.deepStrictEqual(JSON.parse(first ?? ""), {
        at: "1970-01-01T00:00:00.000Z",
        roomId: "!kitchen:hs",
        eventId: "$1",
        result: "Event",
        kind: "message",
        title: "Kitchen",
        body: "Alice: one two",
        urgency: "normal",
        room: { roomId: "!kitchen:hs", name: "Kitchen", isEncrypted: false, isDirect: false },
        sender: { userId: "@alice:hs", name: "Alice", isNameAmbiguous: false },
        missing: [{ part: "pushRules", message: "They aren't known." }]
      })
      assert.deepStrictEqual(JSON.parse(second ?? ""), {
        at: "1970-01-01T00:00:00.000Z",
        roomId: "!kitchen:hs",
        eventId: "$gone",
        result: "NotFound",
        message: "The homeserver doesn't know it.",
        missing: []
      })
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    })
  )

  it.effect("knows what it has written, and not what merely mentions it", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      assert.isFalse(yield* isKnown(sink, "$1"))
      yield* sink.show(messageOf("$1"))
      appendFileSync(file, `${JSON.stringify({ roomId: "!kitchen:hs", eventId: "$4", title: "$2" })}\n`)
      appendFileSync(file, `${JSON.stringify({ roomId: "!hall:hs", eventId: "$3", body: "!kitchen:hs" })}\n`)
      assert.isTrue(yield* isKnown(yield* sinkOf(JsonLinesSink.layer({ file })), "$1"))
      assert.isFalse(yield* isKnown(sink, "$2"))
      assert.isFalse(yield* isKnown(sink, "$3"))
    })
  )

  it.effect("I7: takes a torn line for not shown, wherever it was torn, and ends it before the next", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      yield* sink.show(messageOf("$1"))
      const whole = statSync(file).size
      yield* sink.show(messageOf("$2"))
      const both = readFileSync(file)
      for (let size = whole + 1; size < both.length - 1; size += 1) {
        writeFileSync(file, both.subarray(0, size))
        assert.isFalse(yield* isKnown(sink, "$2"))
        yield* sink.show(messageOf("$2"))
        assert.deepStrictEqual(idsIn(file), ["$1", "$2"])
      }
    })
  )

  it.effect("takes a line that lacks nothing but its end for shown", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      yield* sink.show(messageOf("$1"))
      truncateSync(file, statSync(file).size - 1)
      assert.isTrue(yield* isKnown(sink, "$1"))
      yield* sink.show(messageOf("$2"))
      assert.deepStrictEqual(idsIn(file), ["$1", "$2"])
    })
  )

  it.effect("I10: looks back no further than it is told", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      yield* sink.show(messageOf("$1"))
      const size = statSync(file).size
      yield* sink.show(messageOf("$2"))
      const short = yield* sinkOf(JsonLinesSink.layer({ file, lookBack: size + 10 }))
      assert.isTrue(yield* isKnown(short, "$2"))
      assert.isFalse(yield* isKnown(short, "$1"))
    })
  )

  it.live("I7: loses nothing that it has said when its process is killed", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      const said = yield* write(file, 100_000, (ids, kill) => ids >= 5 && kill())
      assert.isAtLeast(said.length, 5)
      for (const id of said) assert.isTrue(yield* isKnown(sink, id))
      yield* sink.show(messageOf("$after"))
      assert.deepStrictEqual(idsIn(file).slice(0, said.length), said)
      assert.strictEqual(idsIn(file).at(-1), "$after")
    })
  )

  it.live("writes whole lines while another process does as well", () =>
    Effect.gen(function* () {
      const { file, sink } = yield* setUp
      const begun = yield* Deferred.make<void>()
      const there = write(file, 300, () => Deferred.doneUnsafe(begun, Effect.void))
      const here = Effect.forEach([...Array(100).keys()], (index) => sink.show(messageOf(`$here${index}`)), {
        concurrency: "unbounded"
      })
      const [said] = yield* Effect.all([there, Effect.andThen(Deferred.await(begun), here)], {
        concurrency: "unbounded"
      })
      assert.lengthOf(said, 300)
      const lines = readFileSync(file, "utf8").split("\n")
      assert.lengthOf(
        lines.filter((line) => line !== ""),
        400
      )
      assert.strictEqual(new Set(idsIn(file)).size, 400)
    })
  )

  it.effect("says which file can't be written, and why", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const missing = yield* sinkOf(JsonLinesSink.layer({ file: join(directory, "no", "such") }))
      const error = yield* Effect.flip(missing.show(messageOf("$1")))
      assert.deepInclude(error, { _tag: "SinkError", sink: "jsonl" })
      assert.match(error.message, /appended to .*no.such: ENOENT/)
      const file = join(directory, "unreadable")
      writeFileSync(file, "", { mode: 0o200 })
      chmodSync(file, 0o200)
      if (process.getuid?.() === 0) return
      const unreadable = yield* sinkOf(JsonLinesSink.layer({ file }))
      assert.match((yield* Effect.flip(isKnown(unreadable, "$1"))).message, /EACCES/)
    })
  )

  const full = "/dev/full"
  it.effect.skipIf(process.platform !== "linux")("fails where there is no room", () =>
    Effect.gen(function* () {
      const sink = yield* sinkOf(JsonLinesSink.layer({ file: full }))
      assert.match((yield* Effect.flip(sink.show(messageOf("$1")))).message, /ENOSPC/)
      assert.isFalse(yield* isKnown(sink, "$1"))
    })
  )

  it.effect("is standard output with a dash, which remembers nothing", () =>
    Effect.gen(function* () {
      const printed: Array<string> = []
      const console = { ...(yield* Console.Console), log: (text: unknown) => void printed.push(String(text)) }
      const sink = yield* sinkOf(JsonLinesSink.layer({ file: "-" }))
      yield* sink.show(messageOf("$1")).pipe(Effect.provideService(Console.Console, console))
      assert.strictEqual((JSON.parse(printed[0] ?? "") as SinkRecord).eventId, "$1")
      assert.isUndefined(sink.isKnown)
    })
  )
})
