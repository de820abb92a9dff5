/**
 * `docs/reference/proof.md`, made of the reports of the commands.
 *
 * Pure: records and notes in, the page out. Not here: running commands, reading and writing files (`scripts/proof.ts`).
 */
import { Schema } from "effect"
import { table } from "../Markdown.ts"
import * as Part from "./Part.ts"

/** A run that was made. */
export const Recorded = Schema.Struct({
  part: Schema.String,
  run: Schema.String,
  command: Schema.String,
  /** Of the tree that it ran on. */
  commit: Schema.String,
  /** `2026-11-30` */
  day: Schema.String,
  report: Schema.Json
})
export type Recorded = typeof Recorded.Type

/** What `docs/reference/proof.json` has. */
export const Records = Schema.Array(Recorded)

/** What is said below a part, by its name: the bugs that it found. */
export type Notes = { readonly [part: string]: string }

/** What is missing or can't be read, in words; empty when the page can be made. */
export const problems = (
  parts: ReadonlyArray<Part.Part>,
  form: Part.Form,
  records: ReadonlyArray<Recorded>
): ReadonlyArray<string> => {
  const known = parts.flatMap((part) => part.runs[form].map((run) => ({ part, run })))
  return [
    ...known.flatMap(({ part, run }) => {
      const found = records.filter((record) => record.part === part.name && record.run === run.name)
      if (found.length !== 1) return [`there are ${found.length} reports of "${part.name}", run "${run.name}"`]
      if (found[0]!.command !== Part.commandOf(run)) return [`"${found[0]!.command}" is not \`${Part.commandOf(run)}\``]
      return part.judge(found[0]!.report) === undefined
        ? [`the report of "${part.name}", run "${run.name}", is not what its command prints`]
        : []
    }),
    ...records
      .filter((record) => !known.some(({ part, run }) => part.name === record.part && run.name === record.run))
      .map((record) => `there is no run "${record.run}" of a part "${record.part}"`)
  ]
}

interface Judged extends Part.Judged {
  readonly record: Recorded
}

const judgedOf = (part: Part.Part, records: ReadonlyArray<Recorded>): ReadonlyArray<Judged> =>
  records.flatMap((record) => {
    const judged = record.part === part.name ? part.judge(record.report) : undefined
    return judged === undefined ? [] : [{ ...judged, record }]
  })

/** With few runs each has a column, with many a line. */
const MOST_COLUMNS = 3

const figuresOf = (runs: ReadonlyArray<Judged>): ReadonlyArray<string> => {
  const whats = [...new Set(runs.flatMap(({ figures }) => figures.map(([what]) => what)))]
  const value = ({ figures }: Judged, what: string): string => figures.find(([one]) => one === what)?.[1] ?? ""
  const nameOf = ({ record }: Judged): string => (runs.length === 1 ? "" : record.run)
  return runs.length > MOST_COLUMNS
    ? table(
        ["", ...whats],
        runs.map((run) => [nameOf(run), ...whats.map((what) => value(run, what))])
      )
    : table(
        ["", ...runs.map(nameOf)],
        whats.map((what) => [what, ...runs.map((run) => value(run, what))])
      )
}

const section = (part: Part.Part, runs: ReadonlyArray<Judged>, note: string | undefined): ReadonlyArray<string> => [
  "",
  `## ${part.title}`,
  "",
  part.how,
  "",
  ...runs.map(({ record }) => `- \`${record.command}\`, at ${record.commit} on ${record.day}`),
  "",
  ...figuresOf(runs),
  ...runs.flatMap(({ table: more }) => (more === undefined ? [] : ["", ...table(more.head, more.rows)])),
  ...(note === undefined ? [] : ["", note])
]

/** The page; all parts must have been run. */
export const render = (
  parts: ReadonlyArray<Part.Part>,
  form: Part.Form,
  records: ReadonlyArray<Recorded>,
  notes: Notes
): string => {
  const judged = parts.map((part) => ({ part, runs: judgedOf(part, records) }))
  const summary = judged.flatMap(({ part, runs }) =>
    runs.map(({ headline, ok, record }) => [
      runs.length === 1 ? part.title : `${part.title}: ${record.run}`,
      headline,
      ok ? "yes" : "**no**"
    ])
  )
  const lines = [
    "# Proof",
    "",
    "<!-- Written by `npm run proof` from the reports of its commands. Change `scripts/proof`, not this page. -->",
    "",
    "Twinloop promises: no key lost, none applied twice, never two owners, quiet when suspended, whatever happens (I1 to I10, [Invariants](invariants.md)).",
    "This page is what came of trying to break that, and each figure is one that a command printed. Run them yourself:",
    "",
    "```sh",
    "npm run proof -- --short          # a few minutes, the form that is run for every commit",
    "npm run proof -- --only chaos     # one part of this page",
    "npm run proof                     # all of it, in some hours",
    "```",
    "",
    ...table(["part", "what came of it", "kept"], summary),
    ...judged.flatMap(({ part, runs }) => section(part, runs, form === "long" ? notes[part.name] : undefined))
  ]
  return `${lines.join("\n")}\n`
}
