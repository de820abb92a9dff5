/**
 * The WebAssembly of `@matrix-org/matrix-sdk-crypto-wasm`, as instances that have nothing in common: each has its own
 * memory, its own glue code and its own `indexedDB`.
 *
 * Includes `instantiate`. The machine code is compiled once per process, in the background, when it is first needed.
 *
 * Gotchas:
 * - The glue looks its surroundings up by global names. It is loaded privately with those names shadowed, so no global is
 *   set, two accounts don't see one another's databases, and other libraries don't find an `indexedDB` that isn't theirs.
 * - Rust panics by trapping. A trap is thrown inside a microtask of the glue: left alone, it ends the process, and the
 *   promise that waited never settles. So every closure that Rust gives to JavaScript is watched: the first trap is told to
 *   `onTrap`, and the instance is dead.
 * - A trap leaves Rust's locks held and its memory half changed. So a dead instance runs no more code: what still calls it,
 *   such as an event of IndexedDB or the collector's finalizers, reaches functions that do nothing.
 *
 * Not here: what is done with it (`OlmMachine.ts`).
 */
import type * as Sdk from "@matrix-org/matrix-sdk-crypto-wasm"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { directoryOf, loadPrivately } from "./PrivateModules.ts"

/** The package's exports: those of one instance. */
export type CryptoSdk = typeof Sdk

/** The glue's own exports, which its package keeps to itself. */
interface Glue extends CryptoSdk {
  __wbg_set_wasm(exports: Names): void
}

/** Exports and imports of machine code, by name. */
type Names = { readonly [name: string]: unknown }

/** What we use of the platform's WebAssembly, for which there are types only with those of a browser. */
interface WebAssemblyApi {
  compile(bytes: Uint8Array): Promise<object>
  instantiate(module: object, imports: { readonly [module: string]: Names }): Promise<{ readonly exports: Names }>
  readonly RuntimeError: new () => Error
}

const webAssembly = (globalThis as unknown as { readonly WebAssembly: WebAssemblyApi }).WebAssembly

/** What an instance is surrounded by. */
export interface Surroundings {
  /** The `indexedDB` that a store is opened in, at the moment it is opened. */
  readonly indexedDB: () => unknown
  /** Gives the classes of IndexedDB (`IDBKeyRange`, ...), by their global names. */
  readonly classes: () => { readonly [name: string]: unknown }
  /** Unix milliseconds. */
  readonly now: () => number
  /** What the Rust code says in its log. */
  readonly log: (level: "debug" | "info" | "warn" | "error", text: string) => void
  /** Told once when the instance has died, with Rust's panic message or the trap's. */
  readonly onTrap: (detail: string) => void
}

const gluePath = "matrix_sdk_crypto_wasm_bg.cjs"
const wasmPath = "matrix_sdk_crypto_wasm_bg.wasm"

const directory = (): string => join(directoryOf("@matrix-org/matrix-sdk-crypto-wasm"), "pkg")

interface Compilation {
  /** V8's own threads are at work. */
  readonly begun: Promise<void>
  readonly module: Promise<object>
}

let compilation: Compilation | undefined

const begin = (): Compilation => {
  const bytes = readFile(join(directory(), wasmPath))
  const module = bytes.then((read) => webAssembly.compile(read))
  // A file that could not be read may be there the next time.
  module.catch(() => (compilation = undefined))
  return { module, begun: bytes.then(() => undefined) }
}

const compile = (): Compilation => (compilation ??= begin())

/** How Rust's panic hook begins, before it traps. */
const panicPrefix = "panicked at "

const textOf = (thing: unknown): string => (typeof thing === "string" ? thing : String(thing))

/** Watches over one instance, until its first trap. */
class Watch {
  #panic: string | undefined
  #dead = false
  /** What ends the instance, once there is one. */
  disconnect: () => void = () => {}
  readonly #surroundings: Surroundings

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings
  }

  readonly console = {
    debug: (thing: unknown) => this.#surroundings.log("debug", textOf(thing)),
    info: (thing: unknown) => this.#surroundings.log("info", textOf(thing)),
    warn: (thing: unknown) => this.#surroundings.log("warn", textOf(thing)),
    error: (thing: unknown) => this.#error(textOf(thing))
  }

  /** The panic hook says what happened, and traps afterwards: its caller may swallow the trap. */
  #error(text: string): void {
    if (!text.startsWith(panicPrefix)) return this.#surroundings.log("error", text)
    this.#panic = text.split("\n\nStack:")[0]
    queueMicrotask(() => this.#die(text))
  }

  #die(detail: string): void {
    if (this.#dead) return
    this.#dead = true
    this.disconnect()
    this.#surroundings.onTrap(this.#panic ?? detail)
  }

  /** A Rust closure that takes the instance down when it traps, and not the process. */
  readonly guard = (closure: Closure): Closure => {
    const guarded = (...args: ReadonlyArray<unknown>): unknown => {
      if (this.#dead) return undefined
      try {
        return closure(...args)
      } catch (cause) {
        if (!isTrap(cause)) throw cause
        return this.#die(textOf(cause))
      }
    }
    return Object.assign(guarded, closure)
  }
}

/** A closure as the glue makes it, with the function that lets go of it as a property. */
type Closure = (...args: ReadonlyArray<unknown>) => unknown

/** How the imports are named that wasm-bindgen makes for itself; those that turn Rust's closures into functions are among them. */
const ownPrefix = "__wbindgen_"

/** Whether it is a closure of Rust's: it can be let go of. */
const isClosure = (made: unknown): made is Closure => typeof made === "function" && "_wbg_cb_unref" in made

/** What the machine code imports: the glue's functions, with the closures guarded. */
const importsOf = (glue: Glue, watch: Watch): Names => {
  const guarding =
    (make: Closure): Closure =>
    (...args) => {
      const made = make(...args)
      return isClosure(made) ? watch.guard(made) : made
    }
  return Object.fromEntries(
    Object.entries(glue as unknown as { readonly [name: string]: Closure }).map(([name, made]) => [
      name,
      name.startsWith(ownPrefix) ? guarding(made) : made
    ])
  )
}

/** Exports of machine code that does nothing: every function gives 0, and the memory is as it was. */
const inert = (exports: Names): Names =>
  Object.fromEntries(
    Object.entries(exports).map(([name, value]) => [name, typeof value === "function" ? () => 0 : value])
  )

/** The variables that the glue sees instead of the process's globals. */
const parametersOf = (surroundings: Surroundings, watch: Watch): { readonly [name: string]: unknown } => {
  const shared = {
    queueMicrotask: globalThis.queueMicrotask,
    console: watch.console,
    Date: { now: surroundings.now },
    crypto: globalThis.crypto,
    performance: globalThis.performance,
    // Rust waits 5 s for answers about devices, which can't come: they are told by calls, of which there is one at a time.
    setTimeout: (listener: () => void) => globalThis.setTimeout(listener, 0)
  }
  const globals = Object.defineProperty({ ...shared }, "indexedDB", { get: surroundings.indexedDB })
  // Node's own name for the global object is how the Rust code tells that it isn't in a browser.
  Object.defineProperty(globals, "global", { value: globals })
  return {
    ...shared,
    ...surroundings.classes(),
    globalThis: globals,
    global: globals,
    self: undefined,
    window: undefined
  }
}

/** A new instance. Rejects when the package isn't there or can't be run. */
export const instantiate = async (surroundings: Surroundings): Promise<CryptoSdk> => {
  const { begun, module } = compile()
  // What follows is loaded on this thread while the machine code is compiled on others.
  await begun
  const watch = new Watch(surroundings)
  const glue = loadPrivately(directory(), { parameters: parametersOf(surroundings, watch) })(gluePath) as Glue
  const imports = { "./matrix_sdk_crypto_wasm_bg.js": importsOf(glue, watch) }
  const { exports } = await webAssembly.instantiate(await module, imports)
  watch.disconnect = () => glue.__wbg_set_wasm(inert(exports))
  glue.__wbg_set_wasm(exports)
  const { __wbindgen_start: start } = exports
  if (typeof start === "function") start()
  return glue
}

/** Whether an error is a trap of the machine code. */
export const isTrap = (cause: unknown): boolean => cause instanceof webAssembly.RuntimeError
