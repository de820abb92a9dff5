/**
 * `node scripts/bundle.ts ENTRY OUTFILE`: makes one CommonJS file of a program, for a process that must start fast.
 *
 * Includes `bundle`, for whoever needs files of programs: the benchmarks, tests, a package that ships a command.
 *
 * Gotchas: CommonJS has no top-level `await`. Everything is in the one file, also what is imported by a call
 * (`codeSplitting: false`): a part that is loaded later would be one more file to ship, to read and to compile.
 *
 * Not here: what it gives, and how a process is started with it (`docs/guides/bundling.md`).
 */
import { resolve } from "node:path"
import { rolldown } from "rolldown"

/** Makes a CommonJS file for Node of a TypeScript or JavaScript file and all that it imports, and overwrites it if it exists. */
export const bundle = async (entry: string, outfile: string): Promise<void> => {
  const build = await rolldown({ input: resolve(entry), platform: "node" })
  try {
    await build.write({ file: resolve(outfile), format: "cjs", codeSplitting: false, minify: true, comments: false })
  } finally {
    await build.close()
  }
}

if (import.meta.main) {
  const [entry, outfile, ...others] = process.argv.slice(2)
  if (entry === undefined || outfile === undefined || others.length > 0) {
    process.stderr.write("usage: node scripts/bundle.ts ENTRY OUTFILE\n")
    process.exitCode = 2
  } else {
    await bundle(entry, outfile)
  }
}
