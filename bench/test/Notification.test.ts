import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer, request } from "node:http"
import type { AddressInfo } from "node:net"
import { eachTurn } from "../benchmarks/Notification.ts"
import * as Child from "../Child.ts"
import { requests } from "../contestants/notify/Requests.ts"
import * as Distance from "../homeserver/Distance.ts"
import * as NotifyStage from "../NotifyStage.ts"

/** A server that repeats what it is sent; gives its address. */
const echo = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = createServer((asked, answer) => void asked.pipe(answer))
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()))
    return { server, address: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  }),
  ({ server }) =>
    Effect.promise(() => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    })
).pipe(Effect.map(({ address }) => address))

const distant = (baseUrl: string) =>
  Effect.acquireRelease(
    Effect.promise(() => Distance.listen({ baseUrl, oneWayMillis: 2 })),
    (server) => Effect.promise(() => new Promise((resolve) => server.close(resolve)))
  ).pipe(Effect.map(Distance.addressOf))

const post = (url: string, body: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const sent = request(url, { method: "POST", agent: false }, (answer) => {
      let text = ""
      answer.setEncoding("utf8").on("data", (part: string) => (text += part))
      answer.once("end", () => resolve(text))
    })
    sent.once("error", reject)
    sent.end(body)
  })

describe("What a turn gives", () => {
  it.effect("is its own figures, and with the last one the 99th percentile of them all", () =>
    Effect.gen(function* () {
      const millis = [3, 90, 1, 2]
      const run = Effect.sync(() => ({ shownMillis: millis.shift()!, otherCount: 7 }))
      const contestant = eachTurn(4, "shownMillis", { name: "one", role: "us", run })
      const turns = yield* Effect.replicateEffect(Effect.scoped(contestant.run), 4)
      assert.deepStrictEqual(turns, [
        { shownMillis: 3, otherCount: 7 },
        { shownMillis: 90, otherCount: 7 },
        { shownMillis: 1, otherCount: 7 },
        { shownMillis: 2, otherCount: 7, shownP99Millis: 90 }
      ])
    })
  )
})

describe("What is counted and carried", () => {
  it.live("requests of node:http and of fetch are counted when they begin", () =>
    Effect.gen(function* () {
      const address = yield* echo
      const before = requests()
      yield* Effect.promise(() => post(address, "one"))
      assert.strictEqual(requests() - before, 1)
      yield* Effect.promise(async () => (await fetch(address, { method: "POST", body: "two" })).text())
      assert.strictEqual(requests() - before, 2)
    }).pipe(Effect.scoped)
  )

  it.live("a homeserver that is far away answers everything, in order", () =>
    Effect.gen(function* () {
      const address = yield* distant(yield* echo)
      const body = Array.from({ length: 50_000 }, (_, index) => `line ${index}`).join("\n")
      assert.strictEqual(yield* Effect.promise(() => post(address, body)), body)
    }).pipe(Effect.scoped)
  )
})

interface Encrypted {
  readonly content: { readonly session_id?: string }
}

describe("The stage of notifications", () => {
  it.live(
    "a new key is another session's each time, one that is known is not; a process that resolves has the text",
    () =>
      Effect.gen(function* () {
        const stage = yield* NotifyStage.open
        const account = yield* stage.account("alice")
        yield* NotifyStage.prepareAndEnd(stage, account)
        const { accessToken, baseUrl } = account.task
        const sessionOf = Effect.fnUntraced(function* (kind: NotifyStage.RoomKind) {
          const { eventId, roomId } = yield* stage.say(account, kind)
          const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/event/${encodeURIComponent(eventId)}`
          const headers = { authorization: `Bearer ${accessToken}` }
          const event = yield* Effect.promise(async () => (await fetch(baseUrl + path, { headers })).json())
          return (event as Encrypted).content.session_id
        })
        assert.isUndefined(yield* sessionOf("plain"))
        assert.notStrictEqual(yield* sessionOf("fresh"), yield* sessionOf("fresh"))
        assert.strictEqual(yield* sessionOf("known"), yield* sessionOf("known"))

        const warm = yield* Child.bundled("contestants/notify/warm.ts")
        const program = yield* NotifyStage.start(warm, JSON.stringify(account.task))
        for (const kind of ["plain", "known", "fresh", "fresh"] as const) {
          const push = yield* stage.say(account, kind)
          const { resolved, settled } = yield* NotifyStage.resolve(program, push)
          assert.strictEqual(resolved.body, push.body)
          assert.isAtLeast(settled.requests, resolved.requests)
        }
      }).pipe(Effect.scoped),
    60_000
  )
})
