import { assert, describe, it } from "@effect/vitest"
import { NotificationSink } from "@twinloop/core"
import { Effect, Layer, Result } from "effect"
import { HttpSockets } from "../../src/http/HttpSockets.ts"
import * as ManySinks from "../../src/push/sinks/ManySinks.ts"
import * as SinkChoice from "../../src/push/sinks/SinkChoice.ts"
import { isKnown, messageOf, sinkOf } from "./SinkKit.ts"

type Sink = NotificationSink.NotificationSink["Service"]

/** A sink that keeps ids, and fails as often as it is told. */
const keeping = (name: string, { fails = 0, tells = false } = {}): Sink & { readonly ids: Array<string> } => {
  const ids: Array<string> = []
  let left = fails
  return {
    name,
    ids,
    show: ({ request }) =>
      Effect.suspend(() => {
        left -= 1
        if (left >= 0) return Effect.fail(new NotificationSink.SinkError({ sink: name, message: `${name} is broken.` }))
        ids.push(request.eventId)
        return Effect.void
      }),
    ...(tells && { isKnown: ({ eventId }: { readonly eventId: string }) => Effect.sync(() => ids.includes(eventId)) })
  }
}

describe("ManySinks", () => {
  it.effect("I7: shows in all, and names those that failed", () =>
    Effect.gen(function* () {
      const [one, two, three] = [keeping("one", { fails: 1 }), keeping("two"), keeping("three", { fails: 1 })]
      const error = yield* Effect.flip(ManySinks.of([one, two, three]).show(messageOf("$1")))
      assert.deepInclude(error, {
        sink: "one, three",
        message: "one: one is broken. three: three is broken."
      })
      assert.deepStrictEqual(two.ids, ["$1"])
    })
  )

  it.effect("doesn't show again where it was shown, when it is tried again for another", () =>
    Effect.gen(function* () {
      const [plain, telling, broken] = [keeping("plain"), keeping("tells", { tells: true }), keeping("x", { fails: 2 })]
      const sink = ManySinks.of([plain, telling, broken])
      yield* Effect.flip(sink.show(messageOf("$1")))
      yield* Effect.flip(sink.show(messageOf("$1")))
      yield* sink.show(messageOf("$1"))
      assert.deepStrictEqual([plain.ids, telling.ids, broken.ids], [["$1"], ["$1"], ["$1"]])
    })
  )

  it.effect("after a kill shows only where it isn't known", () =>
    Effect.gen(function* () {
      const [shown, other] = [keeping("shown", { tells: true }), keeping("other", { tells: true })]
      yield* shown.show(messageOf("$1"))
      yield* ManySinks.of([shown, other]).show(messageOf("$1"))
      assert.deepStrictEqual([shown.ids, other.ids], [["$1"], ["$1"]])
    })
  )

  it.effect("knows what all of them know, and can't tell where one can't", () =>
    Effect.gen(function* () {
      const [one, two] = [keeping("one", { tells: true }), keeping("two", { tells: true })]
      const sink = ManySinks.of([one, two])
      yield* one.show(messageOf("$1"))
      assert.isFalse(yield* isKnown(sink, "$1"))
      yield* two.show(messageOf("$1"))
      assert.isTrue(yield* isKnown(sink, "$1"))
      assert.isUndefined(ManySinks.of([one, keeping("three")]).isKnown)
      assert.isUndefined(ManySinks.of([]).isKnown)
    })
  )

  it.effect("hides no bug of one, and shows in the others all the same", () =>
    Effect.gen(function* () {
      const buggy: Sink = { name: "buggy", show: () => Effect.die("a bug") }
      const other = keeping("other")
      const exit = yield* Effect.exit(ManySinks.of([buggy, other]).show(messageOf("$1")))
      assert.include(JSON.stringify(exit), "a bug")
      assert.deepStrictEqual(other.ids, ["$1"])
    })
  )

  it.effect("is made of layers", () =>
    Effect.gen(function* () {
      const sinks = [keeping("one"), keeping("two")]
      const sink = yield* sinkOf(
        ManySinks.layer(sinks.map((one) => Layer.succeed(NotificationSink.NotificationSink, one)))
      )
      yield* sink.show(messageOf("$1"))
      assert.strictEqual(sink.name, "one, two")
      assert.deepStrictEqual(
        sinks.map(({ ids }) => ids),
        [["$1"], ["$1"]]
      )
    })
  )
})

describe("SinkChoice", () => {
  it("reads what a command line says", () => {
    const read = (text: string) => Result.getOrThrow(SinkChoice.parse(text))
    assert.deepStrictEqual(read("terminal"), { _tag: "Terminal" })
    assert.deepStrictEqual(read("desktop"), { _tag: "Desktop" })
    assert.deepStrictEqual(read("jsonl:a:b.jsonl"), { _tag: "JsonLines", file: "a:b.jsonl" })
    assert.deepStrictEqual(read("webhook:https://hs:8/x?y"), { _tag: "Webhook", url: "https://hs:8/x?y" })
  })

  it("lists what there is instead of anything else", () => {
    const wrong = ["", "email", "terminal:x", "desktop:", "jsonl", "jsonl:", "webhook:ftp://x/", "webhook:hidden"]
    for (const text of [...wrong, "__proto__", "\u001b[2J"]) {
      const error = Result.getOrThrow(Result.flip(SinkChoice.parse(text)))
      assert.strictEqual(error._tag, "InvalidSink")
      for (const name of ["terminal", "desktop", "jsonl:FILE", "webhook:URL"]) assert.include(error.message, name)
      assert.notMatch(error.message, /hidden|\p{Cc}/u)
    }
  })

  it.effect("makes the sink that was chosen", () =>
    Effect.gen(function* () {
      for (const [choice, name] of [
        ["terminal", "terminal"],
        ["jsonl:x", "jsonl"],
        ["webhook:https://x/", "webhook"]
      ] as const) {
        const sink = yield* sinkOf(SinkChoice.layer(Result.getOrThrow(SinkChoice.parse(choice))))
        assert.strictEqual(sink.name, name)
      }
    }).pipe(Effect.provide(HttpSockets.layer))
  )
})
