import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { DevHomeserver, layer } from "../src/dev/DevHomeserver.ts"

interface Answer {
  readonly status: number
  readonly json: { readonly [key: string]: unknown }
}

const ask = (method: string, path: string, body: string, token = "") =>
  Effect.flatMap(DevHomeserver, ({ baseUrl }) =>
    Effect.promise(async (): Promise<Answer> => {
      const response = await fetch(baseUrl + path, { method, headers: { authorization: `Bearer ${token}` }, body })
      return { status: response.status, json: (await response.json()) as Answer["json"] }
    })
  )

const makeUser = Effect.map(ask("POST", "/_twinloop/users", `{"username":"alice"}`), ({ json }) => ({
  userId: String(json.user_id),
  deviceId: String(json.device_id),
  token: String(json.access_token)
}))

describe("The dev homeserver", () => {
  it.live("refuses a message that is nested too deeply to be delivered, and goes on delivering", () =>
    Effect.gen(function* () {
      const { deviceId, token, userId } = yield* makeUser
      const send = (txnId: string, content: string) =>
        ask(
          "PUT",
          `/_matrix/client/v3/sendToDevice/t/${txnId}`,
          `{"messages":{"${userId}":{"${deviceId}":${content}}}}`,
          token
        )
      const deep = yield* send("1", `{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`)
      assert.deepStrictEqual([deep.status, deep.json.errcode], [400, "M_BAD_JSON"])
      assert.strictEqual((yield* send("2", `{"a":1}`)).status, 200)
      const sync = yield* ask(
        "POST",
        "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
        `{"extensions":{"to_device":{"enabled":true}}}`,
        token
      )
      assert.strictEqual(sync.status, 200)
      const { to_device } = sync.json.extensions as { readonly to_device: { readonly events: ReadonlyArray<unknown> } }
      assert.lengthOf(to_device.events, 1)
    }).pipe(Effect.provide(layer({ port: 0 })))
  )

  it.live("I10: refuses a body that is larger than any client sends", () =>
    Effect.gen(function* () {
      const large = yield* ask("POST", "/_matrix/client/v3/login", `{"type":"${"a".repeat(12_000_000)}"}`)
      assert.deepStrictEqual([large.status, large.json.errcode], [413, "M_TOO_LARGE"])
    }).pipe(Effect.provide(layer({ port: 0 })))
  )
})
