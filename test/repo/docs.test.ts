/**
 * The documents say what is so: commands, paths, links, decisions and package exports that they name exist.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { SyncConfig } from "@twinloop/core"
import { Lifecycle } from "@twinloop/platform"
import * as Performance from "../../scripts/performance.ts"
import * as ExitCode from "../../packages/platform/src/cli/ExitCode.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const isInstalled = (path: string): boolean => /(^|\/)node_modules(\/|$)/.test(path)
const find = (pattern: string): ReadonlyArray<string> =>
  globSync(pattern, { cwd: root, exclude: (path) => isInstalled(path) }).filter((path) => !isInstalled(path))

/** The commands of `twinloop`; what a command has below it, such as `push enable`, is the file's own. */
const commands = (): ReadonlyArray<string> => {
  const code = find("packages/platform/src/cli/*Command{,s}.ts").map(read).join("\n")
  return [...code.matchAll(/export const \w+ = Command\.make\(\s*"([\w-]+)"/g)].map((match) => match[1] ?? "")
}

const toNumber = (text: string): number => Number(text.replaceAll("_", ""))

/** What `npm run bundle` and `npm run test:rust` make, which a fresh clone doesn't have. */
const MADE = ["packages/platform/dist/", "test/conformance/rust/target"]

const documents = find("**/*.md")
const sources = find("{packages,examples,test,bench,scripts}/**/*.{ts,js}")

interface Manifest {
  readonly name: string
  readonly scripts?: { readonly [name: string]: string }
  readonly bin?: { readonly [name: string]: string }
  readonly exports?: { readonly [path: string]: { readonly types: string; readonly default: string } }
}
const manifest = (path: string) => JSON.parse(read(path)) as Manifest

describe("README and CONTRIBUTING", () => {
  it("name only commands that exist", () => {
    const scripts = Object.keys(manifest("package.json").scripts ?? {})
    for (const path of ["README.md", "CONTRIBUTING.md"]) {
      const named = [...read(path).matchAll(/\bnpm (?:run ([\w:-]+)|(start|test)\b)/g)].map((m) => m[1] ?? m[2] ?? "")
      assert.isAbove(named.length, 0)
      for (const script of named) assert.include(scripts, script, `${path} names a script that package.json lacks`)
    }
  })

  it("have the two commands that a newcomer needs, on lines of their own", () => {
    const lines = read("README.md").split("\n")
    assert.include(lines, "npm ci && npm start")
    assert.include(lines, "npm ci && npm test")
  })

  it("promise each invariant", () => {
    for (let n = 1; n <= 10; n++) assert.match(read("README.md"), new RegExp(`\\*\\*I${n} `))
  })
})

describe("README", () => {
  const text = read("README.md")

  it("lists the exit codes that there are, each once", () => {
    const section = text.slice(text.indexOf("## Exit codes"))
    const listed = [...section.matchAll(/^\| (\d+) \|/gm)].map((match) => Number(match[1]))
    assert.deepStrictEqual(listed, [...Object.values(ExitCode.exitCodes), ...Object.values(Lifecycle.exitCodes)])
  })

  it("leads to every guide and reference page", () => {
    const pages = find("docs/{guides,reference}/*.md")
    assert.isAbove(pages.length, 5)
    for (const page of pages) assert.include(text, `](${page})`)
  })
})

describe("docs/reference", () => {
  it("gives every value of SyncConfig with its default", () => {
    const rows = read("docs/reference/configuration.md").matchAll(/^\| `(\w+)` \| `([^`]+)` \| \S/gm)
    const documented = [...rows].map(([, name = "", value = ""]) => [
      name,
      /^[\d_]+$/.test(value) ? toNumber(value) : value
    ])
    assert.deepStrictEqual(Object.fromEntries(documented), { ...SyncConfig.defaults })
  })

  it("explains every typed error, and none that there isn't", () => {
    const defined = find("packages/*/src/**/*.ts")
      .filter((path) => !path.includes("/testing/"))
      .flatMap((path) =>
        [...read(path).matchAll(/class (\w+) extends Schema\.TaggedError</g)].map((match) => match[1] ?? "")
      )
    const text = read("docs/reference/errors.md")
    const [explained = "", classes = ""] = text.split("## What a loop does about it")
    const named = [
      ...[...explained.matchAll(/^## (\w+Error)$/gm)].map((match) => match[1] ?? ""),
      ...[...explained.matchAll(/^\| `(\w+)` \| \S/gm)].map((match) => match[1] ?? "")
    ]
    assert.deepStrictEqual(named.sort(), defined.sort())
    // Each class stands once in its table, and nowhere is a class that a loop doesn't know.
    const listed = [...classes.matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1] ?? "")
    const policy = read("packages/core/src/sync/SupervisionPolicy.ts")
    const known = [...policy.matchAll(/^ {2}\| "(\w+)"$/gm)].map((match) => match[1] ?? "")
    assert.deepStrictEqual(listed, known)
  })

  it("names for each invariant tests that exist", () => {
    const sections = read("docs/reference/invariants.md")
      .split(/^## (?=I\d)/m)
      .slice(1)
    assert.lengthOf(sections, 10)
    sections.forEach((section, index) => {
      const invariant = `I${index + 1}`
      const tests = [...section.matchAll(/^- `([^`]+)`: "(.+)"$/gm)].map(([, path = "", name = ""]) => ({ path, name }))
      assert.isAbove(tests.length, 0, invariant)
      for (const { name, path } of tests) {
        assert.match(name, new RegExp(`^(I\\d+, )*${invariant}[:,]`), "a test names the invariant that it proves")
        assert.include(read(path), name, `${path} has no such test`)
      }
    })
  })
})

describe("docs/reference/performance.md", () => {
  it("is what the script makes of the figures beside it, of all benchmarks in full", () => {
    const made = Performance.page(read("docs/reference/performance.json"))
    assert.deepStrictEqual(made, { page: read("docs/reference/performance.md") })
  })

  it("isn't made of what isn't such a report, or of a quick one, or of a part", () => {
    const problemOf = (json: string) => {
      const made = Performance.page(json)
      return "problem" in made ? made.problem : ""
    }
    const report = JSON.parse(read("docs/reference/performance.json")) as object
    assert.include(problemOf("half a rep"), "is not what")
    assert.include(problemOf(JSON.stringify({ ...report, quick: true })), "quick run")
    assert.include(problemOf(JSON.stringify({ ...report, benchmarks: [] })), "lacks ingest-1k-1")
  })
})

describe("docs/guides/operating.md", () => {
  const text = read("docs/guides/operating.md")

  it("explains every metric, and none that there isn't", () => {
    const explained = [...text.matchAll(/^\| `(twinloop\.[\w.]+)` \|/gm)].map((match) => match[1] ?? "")
    const sources = ["packages/actors/src/Metrics.ts", "packages/platform/src/push/PushMetrics.ts"].map(read)
    const counted = [...sources.join("\n").matchAll(/Metric\.\w+\("([\w.]+)"/g)].map((match) => match[1] ?? "")
    assert.deepStrictEqual(explained.sort(), counted.sort())
  })

  it("explains every command", () => {
    for (const command of commands()) assert.include(text, `\`twinloop ${command}`)
  })
})

describe("ARCHITECTURE", () => {
  const text = read("ARCHITECTURE.md")

  it("names only files and folders that exist", () => {
    const rows = text.split("\n").flatMap((line) => {
      const [first = "", ...others] = [...line.matchAll(/`([^`]+)`/g)].map((m) => m[1] ?? "")
      // In a row of the table, a bare file name is in the folder that the row is about.
      const inFolder = (name: string) => (/^\w+\.ts$/.test(name) ? join(first, name) : name)
      return [first, ...others.map(inFolder)]
    })
    const paths = rows.filter((path) => /^(packages|examples|test|scripts|docs|bench|\.ci)(\/|$)/.test(path))
    assert.isAbove(paths.length, 20)
    for (const path of paths) assert.isTrue(existsSync(join(root, path)), `${path} doesn't exist`)
  })

  it("mentions every source folder that holds something", () => {
    const folders = find("packages/*/src/*/").filter((path) => statSync(join(root, path)).isDirectory())
    for (const folder of folders.filter((path) => readdirSync(join(root, path)).length > 0)) {
      assert.include(text, `\`${folder.replace(/\/$/, "")}\``, "ARCHITECTURE.md doesn't mention it")
    }
  })

  it("fits one screen", () => {
    assert.isBelow(text.split("\n").length, 60)
  })
})

describe("docs/adr", () => {
  const files = find("docs/adr/[0-9]*.md").map((path) => path.split("/").at(-1) ?? "")
  const index = read("docs/adr/README.md")

  it("numbers its decisions without a gap, and links each", () => {
    const numbers = files.map((name) => Number(name.slice(0, 4))).sort((a, b) => a - b)
    assert.deepStrictEqual(
      numbers,
      numbers.map((_, index) => index + 1)
    )
    for (const name of files) assert.include(index, `](${name})`)
  })

  it("gives each its context, alternatives, consequences and a way to be wrong", () => {
    for (const name of files) {
      const text = read(join("docs/adr", name))
      assert.match(text, new RegExp(`^# ${name.slice(0, 4)} `))
      const headings = [...text.matchAll(/^## (.+)$/gm)].map((m) => m[1])
      const wanted = ["Context", "Decision", "Alternatives", "Consequences", "How we would notice that we were wrong"]
      assert.deepStrictEqual(headings, wanted, name)
    }
  })
})

describe("documents and sources", () => {
  it("show code that compiles", { timeout: 120_000 }, () => {
    // Inside the repository, so that packages resolve; in a folder that no tool looks at.
    const folder = mkdtempSync(join(root, "node_modules/.twinloop-docs-"))
    try {
      const samples = documents.flatMap((path) =>
        [...read(path).matchAll(/^```ts\n([^]*?)^```$/gm)].map((match, index) => ({
          file: `${path.replaceAll("/", "-")}-${index}.ts`,
          code: match[1] ?? ""
        }))
      )
      assert.isAbove(samples.length, 5)
      for (const { code, file } of samples) writeFileSync(join(folder, file), code)
      const files = samples.map(({ file }) => file)
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ extends: join(root, "tsconfig.json"), files }))
      const args = [join(root, "node_modules/typescript/bin/tsc"), "-p", folder, "--listFiles"]
      const tsc = spawnSync(process.execPath, args, { encoding: "utf8" })
      for (const file of files) assert.include(tsc.stdout, join(folder, file), "the compiler has seen the code")
      const errors = tsc.stdout.split("\n").filter((line) => /\.md-\d+\.ts\(/.test(line))
      assert.deepStrictEqual(errors, [])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it("name only files and folders that exist", () => {
    for (const path of documents) {
      for (const [, name = ""] of read(path).matchAll(/`((?:packages|examples|test|scripts|docs|bench)\/[\w./-]+)`/g)) {
        if (MADE.some((folder) => name.startsWith(folder))) continue
        assert.isTrue(existsSync(join(root, name)), `${path} names ${name}`)
      }
    }
  })

  it("name only commands of twinloop that exist", () => {
    for (const path of documents) {
      for (const [, command = ""] of read(path).matchAll(/(?:`|npx |^)twinloop ([a-z]+)/gm)) {
        assert.include(commands(), command, `${path} names a command that there isn't`)
      }
    }
  })

  it("link only to files that exist", () => {
    for (const path of documents) {
      for (const [, target = ""] of read(path).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^(https?:|mailto:|#)/.test(target)) continue
        const file = join(root, dirname(path), target.split("#")[0] ?? "")
        assert.isTrue(existsSync(file), `${path} links to ${target}`)
      }
    }
  })

  it("leave no work marked as to be done, and silence no type and no lint rule", () => {
    const left = /\b(TODO|FIXME|XXX)\b|@ts-(ignore|nocheck|expect-error)|(ox|es)lint-disable/
    const others = [...documents, ...sources].filter((path) => path !== "test/repo/docs.test.ts")
    assert.isAbove(others.length, 50)
    assert.deepStrictEqual(
      others.filter((path) => left.test(read(path))),
      []
    )
  })
})

describe("packages", () => {
  const manifests = find("packages/*/package.json")

  it("have an exports entry and a bin that resolve to files", () => {
    assert.isAbove(manifests.length, 2)
    for (const path of manifests) {
      const { exports = {}, bin = {} } = manifest(path)
      const targets = [...Object.values(exports).flatMap((entry) => Object.values(entry)), ...Object.values(bin)]
      for (const target of targets) {
        assert.isTrue(existsSync(join(root, dirname(path), target)), `${path}: ${target} doesn't exist`)
      }
    }
  })

  it("can be imported by name, each entry", () => {
    const names = manifests.flatMap((path) => {
      const { name, exports = {} } = manifest(path)
      return Object.keys(exports).map((entry) => name + entry.slice(1))
    })
    const script = names.map((name) => `await import(${JSON.stringify(name)})`).join("\n")
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      cwd: root,
      encoding: "utf8"
    })
    assert.strictEqual(status, 0, stderr)
  })
})
