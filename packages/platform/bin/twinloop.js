#!/usr/bin/env node
// Plain JavaScript, so that an old Node can still say which one is needed instead of failing on the first type annotation.
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(
    `twinloop: needs Node 22.19 or newer, and this is ${process.version}. ` +
      "Run it through npm (`npm start`, `npx twinloop`), which uses the Node installed with the project.\n"
  )
  process.exit(1)
} else {
  await import("../src/cli/main.ts")
}
