/**
 * A part of the proof: commands that try to break something, and what their reports come to.
 *
 * Pure. Not here: the parts (`Parts.ts`), running them (`scripts/proof.ts`), the page (`Document.ts`).
 */
import { Option, Schema } from "effect"

/** `short` is for every commit, `long` is what the page stands on. */
export type Form = "short" | "long"

/** One command, `npm run <script> -- <args>`; its standard output, or the last line of it, is its report, in JSON. */
export interface Run {
  /** What is special about it; unique in its part. */
  readonly name: string
  readonly script: string
  readonly args: ReadonlyArray<string>
  /** How long it may take, in minutes. */
  readonly limitMinutes: number
}

/** What a report comes to. */
export interface Judged {
  readonly ok: boolean
  /** What is worth knowing, with its value in words. */
  readonly figures: ReadonlyArray<readonly [what: string, is: string]>
  /** The most important of them, in a line. */
  readonly headline: string
  /** More than fits into a table of figures. */
  readonly table?: { readonly head: ReadonlyArray<string>; readonly rows: ReadonlyArray<ReadonlyArray<string>> }
}

export interface Part {
  /** Unique. */
  readonly name: string
  readonly title: string
  /** What is tried, and what it doesn't show: Markdown. */
  readonly how: string
  readonly runs: { readonly [form in Form]: ReadonlyArray<Run> }
  /** `undefined` when it is no report of this part. */
  judge(report: unknown): Judged | undefined
}

/** A part whose reports have a schema. */
export const make = <S extends Schema.ConstraintDecoder<unknown>>(
  part: Omit<Part, "judge"> & { readonly report: S; judge(report: S["Type"]): Judged }
): Part => {
  const decode = Schema.decodeUnknownOption(part.report)
  return {
    name: part.name,
    title: part.title,
    how: part.how,
    runs: part.runs,
    judge: (report) => Option.getOrUndefined(Option.map(decode(report), part.judge))
  }
}

/** The command, as somebody would type it. */
export const commandOf = ({ args, script }: Run): string => {
  const given = args.filter((arg) => arg !== "--json")
  return ["npm run", script, ...(given.length === 0 ? [] : ["--", ...given])].join(" ")
}

export const number = (value: number): string => value.toLocaleString("en-US", { maximumFractionDigits: 1 })

/** Seconds in words. */
export const duration = (seconds: number): string =>
  seconds < 120 ? `${number(seconds)} s` : `${number(seconds / 60)} minutes`
