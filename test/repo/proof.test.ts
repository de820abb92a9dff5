import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import * as Proof from "../../scripts/proof.ts"
import * as Document from "../../scripts/proof/Document.ts"
import * as Part from "../../scripts/proof/Part.ts"
import { all } from "../../scripts/proof/Parts.ts"

const run: Part.Run = { name: "one", script: "try", args: ["--hard", "--json"], limitMinutes: 1 }

const part = Part.make({
  name: "trial",
  title: "A trial",
  how: "Somebody tries.",
  runs: { short: [run], long: [run, { ...run, name: "two", args: ["--harder", "--json"] }] },
  report: Schema.Struct({ lost: Schema.Finite }),
  judge: ({ lost }) => ({ ok: lost === 0, headline: `${lost} lost`, figures: [["lost", String(lost)]] })
})

const recorded = (lost: number, of = run): Document.Recorded => ({
  part: "trial",
  run: of.name,
  command: Part.commandOf(of),
  commit: "abc1234",
  day: "2026-11-30",
  report: { lost }
})

const long = part.runs.long.map((one) => recorded(0, one))

describe("the page of the proof", () => {
  it("has the figures that the commands printed, where they come from, and whether all was kept", () => {
    const page = Document.render([part], "long", [recorded(0), { ...long[1]!, report: { lost: 3 } }], {
      trial: "It found a bug."
    })
    assert.include(page, "| A trial: one | 0 lost | yes |\n| A trial: two | 3 lost | **no** |")
    assert.include(page, "| lost | 0 | 3 |")
    assert.include(page, "- `npm run try -- --harder`, at abc1234 on 2026-11-30")
    assert.include(page, "It found a bug.")
  })

  it("can't be made without the report of each run, or with that of another command", () => {
    assert.deepStrictEqual(Document.problems([part], "long", long), [])
    assert.match(Document.problems([part], "long", [long[0]!]).join(), /0 reports of "trial", run "two"/)
    assert.match(Document.problems([part], "long", [...long, long[0]!]).join(), /2 reports of "trial", run "one"/)
    assert.match(Document.problems([part], "long", [long[0]!, { ...long[1]!, command: "x" }]).join(), /"x" is not/)
    assert.match(Document.problems([part], "long", [long[0]!, { ...long[1]!, report: {} }]).join(), /is not what/)
    assert.match(Document.problems([part], "long", [...long, { ...long[0]!, run: "three" }]).join(), /no run "three"/)
  })

  it("is what the script makes of the reports beside it, of all parts in full", () => {
    const read = (name: string) => readFileSync(new URL(`../../docs/reference/${name}`, import.meta.url), "utf8")
    assert.deepStrictEqual(Proof.page(read("proof.json")), { page: read("proof.md") })
  })

  it("isn't made of what isn't such a file", () => {
    const made = Proof.page("half a rep")
    assert.include("problem" in made ? made.problem : "", "is not what")
  })
})

describe("the runs of the proof", () => {
  const namesOf = (found: ReturnType<typeof Proof.asked>) =>
    typeof found === "string" ? found : [...new Set(found.map(({ part: { name } }) => name))]

  it("are all of a form, some, or those whose reports are there", () => {
    assert.deepStrictEqual(
      namesOf(Proof.asked({ form: "long" })),
      all.map(({ name }) => name)
    )
    assert.deepStrictEqual(namesOf(Proof.asked({ form: "long", only: "soak,fuzz" })), ["fuzz", "soak"])
    const taken = Proof.asked({ form: "long", take: ["chaos:Synapse=a.json", "soak=b.json"] })
    assert.deepStrictEqual(typeof taken === "string" ? taken : taken.map(({ file, run: { name } }) => [name, file]), [
      ["Synapse", "a.json"],
      ["whole", "b.json"]
    ])
  })

  it("say what is wrong with a command line", () => {
    assert.match(Proof.asked({ form: "long", only: "hope" }) as string, /no such part: hope; there are simulation/)
    assert.match(Proof.asked({ form: "long", take: ["chaos=a.json"] }) as string, /names no run.*chaos:Synapse/)
  })

  it("are unique, and their parts too", () => {
    const keys = all.flatMap(({ name, runs }) => [
      ...runs.long.map((one) => `long ${name} ${one.name}`),
      ...runs.short.map((one) => `short ${name} ${one.name}`)
    ])
    assert.lengthOf(new Set(keys), keys.length)
  })
})
