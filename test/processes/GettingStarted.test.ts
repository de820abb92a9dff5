/**
 * The guide "Getting started", followed to the letter: the commands of its section on trying out are read from the guide
 * and run, with nothing but the port, the directory and `--json` changed.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import type { RunEvent } from "../../packages/platform/src/cli/RunEvent.ts"
import * as Account from "./Account.ts"
import * as Program from "./Program.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

interface Listening {
  readonly event: "listening"
  readonly baseUrl: string
  readonly users: ReadonlyArray<{ readonly userId: string; readonly rooms: number; readonly login: string }>
}

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")
const guide = read("docs/guides/getting-started.md")

/** Lines of the guide that call a command of `twinloop`, in order. */
const lines = (command: string): ReadonlyArray<string> =>
  [...guide.matchAll(/^```sh\n([^]*?)^```$/gm)]
    .flatMap(([, block = ""]) => block.split("\n"))
    .filter((line) => line.includes(`npx twinloop ${command} `))

/** The one line that calls it for the account for trying out. */
const tryOut = (command: string): string => {
  const found = lines(command).filter((line) => command === "homeserver" || line.includes("--database try.db"))
  assert.lengthOf(found, 1, `the guide has one line for: twinloop ${command}`)
  return found[0]!
}

/** The arguments of a line, in another directory. */
const argsOf = (line: string, directory: string): ReadonlyArray<string> =>
  line
    .replace(/^.*npx twinloop /, "")
    .split(" ")
    .map((word) => (word === "try.db" ? join(directory, word) : word))

/** Runs a line of the guide to its end, with what it pipes in, and gives the JSON that it prints. */
const follow = Effect.fnUntraced(function* (line: string, directory: string) {
  const program = yield* Program.start<unknown>(Program.TWINLOOP, ...argsOf(line, directory), "--json")
  const said = /^echo (\S+) \| /.exec(line)?.[1]
  if (said !== undefined) yield* program.send(said)
  yield* program.endInput
  assert.strictEqual(yield* program.ended, 0, yield* program.errors)
  return (yield* program.lines)[0]
}, Effect.scoped)

describe("Getting started", () => {
  it("gives the same commands as the README", () => {
    const readme = read("README.md").split("\n")
    for (const command of ["homeserver", "login", "run"]) assert.include(readme, tryOut(command))
  })

  it.live("leads from a homeserver for trying out to an account in sync, and to its stop", () =>
    Effect.gen(function* () {
      const directory = dirname(yield* TemporaryDatabase.make)
      const port = argsOf(tryOut("homeserver"), directory).at(-1) ?? ""
      assert.strictEqual(tryOut("homeserver"), `npx twinloop homeserver --port ${port}`)
      const homeserver = yield* Program.start<Listening>(Program.TWINLOOP, "homeserver", "--port", "0", "--json")
      const { line: listening } = yield* homeserver.until("listen", ({ event }) => event === "listening")
      const [alice] = listening.users
      assert.deepInclude(alice, { userId: "@alice:localhost", rooms: 5 })

      // The guide's line is the one that the homeserver prints, but for the address and the database.
      const printed = (alice?.login ?? "").replace("| twinloop", "| npx twinloop")
      const login = tryOut("login").replace(`http://127.0.0.1:${port}`, listening.baseUrl)
      assert.strictEqual(login, `${printed} --database try.db`)
      assert.deepInclude(yield* follow(login, directory), { ok: true, userId: "@alice:localhost" })

      const args = [...argsOf(tryOut("run"), directory), "--json"]
      const running = yield* Program.start<RunEvent>(Program.TWINLOOP, ...args)
      yield* running.until("have the rooms", (event) => event.event === "rooms" && event.rooms === 5)
      yield* running.until("be in sync", Account.isLoaded)
      yield* running.until("own the stream", Account.owns)

      const [status] = (yield* follow(tryOut("status"), directory)) as ReadonlyArray<object>
      assert.deepInclude(status, { pid: running.pid, state: "running", rooms: 5, userId: "@alice:localhost" })
      const [stopped] = (yield* follow(tryOut("stop"), directory)) as ReadonlyArray<object>
      assert.deepInclude(stopped, { pid: running.pid, quiet: true })
      assert.strictEqual(yield* running.ended, 0)
      yield* homeserver.signal("SIGINT")
      assert.strictEqual(yield* homeserver.ended, 0)
    })
  )
})
