/**
 * `npm run conformance`: holds the dev homeserver and its clients against the Matrix specification's own schemas, and says how
 * much was judged.
 *
 * `--json` prints one line: whether all is `ok`, `routes` of the dev homeserver, how many of them are `specified` and `judged`, the others by what they
 * are (`beside`), `answers` by `statuses`, `requests` by client, and known `deviations`. The exit code is 1 when something is not
 * as the specification says, or a route was not judged.
 *
 * Not here: judging (`test/conformance/schemas`), which is part of `npm test`.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

interface Figures {
  readonly routes: number
  readonly specified: number
  readonly judged: number
  readonly beside: { readonly [why: string]: number }
  readonly answers: number
  readonly statuses: { readonly [status: string]: number }
  readonly requests: { readonly [client: string]: number }
  readonly deviations: ReadonlyArray<string>
}

const counts = (numbers: { readonly [name: string]: number }): string =>
  Object.entries(numbers)
    .map(([name, count]) => `${count} × ${name}`)
    .join(", ")

const text = ({ answers, beside, deviations, judged, requests, routes, specified, statuses }: Figures): string =>
  [
    `routes      ${judged} of ${specified} that the specification has were judged, of ${routes}`,
    `beside it   ${counts(beside)}`,
    `answers     ${answers}: ${counts(statuses)}`,
    `requests    ${counts(requests)}`,
    ...deviations.map((why) => `deviation   ${why}`),
    ""
  ].join("\n")

const isJson = process.argv.includes("--json")
const directory = mkdtempSync(join(tmpdir(), "twinloop-conformance-"))
const file = join(directory, "figures.json")
const { status } = spawnSync("vitest", ["run", "--project", "conformance"], {
  cwd: fileURLToPath(new URL("..", import.meta.url)),
  env: { ...process.env, TWINLOOP_CONFORMANCE_FIGURES: file },
  stdio: ["ignore", isJson ? 2 : "inherit", "inherit"]
})
if (existsSync(file)) {
  const figures = JSON.parse(readFileSync(file, "utf8")) as Figures
  process.stdout.write(isJson ? `${JSON.stringify({ ok: status === 0, ...figures })}\n` : text(figures))
}
rmSync(directory, { recursive: true })
process.exitCode = status === 0 ? 0 : 1
