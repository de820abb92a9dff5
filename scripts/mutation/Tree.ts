/**
 * A copy of the repository in which a fault can be made without harm to the working tree.
 *
 * Gotchas: the installed packages are linked, and not copied; but those of this repository are linked to the copy, or its
 * tests would import the code that was not changed.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Mutant } from "./Mutants.ts"

/** The repository. */
export const root = fileURLToPath(new URL("../..", import.meta.url))

/** Not part of what is tested. */
const leftOut: ReadonlySet<string> = new Set([".git", "node_modules", "dist"])

/** The scope of the repository's own packages in `node_modules`, and where they are. */
const OWN = "@twinloop"
const ownPackages: { readonly [name: string]: string } = {
  core: "packages/core",
  actors: "packages/actors",
  platform: "packages/platform",
  examples: "examples"
}

const link = (directory: string): void => {
  const installed = join(root, "node_modules")
  const linked = join(directory, "node_modules")
  mkdirSync(join(linked, OWN), { recursive: true })
  for (const name of readdirSync(installed)) {
    if (name !== OWN && name !== ".cache" && !name.startsWith(".vite")) {
      symlinkSync(join(installed, name), join(linked, name))
    }
  }
  for (const [name, path] of Object.entries(ownPackages)) symlinkSync(join(directory, path), join(linked, OWN, name))
}

const make = (): string => {
  const directory = mkdtempSync(join(tmpdir(), "twinloop-mutants-"))
  cpSync(root, directory, { recursive: true, filter: (path) => !leftOut.has(basename(path)) })
  link(directory)
  return directory
}

/** A copy as the working tree is; it is gone when the scope closes. Gives its directory. */
export const copy: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(Effect.sync(make), (directory) =>
  Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** The text of a file with the fault in it; `undefined` unless `find` stands in it exactly once. */
export const mutated = (text: string, { find, replace }: Pick<Mutant, "find" | "replace">): string | undefined => {
  const parts = text.split(find)
  return parts.length === 2 ? parts.join(replace) : undefined
}

/** Makes the fault in a copy until the scope closes. False when it can't be made, since the code isn't what the list says. */
export const withFault = (directory: string, mutant: Mutant): Effect.Effect<boolean, never, Scope.Scope> => {
  const path = join(directory, mutant.file)
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const text = readFileSync(path, "utf8")
        const faulty = mutated(text, mutant)
        if (faulty !== undefined) writeFileSync(path, faulty)
        return { text, isMade: faulty !== undefined }
      }),
      ({ text }) => Effect.sync(() => writeFileSync(path, text))
    ),
    ({ isMade }) => isMade
  )
}
