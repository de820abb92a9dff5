import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Rules from "../../packages/core/test/model/Rules.ts"
import { follow, type Seen } from "./model/Paths.ts"
import { type Act, play } from "./model/Recording.ts"
import * as Stories from "./model/Stories.ts"

/** Plays a story from the beginning of time. */
const seenIn = (acts: ReadonlyArray<Act>, fences?: Parameters<typeof play>[1]) =>
  Effect.provide(Effect.orDie(play(acts, fences)), TestClock.layer())

const words = ({ over, shared, what }: Seen): string =>
  `${what}: ${JSON.stringify(shared)}, over ${JSON.stringify(over)}`

const assertFollowed = (story: ReadonlyArray<Seen>): void => {
  const { stranger } = follow(story)
  if (stranger === undefined) return
  const before = stranger.before.map((shared) => JSON.stringify(shared))
  const lines = story.slice(0, stranger.at + 1).map(words)
  assert.fail([...lines, "is none of the model's; before, it is in", ...before].join("\n"))
}

/** What was seen, whichever application did it. */
const kinds = (story: ReadonlyArray<Seen>): ReadonlyArray<string> =>
  story.map(({ what }) => what.replace(/^[AB] /, "application ").replace(/ for \d+$/, ""))

const whatOfBoth = ["changes the lease", "reads", "loads", "is answered", "commits", "sends"]
const whatOfOne = ["is started", "is suspended", "is resumed", "is killed", "hurries", "drops", "is refused"]
const faults = ["fails: commit", "fails: expired", "fails: network"]

describe("The model, and what real processes do", { timeout: 120_000 }, () => {
  it.live("I1, I2: has every step of real applications and notification clients, whatever happens to them", () =>
    Effect.gen(function* () {
      const met = new Set<string>()
      for (const acts of [Stories.handing, Stories.pushing, Stories.frozen, ...Stories.draw(7, 4)]) {
        const story = yield* seenIn(acts)
        assertFollowed(story)
        for (const kind of kinds(story)) met.add(kind)
      }
      const ofApplication = [...whatOfBoth, ...whatOfOne, ...faults].map((what) => `application ${what}`)
      const expected = ["event arrives", "N is pushed", ...whatOfBoth.map((what) => `N ${what}`), ...ofApplication]
      assert.deepStrictEqual(
        expected.filter((kind) => !met.has(kind)),
        []
      )
    })
  )

  it.live("doesn't have a story from which anything is left out", () =>
    Effect.gen(function* () {
      const stories = [Stories.handing.slice(0, 12), Stories.pushing.slice(0, 3)]
      for (const acts of stories) {
        const story = yield* seenIn(acts)
        const without = (left: number) => story.filter((_, at) => at !== left)
        const unnoticed = story.slice(0, -1).filter((_, at) => follow(without(at)).stranger === undefined)
        // A position that was read has no consequence when whoever has read it is interrupted before he asks.
        assert.deepStrictEqual(unnoticed.filter(({ what }) => !what.endsWith(" reads")).map(words), [])
        assert.isAbove(story.length - unnoticed.length, 10)
      }
    })
  )

  it.live("I1: doesn't have the commit that a database takes which checks no fence", () =>
    Effect.gen(function* () {
      const fenced = yield* seenIn(Stories.frozen)
      assert.include(
        fenced.map(({ what }) => what),
        "A is refused"
      )
      const story = yield* seenIn(Stories.frozen, (leases) => ({ ...leases, holds: () => Effect.succeed(true) }))
      const { stranger } = follow(story)
      assert.deepStrictEqual([stranger?.seen.what, stranger?.seen.shared.owner], ["A commits", "B"])
    })
  )

  it.live("doesn't follow real processes under other rules than theirs", () =>
    Effect.gen(function* () {
      const story = yield* seenIn(Stories.handing)
      const others: ReadonlyArray<Partial<Rules.Rules>> = [
        { stands: () => false },
        { isDirty: () => false },
        { isDirty: () => true },
        { releasesOnSuspend: false },
        { acknowledgesEarly: true },
        { take: (table, request) => Rules.real.take(table, { ...request, urgent: false }) },
        { release: (table) => [table, { _tag: "NotHeld" }] }
      ]
      for (const rules of others) assert.isDefined(follow(story, { ...Rules.real, ...rules }).stranger)
    })
  )
})
