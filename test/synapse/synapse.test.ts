/**
 * A real Synapse does what the rest of the project believes of it: detection, accounts, sliding sync as it is spelled today,
 * and above all when a to-device event is deleted (invariant I2 rests on that).
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Redacted, Schedule } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { AccountSession } from "../../packages/platform/src/http/Session.ts"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import { request } from "../../packages/platform/src/synapse/SynapseApi.ts"

interface SyncJson {
  readonly pos: string
  readonly errcode?: string
  readonly lists?: { readonly [key: string]: { readonly count: number } }
  readonly rooms: { readonly [roomId: string]: { readonly initial?: boolean; readonly name?: string } }
  readonly extensions: {
    readonly to_device?: {
      readonly next_batch: string
      readonly events: ReadonlyArray<{ readonly content: { readonly n: number } }>
    }
  }
}

const syncPath = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

const list = { ranges: [[0, 19]], required_state: [["m.room.create", ""]], timeline_limit: 1 }

const sync = Effect.fnUntraced(function* (session: AccountSession, body: unknown, pos?: string) {
  const synapse = yield* Synapse
  const path = pos === undefined ? syncPath : `${syncPath}?pos=${encodeURIComponent(pos)}`
  const { status, json } = yield* synapse.request({ method: "POST", path, body, accessToken: session.accessToken })
  return { status, json: json as SyncJson }
})

const readToDevice = Effect.fnUntraced(function* (session: AccountSession, since?: string) {
  const toDevice = { enabled: true, limit: 100, ...(since === undefined ? {} : { since }) }
  const { json } = yield* sync(session, { conn_id: "extension", extensions: { to_device: toDevice } })
  const { next_batch, events } = json.extensions.to_device!
  return { next: next_batch, numbers: events.map((event) => event.content.n) }
})

const sendToDevice = Effect.fnUntraced(function* (from: AccountSession, to: AccountSession, n: number) {
  const synapse = yield* Synapse
  const { status } = yield* synapse.request({
    method: "PUT",
    path: `/_matrix/client/v3/sendToDevice/com.example.numbered/txn-${to.deviceId}-${n}`,
    body: { messages: { [to.userId]: { [to.deviceId]: { n } } } },
    accessToken: from.accessToken
  })
  assert.strictEqual(status, 200)
})

const createRoom = Effect.fnUntraced(function* (session: AccountSession, name: string) {
  const synapse = yield* Synapse
  const { accessToken } = session
  const made = yield* synapse.request({
    method: "POST",
    path: "/_matrix/client/v3/createRoom",
    body: { name },
    accessToken
  })
  assert.strictEqual(made.status, 200)
})

const numbers = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)

describe("Synapse", () => {
  const synapseLayer = Layer.provideMerge(Synapse.layer(), NodeServices.layer)

  layer(synapseLayer, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("offers simplified sliding sync at the unstable endpoint, and not at /v4/sync", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const { accessToken } = yield* synapse.register({ username: "versions" })
        const versions = yield* synapse.request({ method: "GET", path: "/_matrix/client/versions", accessToken })
        const features = (versions.json as { readonly unstable_features: { readonly [name: string]: boolean } })
          .unstable_features
        assert.isTrue(features["org.matrix.simplified_msc3575"])
        const stable = yield* synapse.request({
          method: "POST",
          path: "/_matrix/client/v4/sync",
          body: {},
          accessToken
        })
        assert.deepStrictEqual(
          [stable.status, (stable.json as { readonly errcode: string }).errcode],
          [404, "M_UNRECOGNIZED"]
        )
      })
    )

    it.effect("gives every account a device and a token, and keeps the token out of sight", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const session = yield* synapse.register({ username: "alice", password: "a secret" })
        assert.strictEqual(session.userId, "@alice:localhost")
        assert.notStrictEqual(session.deviceId, "")
        assert.notInclude(JSON.stringify(session), Redacted.value(session.accessToken))
        const again = yield* Effect.flip(synapse.register({ username: "alice" }))
        assert.match(again.message, /alice.*M_USER_IN_USE/)
      })
    )

    it.effect("answers a list with its rooms, and expires a position when its connection starts afresh", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const session = yield* synapse.register({ username: "lists" })
        yield* createRoom(session, "one")
        const body = { conn_id: "main", lists: { all: list } }
        const first = yield* sync(session, body)
        assert.strictEqual(first.json.lists?.all?.count, 1)
        assert.deepStrictEqual(
          Object.values(first.json.rooms).map((room) => [room.initial, room.name]),
          [[true, "one"]]
        )
        assert.strictEqual((yield* sync(session, body, first.json.pos)).status, 200)

        yield* synapse.expirePosition(session, "main")
        const expired = yield* sync(session, body, first.json.pos)
        assert.deepStrictEqual([expired.status, expired.json.errcode], [400, "M_UNKNOWN_POS"])
      })
    )

    it.effect("answers 500 to an extension over a list without exactly one range", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const session = yield* synapse.register({ username: "ranges" })
        const status = (ranges: ReadonlyArray<ReadonlyArray<number>>) =>
          sync(session, {
            lists: { all: { ...list, ranges } },
            extensions: { account_data: { enabled: true } }
          }).pipe(Effect.map((response) => response.status))
        assert.strictEqual(yield* status([[0, 9]]), 200)
        assert.strictEqual(yield* status([]), 500)
        assert.strictEqual(
          yield* status([
            [0, 4],
            [5, 9]
          ]),
          500
        )
      })
    )

    it.effect("I2: deletes to-device events when their `since` comes back, and never before", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const sender = yield* synapse.register({ username: "sender" })
        const reader = yield* synapse.register({ username: "reader" })
        yield* Effect.forEach(numbers(1, 3), (n) => sendToDevice(sender, reader, n))

        // Reading doesn't delete, however often; and nothing is deleted by a request without `since`.
        const first = yield* readToDevice(reader)
        assert.deepStrictEqual(first.numbers, [1, 2, 3])
        assert.deepStrictEqual((yield* readToDevice(reader)).numbers, [1, 2, 3])

        // The acknowledgement deletes what came before it, and the same `since` gives the same events again.
        yield* sendToDevice(sender, reader, 4)
        assert.deepStrictEqual((yield* readToDevice(reader, first.next)).numbers, [4])
        assert.deepStrictEqual((yield* readToDevice(reader, first.next)).numbers, [4])
        assert.deepStrictEqual((yield* readToDevice(reader)).numbers, [4])
      })
    )

    it.effect("hands out more than a hundred to-device events in order, a hundred at a time", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const sender = yield* synapse.register({ username: "many-sender" })
        const reader = yield* synapse.register({ username: "many-reader" })
        yield* Effect.forEach(numbers(1, 130), (n) => sendToDevice(sender, reader, n))
        const first = yield* readToDevice(reader)
        assert.deepStrictEqual(first.numbers, numbers(1, 100))
        const second = yield* readToDevice(reader, first.next)
        assert.deepStrictEqual(second.numbers, numbers(101, 130))
        assert.deepStrictEqual((yield* readToDevice(reader, second.next)).numbers, [])
      })
    )

    it.effect("never expires the position of a connection that has extensions only", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const session = yield* synapse.register({ username: "extension" })
        const body = { conn_id: "extension", extensions: { to_device: { enabled: true }, e2ee: { enabled: true } } }
        const first = yield* sync(session, body)
        yield* sync(session, body)
        assert.strictEqual((yield* sync(session, body, first.json.pos)).status, 200)
      })
    )

    it.effect("is back after an outage with all that it knew", () =>
      Effect.gen(function* () {
        const synapse = yield* Synapse
        const session = yield* synapse.register({ username: "outage" })
        yield* createRoom(session, "kept")
        const during = yield* synapse.outage(Effect.flip(synapse.request({ method: "GET", path: "/health" })))
        assert.strictEqual(during.reason._tag, "RequestFailed")
        const after = yield* sync(session, { lists: { all: list } })
        assert.deepStrictEqual(
          Object.values(after.json.rooms).map((room) => room.name),
          ["kept"]
        )
      })
    )

    it.effect("ends, and leaves nothing behind, when the process that started it is killed", () =>
      Effect.gen(function* () {
        const holder = spawn(process.execPath, [fileURLToPath(new URL("holder.ts", import.meta.url))])
        yield* Effect.addFinalizer(() => Effect.sync(() => holder.kill("SIGKILL")))
        const [line] = yield* Effect.promise(() => once(createInterface(holder.stdout), "line") as Promise<[string]>)
        const [baseUrl = "", directory = ""] = line.split(" ")
        assert.isTrue(existsSync(directory))
        const health = request(baseUrl, { method: "GET", path: "/health" })
        assert.strictEqual((yield* health).status, 200)

        holder.kill("SIGKILL")
        const gone = Effect.flip(health).pipe(Effect.retry(Schedule.spaced("100 millis")), Effect.timeout("20 seconds"))
        assert.strictEqual((yield* gone).reason._tag, "RequestFailed")
        const wiped = Effect.sync(() => !existsSync(directory))
        yield* wiped.pipe(
          Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("100 millis") }),
          Effect.timeout("20 seconds")
        )
      })
    )
  })
})
