/**
 * `npm run proof`: runs everything that tries to break Twinloop, and writes what came of it into `docs/reference/proof.md`, from
 * `docs/reference/proof.json`, which has the reports as the commands printed them.
 *
 * `--short` runs the form for every commit, and prints its page instead; `--only PART[,PART...]` runs some parts, and keeps the other
 * reports; `--take PART[:RUN]=FILE` runs nothing, and takes the report of a run that was made by itself, `--commit` of another tree than
 * this; `--out FILE` writes the page elsewhere. The last line is JSON: how many runs passed and failed.
 *
 * Ends with 1 when a run failed, with 2 for a wrong command line or when the page can't be made.
 *
 * Not here: the parts (`scripts/proof/Parts.ts`), the page (`scripts/proof/Document.ts`).
 */
import { Option, Schema } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Document from "./proof/Document.ts"
import { notes } from "./proof/Notes.ts"
import * as Part from "./proof/Part.ts"
import { all } from "./proof/Parts.ts"

const fileOf = (name: string): string => fileURLToPath(new URL(`../docs/reference/${name}`, import.meta.url))

const decodeRecords = Schema.decodeUnknownOption(Schema.fromJsonString(Document.Records))

/** The page, or what is wrong with the reports. */
export const page = (json: string): { readonly page: string } | { readonly problem: string } => {
  const records = Option.getOrUndefined(decodeRecords(json))
  if (records === undefined) return { problem: "proof.json is not what `npm run proof` writes; run it again" }
  const problems = Document.problems(all, "long", records)
  if (problems.length > 0) return { problem: `${problems.join("; ")}; run \`npm run proof -- --only PART\`` }
  const strangers = Object.keys(notes).filter((name) => all.every((part) => part.name !== name))
  if (strangers.length > 0) return { problem: `scripts/proof/Notes.ts has notes on no part: ${strangers.join(", ")}` }
  return { page: Document.render(all, "long", records, notes) }
}

/** A run that is asked for. */
interface Asked {
  readonly part: Part.Part
  readonly run: Part.Run
  /** Where its report is already. */
  readonly file?: string
}

/** What the options ask for, or what is wrong with them. */
export const asked = (options: {
  readonly form: Part.Form
  readonly only?: string | undefined
  readonly take?: ReadonlyArray<string> | undefined
}): ReadonlyArray<Asked> | string => {
  const { form, only, take } = options
  const names = all.map(({ name }) => name)
  const partOf = (name: string): Part.Part | undefined => all.find((part) => part.name === name)
  if (take !== undefined) {
    const taken = take.map((text): Asked | string => {
      const [, name = "", runName, file] = /^(\w+)(?::([^=]+))?=(.+)$/.exec(text) ?? []
      const runs = partOf(name)?.runs.long.filter((run) => runName === undefined || run.name === runName) ?? []
      return runs.length === 1 && file !== undefined
        ? { part: partOf(name)!, run: runs[0]!, file }
        : `--take ${text} names no run: PART[:RUN]=FILE, with one of ${all.flatMap((part) => part.runs.long.map((run) => (part.runs.long.length === 1 ? part.name : `${part.name}:${run.name}`))).join(", ")}`
    })
    const wrong = taken.find((one) => typeof one === "string")
    return wrong === undefined ? (taken as ReadonlyArray<Asked>) : wrong
  }
  const wanted = only?.split(",") ?? names
  const unknown = wanted.filter((name) => !names.includes(name))
  if (unknown.length > 0) return `no such part: ${unknown.join(", ")}; there are ${names.join(", ")}`
  return all
    .filter(({ name }) => wanted.includes(name))
    .flatMap((part) => part.runs[form].map((run) => ({ part, run })))
}

const say = (text: string): void => void process.stderr.write(`${text}\n`)

const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1) ?? ""

/** What a command printed, and whether it ended as one that found nothing. */
interface Output {
  readonly text: string
  readonly isWell: boolean
}

/** Runs a command, and lets it say what it does on standard error; it is ended when it takes too long. */
const outputOf = ({ args, limitMinutes, script }: Part.Run): Promise<Output> =>
  new Promise((resolve, reject) => {
    const child = spawn("npm", ["run", "--silent", script, "--", ...args], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: limitMinutes * 60_000
    })
    let text = ""
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.on("error", reject)
    child.on("close", (code) => resolve({ text, isWell: code === 0 }))
  })

const gitSays = (...args: ReadonlyArray<string>): string => spawnSync("git", args, { encoding: "utf8" }).stdout.trim()

/** The report in what a command printed: all of it, or the last line. */
const reportIn = (text: string): Schema.Json | undefined => {
  for (const part of [text, lastLine(text)]) {
    try {
      return JSON.parse(part) as Schema.Json
    } catch {
      // It isn't all of it; or there is none.
    }
  }
  return undefined
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      short: { type: "boolean", default: false },
      only: { type: "string" },
      take: { type: "string", multiple: true },
      commit: { type: "string" },
      out: { type: "string" }
    }
  })
  const form: Part.Form = values.short ? "short" : "long"
  const runs = asked({ form, only: values.only, take: values.take })
  if (typeof runs === "string") {
    say(`proof: ${runs}.`)
    return 2
  }
  const commit = values.commit ?? gitSays("rev-parse", "--short", "HEAD")
  const day = new Date().toISOString().slice(0, 10)
  const records: Array<Document.Recorded> = []
  let failed = 0
  for (const { file, part, run } of runs) {
    const command = Part.commandOf(run)
    say(`== ${part.title}: ${command}`)
    const { isWell, text } =
      file === undefined ? await outputOf(run) : { text: readFileSync(file, "utf8"), isWell: true }
    const report = reportIn(text)
    const judged = report === undefined ? undefined : part.judge(report)
    if (report === undefined || judged === undefined) {
      say(`proof: what ${file ?? command} has is not its report.`)
      failed += 1
      continue
    }
    const isKept = judged.ok && isWell
    say(`${isKept ? "kept" : "NOT KEPT"}: ${judged.headline}`)
    if (!isKept) failed += 1
    records.push({ part: part.name, run: run.name, command, commit, day, report })
  }
  const tally = `${JSON.stringify({ passed: runs.length - failed, failed })}\n`
  if (form === "short") {
    const parts = all.filter(({ name }) => runs.some(({ part }) => part.name === name))
    const text = Document.render(parts, "short", records, {})
    if (values.out === undefined) process.stdout.write(`${text}\n`)
    else writeFileSync(values.out, text)
    process.stdout.write(tally)
    return failed === 0 ? 0 : 1
  }
  const before = Option.getOrElse(decodeRecords(readFileSync(fileOf("proof.json"), "utf8")), () => [])
  const isNew = ({ part, run }: Document.Recorded): boolean =>
    records.some((record) => record.part === part && record.run === run)
  const json = `${JSON.stringify([...before.filter((record) => !isNew(record)), ...records])}\n`
  writeFileSync(fileOf("proof.json"), json)
  const made = page(json)
  if ("problem" in made) say(`proof: the page can't be made: ${made.problem}.`)
  else writeFileSync(values.out ?? fileOf("proof.md"), made.page)
  process.stdout.write(tally)
  return "problem" in made ? 2 : failed === 0 ? 0 : 1
}

if (import.meta.main) process.exitCode = await main()
