// Plain JavaScript, so that an old Node can still say what is wrong instead of failing on the first type annotation.
const major = Number(process.versions.node.split(".")[0])
if (major !== 24) {
  process.stderr.write(
    `Twinloop is developed on Node 24, and this is ${process.version} at ${process.execPath}. ` +
      "npm puts the Node of this project first, so its installation must have been skipped " +
      "(`npm ci --ignore-scripts` does that). Run `npm rebuild node`, then the same command again.\n"
  )
  process.exit(1)
}
