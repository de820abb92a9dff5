/**
 * The documents say what is so: commands, paths, links, decisions and package exports that they name exist.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const isInstalled = (path: string): boolean => /(^|\/)node_modules(\/|$)/.test(path)
const find = (pattern: string): ReadonlyArray<string> =>
  globSync(pattern, { cwd: root, exclude: (path) => isInstalled(path) }).filter((path) => !isInstalled(path))

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

  it("show code that compiles", () => {
    // Inside the repository, so that packages resolve; in a folder that no tool looks at.
    const folder = mkdtempSync(join(root, "node_modules/.twinloop-docs-"))
    try {
      const samples = [...read("README.md").matchAll(/^```ts\n([^]*?)^```$/gm)].map((m) => m[1] ?? "")
      assert.isAbove(samples.length, 0)
      samples.forEach((sample, index) => writeFileSync(join(folder, `README${index}.ts`), sample))
      const files = samples.map((_, index) => `README${index}.ts`)
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ extends: join(root, "tsconfig.json"), files }))
      const args = [join(root, "node_modules/typescript/bin/tsc"), "-p", folder, "--listFiles"]
      const tsc = spawnSync(process.execPath, args, { encoding: "utf8" })
      assert.include(tsc.stdout, join(folder, "README0.ts"), "the compiler has seen the code")
      const errors = tsc.stdout.split("\n").filter((line) => /README\d+\.ts\(/.test(line))
      assert.deepStrictEqual(errors, [])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it("promise each invariant", () => {
    for (let n = 1; n <= 10; n++) assert.match(read("README.md"), new RegExp(`\\*\\*I${n} `))
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
