/** Two processes of an account that both send encrypted messages, which only the owner of the stream can. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Encrypted from "./fixtures/EncryptedAccount.ts"

const TURNS = 20

describe("Two processes with end-to-end keys", () => {
  it.live("I1, I2: send in turns, and each time the stream goes to and fro, with nothing lost or doubled", () =>
    Effect.gen(function* () {
      const account = yield* Encrypted.make
      const first = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, first, { config: { role: "first" } })
      yield* first.until("own the stream", Encrypted.owns)
      yield* first.until("upload keys", (line) => line.event === "uploads")
      const second = yield* Encrypted.start(account)
      yield* Encrypted.begin(account, second, { config: { role: "second" } })
      yield* second.until("wait for the lock", Encrypted.waits)

      const bodies: Array<string> = []
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [name, process] of [
          ["first", first],
          ["second", second]
        ] as const) {
          const body = `${name} ${turn}`
          bodies.push(body)
          const since = yield* process.said
          yield* Encrypted.aliceSays(account, `alice, while ${body}`, turn)
          yield* Encrypted.tell(process, { do: "send", messages: Encrypted.want(account, [body]) })
          yield* process.until(`send ${body}`, (line) => line.event === "sent" && line.body === body, { since })
        }
      }
      yield* Encrypted.untilApplied(account)
      yield* Encrypted.hear(account, first)
      yield* Encrypted.hear(account, second)
      const { conflicts, duplicated, lost } = yield* Encrypted.judge(account, bodies)
      assert.deepStrictEqual([lost, duplicated, conflicts], [[], [], 0])
      // Each message was sent by another owner than the one before, but for the first.
      const [row] = yield* Encrypted.lease(account)
      assert.isAtLeast(row?.generation ?? 0, 2 * TURNS)
      console.log(`to and fro: ${bodies.length} messages, ${row?.generation} owners, 0 lost, 0 duplicated`)
    })
  )
})
