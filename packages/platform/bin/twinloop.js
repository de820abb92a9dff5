#!/usr/bin/env node
// Plain JavaScript, so that an old Node can still say which one is needed instead of failing on the first type annotation.
import * as nodeModule from "node:module"
import { cacheDirectory, freshBundle } from "../src/cli/notifyBundle.js"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

/** Flags of the full command line, which the fast program doesn't have. */
const isForAll = (argument) => /^(-h|-v|--(help|version|wizard|completions|log-level)(=.*)?)$/.test(argument)

const [command, ...rest] = process.argv.slice(2)
const bundle = command === "notify" && !rest.some(isForAll) ? freshBundle() : undefined

if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(
    `twinloop: needs Node 22.19 or newer, and this is ${process.version}. ` +
      "Run it through npm (`npm start`, `npx twinloop`), which uses the Node installed with the project.\n"
  )
  process.exit(1)
} else if (bundle !== undefined) {
  // A push waits for this one.
  process.argv.splice(2, 1)
  nodeModule.enableCompileCache(cacheDirectory)
  nodeModule.createRequire(import.meta.url)(bundle)
} else {
  await import("../src/cli/main.ts")
}
