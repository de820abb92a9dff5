/**
 * The oxlint plugin `twinloop`: the rules of the house that no built-in rule can express.
 *
 * Includes `twinloop/layers` (imports go one way, in every form that an import can take) and `twinloop/pure` (invariant I8:
 * no clock, timer, chance, platform global, `async` or `try` in core and actors). Both read the syntax tree, so comments,
 * strings and properties that happen to be called `process` don't trigger.
 *
 * Gotchas: oxlint loads this file itself, and calls it "JS plugins are in alpha"; the version is pinned, and
 * `test/repo/lint.test.ts` shows that each rule still bites.
 *
 * Not here: which folder may do what (`Layers.ts`).
 */
import { layerOf, whyNotImport } from "./Layers.ts"

/** The part of a syntax node that the rules look at; the shape is ESTree's. */
interface Node {
  readonly type: string
  readonly parent?: Node
  readonly async?: boolean
  readonly await?: boolean
  readonly computed?: boolean
  readonly name?: string
  readonly value?: unknown
  readonly source?: Node | null
  readonly property?: Node
}

interface Reference {
  readonly identifier: Node
  readonly isValueReference: boolean
}

/** The part of oxlint's rule context (ESLint's API) that the rules use. */
interface RuleContext {
  readonly cwd: string
  readonly filename: string
  readonly sourceCode: {
    readonly scopeManager: {
      readonly globalScope: {
        readonly through: ReadonlyArray<Reference>
        readonly variables: ReadonlyArray<{ readonly name: string; readonly references: ReadonlyArray<Reference> }>
      }
    }
  }
  readonly report: (problem: { readonly node: Node; readonly message: string }) => void
}

type Visitor = { readonly [selector: string]: (node: Node) => void }

const pathOf = (context: RuleContext): string => context.filename.slice(context.cwd.length + 1).replaceAll("\\", "/")

/** What each forbidden global is replaced by. */
const forbiddenGlobals: { readonly [name: string]: string } = {
  Date: "use Effect's Clock and DateTime",
  performance: "use Effect's Clock",
  setTimeout: "use Effect.sleep or a Schedule",
  setInterval: "use a Schedule",
  setImmediate: "use Effect.yieldNow",
  clearTimeout: "interrupt the fiber",
  clearInterval: "interrupt the fiber",
  queueMicrotask: "fork a fiber",
  crypto: "use Effect's Random",
  console: "use Effect.log",
  process: "take it as a value from packages/platform",
  Buffer: "use effect/Encoding",
  fetch: "add to the Homeserver port",
  require: "use import",
  globalThis: "name what is needed"
}

const layersRule = (context: RuleContext): Visitor => {
  const path = pathOf(context)
  const check = (node: Node): void => {
    if (node.source === undefined || node.source === null) return
    const specifier = node.source.value
    const message =
      typeof specifier === "string"
        ? whyNotImport(path, specifier)
        : layerOf(path)?.pure === true
          ? "an import whose target is computed can't be checked; write it out"
          : undefined
    if (message !== undefined) context.report({ node, message })
  }
  return {
    ImportDeclaration: check,
    ExportNamedDeclaration: check,
    ExportAllDeclaration: check,
    ImportExpression: check,
    TSImportType: check
  }
}

/** Whether a use of `Math` can only be something other than `Math.random`. */
const isHarmlessMath = (identifier: Node): boolean => {
  const parent = identifier.parent
  return parent?.type === "MemberExpression" && parent.computed !== true && parent.property?.name !== "random"
}

const whyNotGlobal = (name: string, identifier: Node): string | undefined => {
  if (name === "Math") return isHarmlessMath(identifier) ? undefined : "Math.random: use Effect's Random (I8)"
  const instead = Object.hasOwn(forbiddenGlobals, name) ? forbiddenGlobals[name] : undefined
  return instead === undefined ? undefined : `${name}: ${instead} (I8)`
}

const pureRule = (context: RuleContext): Visitor => {
  if (layerOf(pathOf(context))?.pure !== true) return {}
  const noAsync = (node: Node): void => {
    if (node.async === true) context.report({ node, message: "async function: use Effect.gen or Effect.fn (I8)" })
  }
  const noAwait = (node: Node): void => context.report({ node, message: "await: use Effect.gen (I8)" })
  const globals = (): void => {
    const { through, variables } = context.sourceCode.scopeManager.globalScope
    const references = [...through, ...variables.flatMap((variable) => variable.references)]
    for (const { identifier, isValueReference } of references) {
      const message = isValueReference ? whyNotGlobal(identifier.name ?? "", identifier) : undefined
      if (message !== undefined) context.report({ node: identifier, message })
    }
  }
  return {
    FunctionDeclaration: noAsync,
    FunctionExpression: noAsync,
    ArrowFunctionExpression: noAsync,
    AwaitExpression: noAwait,
    ForOfStatement: (node) => (node.await === true ? noAwait(node) : undefined),
    TryStatement: (node) =>
      context.report({ node, message: "try: use Effect.try, or a Result of effect that holds the failure (I8)" }),
    "Program:exit": globals
  }
}

export default {
  meta: { name: "twinloop" },
  rules: { layers: { create: layersRule }, pure: { create: pureRule } }
}
