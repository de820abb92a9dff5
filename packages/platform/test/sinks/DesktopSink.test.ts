import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { createReadStream, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import * as DesktopSink from "../../src/push/sinks/DesktopSink.ts"
import { temporaryDirectory } from "../SqliteKit.ts"
import { messageOf, notFound, sinkOf } from "./SinkKit.ts"

/** Puts a script in the place of `notify-send`, in a directory of its own. */
const install = (script: string) =>
  Effect.map(temporaryDirectory, (path) => {
    const file = join(path, "notify-send")
    writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    return path
  })

describe("DesktopSink, with a simulated notify-send", () => {
  it.live("gives the words as they are, by arguments", () =>
    Effect.gen(function* () {
      const path = yield* install(`printf '%s\\0' "$@" > "$(dirname "$0")/args"`)
      const sink = yield* sinkOf(DesktopSink.layer({ appName: "Test", path: `relative:/nowhere:${path}` }))
      const body = `<b>&$(touch ${path}/owned)\`id\` "\\n" --help`
      yield* sink.show(messageOf("$1", body))
      assert.deepStrictEqual(readFileSync(join(path, "args"), "utf8").split("\0"), [
        "--app-name=Test",
        "--urgency=normal",
        "--",
        "Kitchen",
        `Alice: &lt;b&gt;&amp;$(touch ${path}/owned)\`id\` "\\\\n" --help`,
        ""
      ])
    })
  )

  it.live("repeats what it says when it fails, in one line", () =>
    Effect.gen(function* () {
      const path = yield* install("echo 'Cannot autolaunch D-Bus\nwithout X11' >&2; exit 1")
      const sink = yield* sinkOf(DesktopSink.layer({ path }))
      const error = yield* Effect.flip(sink.show(messageOf("$1")))
      assert.deepInclude(error, { _tag: "SinkError", sink: "desktop" })
      assert.match(error.message, /Cannot autolaunch D-Bus.*needs a desktop session/)
      assert.notInclude(error.message, "\n")
    })
  )

  // The time limit is below the sink's own, after which the program is ended anyway.
  it.live(
    "ends what it has started when it is interrupted",
    () =>
      Effect.gen(function* () {
        // The other end of a pipe that the program holds open for as long as it lives.
        const path = yield* install('exec 3> "$(dirname "$0")/alive"; echo started >&3; exec sleep 600')
        const pipe = join(path, "alive")
        execFileSync("mkfifo", [pipe])
        const sink = yield* sinkOf(DesktopSink.layer({ path }))
        const showing = yield* Effect.forkChild(sink.show(messageOf("$1")))
        const alive = createReadStream(pipe)
        const ended = once(alive, "end")
        yield* Effect.promise(() => once(alive, "data"))
        yield* Fiber.interrupt(showing)
        yield* Effect.promise(() => ended)
        assert.isTrue(alive.readableEnded)
      }),
    8_000
  )

  it.live("runs nothing where there is nothing to show", () =>
    Effect.gen(function* () {
      const path = yield* install("exit 1")
      yield* (yield* sinkOf(DesktopSink.layer({ path }))).show(notFound)
    })
  )

  it.live("says what to install where it isn't, or not where it may be", () =>
    Effect.gen(function* () {
      const path = yield* temporaryDirectory
      mkdirSync(join(path, "notify-send"))
      const inWorkingDirectory = relative(process.cwd(), yield* install(""))
      for (const wrong of [path, "", ".", inWorkingDirectory]) {
        const error = yield* Effect.flip(sinkOf(DesktopSink.layer({ path: wrong })))
        assert.strictEqual(error._tag, "SinkError")
        assert.include(error.message, "libnotify-bin")
      }
    })
  )
})
