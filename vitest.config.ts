import { defineConfig } from "vitest/config"

const unit = (name: string, include: ReadonlyArray<string>) => ({
  test: { name, include: [...include], testTimeout: 30_000 }
})

// Suites with real processes and a real Synapse share two cores with what they start: one file at a time.
const slow = (name: string, include: ReadonlyArray<string>) => ({
  test: { name, include: [...include], testTimeout: 240_000, hookTimeout: 600_000, fileParallelism: false, retry: 0 }
})

export default defineConfig({
  test: {
    projects: [
      unit("core", ["packages/core/test/**/*.test.ts"]),
      unit("actors", ["packages/actors/test/**/*.test.ts"]),
      unit("platform", ["packages/platform/test/**/*.test.ts"]),
      unit("examples", ["examples/**/*.test.ts"]),
      unit("bench", ["bench/test/**/*.test.ts"]),
      unit("repo", ["test/repo/**/*.test.ts"]),
      unit("conformance", ["test/conformance/schemas/*.test.ts"]),
      slow("processes", ["test/processes/**/*.test.ts"]),
      slow("synapse", ["test/synapse/**/*.test.ts"]),
      // Needs what cargo builds first: `npm run test:rust`.
      slow("rust", ["test/conformance/rust/*.test.ts"])
    ]
  }
})
