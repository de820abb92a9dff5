/**
 * Loads a package's CommonJS files apart from everybody else's copy, with some of them replaced and some globals shadowed.
 *
 * Includes `loadPrivately` and `directoryOf`.
 *
 * Gotchas:
 * - A file sees the process's globals, except where a parameter has the same name. A shadowed name is shadowed in the
 *   package's own files only: what they require by a bare name (`node:fs`, another package) is the process's own.
 * - Code from the package makes the package's classes: an `instanceof` against another copy of the package is false.
 * - Exports are whatever the package exports, so a caller checks what it relies on.
 *
 * Not here: which files are replaced, and why (`indexeddb/FakeIndexedDb.ts`).
 */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join, posix } from "node:path"
import { compileFunction } from "node:vm"

const require = createRequire(import.meta.url)

/** Gives the exports of one file, by its path from the directory with forward slashes: `lib/cmp.js`. */
export type LoadModule = (path: string) => unknown

export interface PrivateModulesOptions {
  /**
   * Files that are replaced, by path, each with a function that gives its exports. It is called when the file is first
   * required, with the exports of the file that it replaces, and a way to load others.
   */
  readonly replace?: { readonly [path: string]: (original: () => unknown, load: LoadModule) => unknown }
  /** Variables that each file sees, by name. One named like a global hides the global. */
  readonly parameters?: { readonly [name: string]: unknown }
}

/** The directory of a package's main file for `require`, and so where its CommonJS files are. Throws when it isn't installed. */
export const directoryOf = (specifier: string): string => dirname(require.resolve(specifier))

/** What Node gives to each CommonJS file. */
const nodeNames = ["exports", "require", "module", "__filename", "__dirname"]

interface Module {
  exports: unknown
}

/** A file as a function of what it sees. */
type Run = (...values: ReadonlyArray<unknown>) => void

/** By the names that a file sees, and its path. The code of a large file is a megabyte, and the same for every loader. */
const compiledFiles = new Map<string, Run>()

const compile = (filename: string, names: ReadonlyArray<string>): Run => {
  const id = [...names, filename].join("\n")
  const run = compiledFiles.get(id) ?? (compileFunction(readFileSync(filename, "utf8"), names, { filename }) as Run)
  compiledFiles.set(id, run)
  return run
}

/**
 * A loader of a directory's CommonJS files with a cache of its own: two loaders share nothing. A relative require stays
 * private; a bare name is resolved from the file as Node does it. A file is read and compiled once per process. Throws what
 * reading, compiling and running a file throws.
 */
export const loadPrivately = (directory: string, options: PrivateModulesOptions = {}): LoadModule => {
  const { replace = {}, parameters = {} } = options
  const names = [...nodeNames, ...Object.keys(parameters)]
  const values = Object.values(parameters)
  const modules = new Map<string, Module>()

  const evaluate = (path: string, module: Module): void => {
    const filename = join(directory, path)
    const resolve = (specifier: string): unknown =>
      specifier.startsWith(".") ? load(posix.join(posix.dirname(path), specifier)) : createRequire(filename)(specifier)
    compile(filename, names)(module.exports, resolve, module, filename, dirname(filename), ...values)
  }
  const original = (path: string): unknown => {
    const module: Module = { exports: {} }
    evaluate(path, module)
    return module.exports
  }
  // In the cache before it is evaluated, since files of a package require one another in circles.
  const load = (path: string): unknown => {
    const known = modules.get(path)
    if (known !== undefined) return known.exports
    const module: Module = { exports: {} }
    modules.set(path, module)
    const replacement = replace[path]
    if (replacement === undefined) evaluate(path, module)
    else module.exports = replacement(() => original(path), load)
    return module.exports
  }
  return load
}
