// Plain JavaScript, since stripping types takes time that a push waits for.
// Finds the one file of `twinloop notify` (`npm run bundle`), which starts several times as fast as the sources.
import { existsSync, readdirSync, statSync } from "node:fs"
import { fileURLToPath } from "node:url"

const here = new URL(".", import.meta.url)

/** What the file is made of: the packages of this project, and the versions of all others. */
const ingredients = ["../", "../../../core/src/", "../../../actors/src/", "../../../../package-lock.json"]

/** @param {URL} place a file, or a directory with files */
const newestMillis = (place) => {
  if (!existsSync(place)) return 0
  if (!statSync(place).isDirectory()) return statSync(place).mtimeMs
  const names = readdirSync(place, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"))
  return Math.max(0, ...names.map((name) => statSync(new URL(name, place)).mtimeMs))
}

/** The path of the file, or `undefined` when it isn't there or older than what it is made of: it would do what was once so. */
export const freshBundle = () => {
  const file = new URL("../../dist/notify.cjs", here)
  if (!existsSync(file)) return undefined
  const { mtimeMs } = statSync(file)
  const isFresh = ingredients.every((ingredient) => newestMillis(new URL(ingredient, here)) <= mtimeMs)
  return isFresh ? fileURLToPath(file) : undefined
}

/** Where V8 keeps what it has compiled of the file: beside it, so that whoever may write the one may write the other. */
export const cacheDirectory = fileURLToPath(new URL("../../dist/compile-cache", here))
