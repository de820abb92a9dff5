/**
 * The house as data: which folder may import what, and which folders are pure.
 *
 * The first layer whose folder contains a file decides. Imports go one way: core, actors, platform, examples. A file that
 * no layer names (test, bench, scripts, the configuration at the root) may import anything.
 *
 * Not here: how a file is read and reported (`plugin.ts`).
 */

export interface Layer {
  /** Folder that the rule is for, from the root, with a slash at its end. */
  readonly folder: string
  /** Relative imports must stay inside this folder. */
  readonly within: string
  /** Packages and paths that may be imported: a name covers its sub-paths, a name that ends in `!` is that path only. */
  readonly allows: ReadonlyArray<string>
  /** Relative folders inside `within` that are out of bounds, each with its reason. */
  readonly except?: { readonly [folder: string]: string }
  /** No clock, chance, platform, async or try: invariant I8. */
  readonly pure: boolean
}

const testTools = ["@effect/vitest", "vitest", "fast-check"]
const testKit = "the test kit is for tests; production code does without it"

export const layers: ReadonlyArray<Layer> = [
  {
    folder: "packages/core/src/testing/",
    within: "packages/core/src/",
    allows: ["effect", "@effect/vitest"],
    pure: true
  },
  {
    folder: "packages/core/src/",
    within: "packages/core/src/",
    allows: ["effect"],
    except: { "packages/core/src/testing/": testKit },
    pure: true
  },
  {
    folder: "packages/core/test/",
    within: "packages/core/",
    allows: ["effect", "@twinloop/core", ...testTools],
    pure: false
  },
  {
    folder: "packages/actors/src/testing/",
    within: "packages/actors/src/",
    allows: ["effect", "@effect/vitest", "@twinloop/core"],
    pure: true
  },
  {
    folder: "packages/actors/src/",
    within: "packages/actors/src/",
    allows: ["effect", "@twinloop/core!"],
    except: { "packages/actors/src/testing/": testKit },
    pure: true
  },
  {
    folder: "packages/actors/test/",
    within: "packages/actors/",
    allows: ["effect", "@twinloop/core", "@twinloop/actors", ...testTools],
    pure: false
  },
  {
    folder: "packages/platform/src/crypto/",
    within: "packages/platform/src/",
    allows: [
      "node:",
      "effect",
      "@effect/platform-node",
      "@twinloop/core",
      "@twinloop/actors",
      "@matrix-org/matrix-sdk-crypto-wasm"
    ],
    pure: false
  },
  {
    folder: "packages/platform/src/",
    within: "packages/platform/src/",
    allows: ["node:", "effect", "@effect/platform-node", "@twinloop/core", "@twinloop/actors"],
    pure: false
  },
  {
    folder: "packages/platform/",
    within: "packages/platform/",
    allows: [
      "node:",
      "effect",
      "@effect/platform-node",
      "@twinloop/core",
      "@twinloop/actors",
      "@twinloop/platform",
      "matrix-js-sdk",
      "@matrix-org/matrix-sdk-crypto-wasm",
      "fake-indexeddb",
      ...testTools
    ],
    pure: false
  },
  {
    folder: "examples/",
    within: "examples/",
    allows: [
      "node:",
      "effect",
      "@effect/platform-node",
      "@twinloop/core",
      "@twinloop/actors",
      "@twinloop/platform",
      ...testTools
    ],
    pure: false
  }
]

/** The layer of a file given by its path from the root with forward slashes, or `undefined` when it may import anything. */
export const layerOf = (path: string): Layer | undefined => layers.find((layer) => path.startsWith(layer.folder))

const covers = (allowed: string, specifier: string): boolean => {
  if (allowed.endsWith("!")) return specifier === allowed.slice(0, -1)
  if (allowed.endsWith(":")) return specifier.startsWith(allowed)
  return specifier === allowed || specifier.startsWith(`${allowed}/`)
}

/** Resolves a relative specifier against the file that holds it, both from the root. */
const resolve = (path: string, specifier: string): string => {
  const parts = path.split("/").slice(0, -1)
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== ".") parts.push(part)
  }
  return parts.join("/")
}

/** Says why a file may not import something, or `undefined` when it may. */
export const whyNotImport = (path: string, specifier: string): string | undefined => {
  const layer = layerOf(path)
  if (layer === undefined) return undefined
  if (!specifier.startsWith(".")) {
    if (layer.allows.some((allowed) => covers(allowed, specifier))) return undefined
    const allowed = layer.allows.map((name) => name.replace(/!$/, "")).join(", ")
    return `${layer.folder} must not import "${specifier}"; it may import ${allowed} and its own files`
  }
  const target = resolve(path, specifier)
  if (!target.startsWith(layer.within)) {
    return `${layer.folder} must not reach outside ${layer.within} by "${specifier}"; import the package by its name`
  }
  const reason = Object.entries(layer.except ?? {}).find(([folder]) => target.startsWith(folder))?.[1]
  return reason === undefined ? undefined : `${layer.folder} must not import "${specifier}": ${reason}`
}
