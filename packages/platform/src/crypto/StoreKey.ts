/**
 * The key under which the end-to-end keys are encrypted at rest: 32 bytes that the integrator provides.
 *
 * Includes `layer` (a key that the application has from a keychain, say) and `layerFile` (a file of this user's alone).
 *
 * Gotchas: whoever has the key and the database has the account's keys; whoever loses the key has lost them. A key is made
 * only where no keys are stored yet, never in place of one that is missing.
 */
import { Context, Effect, Layer, Redacted, Schema } from "effect"
import { linkSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import * as Planted from "../Planted.ts"

/** The key can't be had: the message says why and what to do. */
export class StoreKeyError extends Schema.TaggedError<StoreKeyError>("@twinloop/platform/StoreKeyError")(
  "StoreKeyError",
  { message: Schema.String, cause: Schema.optionalKey(Schema.Defect()) }
) {}

/** Length of a key in bytes. */
export const KEY_BYTES = 32

export class StoreKey extends Context.Service<
  StoreKey,
  {
    /**
     * The key, {@link KEY_BYTES} bytes. `isNew` says that nothing is stored under it yet, so that one may be made; otherwise
     * one that is missing is an error.
     */
    key(options: { readonly isNew: boolean }): Effect.Effect<Redacted.Redacted<Uint8Array>, StoreKeyError>
  }
>()("@twinloop/platform/StoreKey") {
  /**
   * A key that the application has. Fails, when it is used, unless it has {@link KEY_BYTES} bytes.
   *
   * @example
   * ```ts
   * import { StoreKey } from "@twinloop/platform"
   * import { Redacted } from "effect"
   *
   * const fromKeychain = new Uint8Array(32)
   * const key = StoreKey.StoreKey.layer(Redacted.make(fromKeychain))
   * ```
   */
  static readonly layer = (key: Redacted.Redacted<Uint8Array>): Layer.Layer<StoreKey> =>
    Layer.succeed(StoreKey, StoreKey.of({ key: () => checked(key, "the given key") }))

  /**
   * A key in a file, base64 in one line. Where nothing is stored yet and the file is missing it is made, with mode 0600.
   * Fails, when it is used, if others can read the file, or put it there (`Planted.ts`), or if it is missing or no key.
   */
  static readonly layerFile = (path: string): Layer.Layer<StoreKey> =>
    Layer.succeed(StoreKey, StoreKey.of({ key: ({ isNew }) => Effect.flatMap(fromFile(path, isNew), checkedIn(path)) }))
}

const checked = (
  key: Redacted.Redacted<Uint8Array>,
  what: string
): Effect.Effect<Redacted.Redacted<Uint8Array>, StoreKeyError> => {
  const { length } = Redacted.value(key)
  if (length === KEY_BYTES) return Effect.succeed(key)
  return Effect.fail(
    new StoreKeyError({
      message: `${what} for the stored end-to-end keys has ${length} bytes instead of ${KEY_BYTES}; give the key that they were stored with`
    })
  )
}

const checkedIn = (path: string) => (key: Redacted.Redacted<Uint8Array>) => checked(key, `the key in ${path}`)

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

/** From node:crypto, which takes 3 ms to load, and is needed by the first process of an account alone. */
const randomBytes = (length: number): Buffer => process.getBuiltinModule("node:crypto").randomBytes(length)

/** Makes the file whole or not at all; another process that makes it at the same moment wins or loses as a whole. */
const create = (path: string): void => {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`
  writeFileSync(temporary, `${randomBytes(KEY_BYTES).toString("base64")}\n`, { mode: 0o600, flag: "wx", flush: true })
  try {
    linkSync(temporary, path)
  } catch (cause) {
    if (codeOf(cause) !== "EEXIST") throw cause
  } finally {
    rmSync(temporary)
  }
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined
    throw cause
  }
}

const missing = (path: string): StoreKeyError =>
  new StoreKeyError({
    message: `the key file ${path} is missing, and the end-to-end keys in the database can't be read without it; put it back, or log in as a new device with another database`
  })

const exposed = (path: string): StoreKeyError =>
  new StoreKeyError({
    message: `the key file ${path} can be read by other users, so the end-to-end keys are not safe; run chmod 600 ${path}, and log in as a new device if somebody may have read it`
  })

const fromFile = (path: string, isNew: boolean): Effect.Effect<Redacted.Redacted<Uint8Array>, StoreKeyError> =>
  Effect.try({
    try: () => {
      Planted.targetOf(resolve(path))
      if (isNew && read(path) === undefined) create(path)
      const text = read(path)
      if (text === undefined) throw missing(path)
      // Windows has no such bits: there a file is as private as its directory.
      if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0) throw exposed(path)
      return Redacted.make(new Uint8Array(Buffer.from(text.trim(), "base64")), { label: "store key" })
    },
    catch: (cause) =>
      cause instanceof StoreKeyError
        ? cause
        : new StoreKeyError({
            message: `the key file ${path} can't be used (${cause instanceof Error ? cause.message : String(cause)}); give this user access to it`,
            cause
          })
  })
