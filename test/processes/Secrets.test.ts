/**
 * No secret is in anything that a full story of real processes emits (`fixtures/SecretStory.ts`): what commands print at every
 * log level, exported logs, traces and metrics, command lines and environments, answers over the control socket, files beside
 * the database. The keys are not in the database either.
 *
 * The secrets are those of the story: the passwords, each token that was ever given out, the push key, the webhook's secret, the
 * store key, and all private keys that were stored.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Emitted from "./fixtures/Emitted.ts"
import * as SecretForms from "./fixtures/SecretForms.ts"
import * as Story from "./fixtures/SecretStory.ts"
import * as StoredSecrets from "./fixtures/StoredSecrets.ts"
import * as TemporaryDatabase from "./TemporaryDatabase.ts"

type Secret = SecretForms.Secret
type Stream = SecretForms.Stream

const isOfDatabase = (name: string): boolean => /\.db(?:-wal|-shm)?$/.test(name)
const isKey = (name: string): boolean => name.endsWith(".key")

/** Everything that somebody could see. */
const streamsOf = Effect.fnUntraced(function* ({ collector, directory, emitted, sockets }: Story.Scene) {
  const received = ["/v1/traces", "/v1/logs", "/v1/metrics", "/hook"].map((path) =>
    Emitted.streamOf(`received at ${path}`, collector.received(path))
  )
  const files = Emitted.filesIn(directory, (name) => !isOfDatabase(name) && !isKey(name))
  return [...(yield* emitted.streams), ...received, ...sockets, ...files]
})

/** The end-to-end keys, each once. */
const keysOf = ({ keyFile, keys }: Story.Scene): ReadonlyArray<Secret> => [
  SecretForms.ofBytes("store key", Buffer.from(readFileSync(keyFile, "utf8").trim(), "base64")),
  ...new Map(keys.map(({ bytes, kind }) => [bytes.toString("hex"), SecretForms.ofBytes(kind, bytes)] as const)).values()
]

const passwords = [
  SecretForms.ofText("password", Story.PASSWORD),
  SecretForms.ofText("wrong password", Story.WRONG_PASSWORD)
]

const tokensOf = ({ homeserver }: Story.Scene): ReadonlyArray<Secret> => [
  ...homeserver.accessTokens.map((token) => SecretForms.ofText("access token", token)),
  ...homeserver.refreshTokens.map((token) => SecretForms.ofText("refresh token", token)),
  SecretForms.ofText("odd token", Story.ODD_TOKEN)
]

/** Which secrets are found where, each pair once. */
const leaksIn = (streams: ReadonlyArray<Stream>, secrets: ReadonlyArray<Secret>) =>
  streams.flatMap((stream) => SecretForms.leaksIn(stream, secrets))

/** How many there are of each name, at least: fewer, and the story was not the one that is meant. */
const fewest: { readonly [name: string]: number } = {
  password: 1,
  "wrong password": 1,
  "access token": 3,
  "refresh token": 3,
  "odd token": 1,
  "push key": 1,
  "webhook secret": 1,
  "store key": 1,
  "Ed25519 identity key": 1,
  "Curve25519 identity key": 1,
  "one-time key": 50,
  "Olm ratchet": 3,
  "Megolm ratchet": 4
}

/** What must have been looked at, and how many bytes of it at least. */
const smallest: ReadonlyArray<readonly [stream: RegExp, bytes: number]> = [
  [/^stdout of application$/, 5_000],
  [/^stderr of application$/, 5_000],
  [/^stdout of run --log-level trace --json --role standby/, 1_000],
  [/^stdout of run --log-level debug/, 500],
  [/^std(?:out|err) of login/, 1_500],
  [/^stdout of (?:status|lease|stop)/, 800],
  [/^stdout of notify/, 1_000],
  [/^stdout of push/, 800],
  [/^stderr of run --role broken/, 500],
  [/^stderr of run --role crash/, 500],
  [/^stderr of run --log-level trace --json --exit-on-terminal/, 1_000],
  [/^command line of child of push-daemon/, 100],
  [/^command line of/, 5_000],
  [/^environment of/, 20_000],
  [/^control socket$/, 500],
  [/^received at \/v1\/traces$/, 50_000],
  [/^received at \/v1\/logs$/, 20_000],
  [/^received at \/v1\/metrics$/, 10_000],
  [/^received at \/hook$/, 300],
  [/^file shown\.jsonl$/, 300]
]

const bytesOf = (streams: ReadonlyArray<Stream>, name: RegExp): number =>
  streams.reduce((sum, stream) => (name.test(stream.name) ? sum + stream.bytes.length : sum), 0)

const countOf = (secrets: ReadonlyArray<Secret>, name: string): number =>
  secrets.filter((secret) => secret.name === name).length

/** What was read as private keys are those whose public halves the homeserver has. */
const assertReal = ({ keys }: Story.Scene, published: string): void => {
  const of = (kind: StoredSecrets.StoredSecret["kind"]) => keys.find((key) => key.kind === kind)!.bytes
  assert.include(published, StoredSecrets.publicOf("x25519", of("Curve25519 identity key")))
  assert.include(published, StoredSecrets.publicOf("ed25519", of("Ed25519 identity key")))
}

/** Where the story itself has put a secret, as the documents say that one does. */
const isMeant = ({ secret, stream }: SecretForms.Leak): boolean =>
  secret === "webhook secret" && /^environment of (?:child of )?push-daemon/.test(stream)

describe("A full story", () => {
  it.live("emits no secret, in no form, whatever fails", () =>
    Effect.gen(function* () {
      const scene = yield* Story.open
      const { published, pushKey } = yield* Story.play(scene)
      const secrets = [
        ...passwords,
        ...tokensOf(scene),
        ...keysOf(scene),
        SecretForms.ofText("push key", pushKey),
        SecretForms.ofText("webhook secret", Story.WEBHOOK_SECRET)
      ]
      const streams = yield* streamsOf(scene)
      const sizes = smallest.map(([name, least]) => [name.source, bytesOf(streams, name), least] as const)
      console.log(`${streams.length} streams, ${bytesOf(streams, /^/)} bytes:`, Object.fromEntries(sizes))
      console.log(
        `${secrets.length} secrets:`,
        Object.fromEntries(Object.keys(fewest).map((name) => [name, countOf(secrets, name)]))
      )
      for (const [name, least] of Object.entries(fewest)) assert.isAtLeast(countOf(secrets, name), least, name)
      for (const [name, bytes, least] of sizes) assert.isAtLeast(bytes, least, name)
      assertReal(scene, published)

      const leaks = leaksIn(streams, secrets)
      assert.deepStrictEqual(
        leaks.filter((leak) => !isMeant(leak)),
        []
      )
      // The one that is meant is found, so the others would be.
      assert.isAtLeast(leaks.length, 2)
      const database = Emitted.filesIn(scene.directory, isOfDatabase)
      assert.isAbove(bytesOf(database, /^/), 100_000)
      assert.deepStrictEqual(leaksIn(database, [...passwords, ...keysOf(scene)]), [])
      // Tokens are in the database, as the documents say.
      assert.isNotEmpty(leaksIn(database, tokensOf(scene)))
    })
  )
})

describe("What looks for secrets", () => {
  const key = Buffer.from(Array.from({ length: 32 }, (_, index) => (index * 89 + 7) & 0xff))
  const ratchet = Buffer.from(Array.from({ length: 128 }, (_, index) => (index * 151 + 3) & 0xff))
  const secrets = [
    ...passwords,
    SecretForms.ofText("access token", "syt_Ym9i_kJhdGzQwErTyUiOpAsD_1a2B3c"),
    SecretForms.ofBytes("Curve25519 identity key", key),
    SecretForms.ofBytes("Megolm ratchet", ratchet)
  ]

  it("finds each of them in each form, in the middle of other words, and half of it", () => {
    for (const secret of secrets) {
      for (const [form, whole] of Object.entries(secret.forms)) {
        const bytes = Buffer.from(whole as string)
        for (const part of [bytes, bytes.subarray(0, Math.ceil(bytes.length / 2)), bytes.subarray(bytes.length >> 1)]) {
          if (part.length < 20) continue
          const stream = { name: "s", bytes: Buffer.concat([Buffer.from("before "), part, Buffer.from(" after")]) }
          assert.isNotEmpty(SecretForms.leaksIn(stream, [secret]), `${secret.name} as ${form}`)
        }
      }
    }
  })

  it("finds keys inside of what was encoded as a whole, and numbers that are wrapped", () => {
    for (const before of ["", "a", "ab"]) {
      const longer = Buffer.concat([Buffer.from(before), key, Buffer.from("after")])
      for (const text of [longer.toString("base64"), longer.toString("base64url"), longer.toString("hex")])
        assert.isNotEmpty(SecretForms.leaksIn(Emitted.streamOf("s", text), secrets), text)
    }
    for (const text of [JSON.stringify([...key], null, 2), JSON.stringify(new Uint8Array(key)), JSON.stringify(key)])
      assert.isNotEmpty(SecretForms.leaksIn(Emitted.streamOf("s", text), secrets), text)
  })

  it("finds nothing in words that are like them", () => {
    const text =
      secrets.map(({ name }) => name).join() + Buffer.from("another key of 32 bytes, the same").toString("base64")
    assert.deepStrictEqual(SecretForms.leaksIn(Emitted.streamOf("s", text), secrets), [])
  })

  it.live("finds them in what a process prints, in its command line, its environment and its files", () =>
    Effect.gen(function* () {
      const directory = dirname(yield* TemporaryDatabase.make)
      const emitted = yield* Emitted.make
      const token = "syt_Ym9i_kJhdGzQwErTyUiOpAsD_1a2B3c"
      const file = join(directory, "leaky.mjs")
      writeFileSync(
        file,
        `import { writeFileSync } from "node:fs"
         import { spawn } from "node:child_process"
         const token = process.env.LEAK
         if (process.argv[2] === "child") setTimeout(() => {}, 60_000)
         else {
           console.error(Buffer.from(token))
           writeFileSync(${JSON.stringify(join(directory, "core.txt"))}, Buffer.from("x" + token).toString("base64"))
           spawn(process.execPath, [process.argv[1], "child", token], { env: {} }).unref()
           // Last: a child that has not begun its own program yet has the environment of this one.
           console.log(JSON.stringify({ state: "running", error: { headers: { authorization: token } } }))
           setTimeout(() => {}, 60_000)
         }`
      )
      const program = yield* emitted.start<{ readonly state: string }>({
        name: "leaky",
        file: pathToFileURL(file),
        args: [token],
        env: { LEAK: token }
      })
      yield* program.until("print", ({ state }) => state === "running")
      const wanted = [
        "command line of child of leaky",
        "command line of leaky",
        "environment of leaky",
        "file core.txt",
        "stderr of leaky",
        "stdout of leaky"
      ]
      const look = Effect.map(emitted.streams, (streams) =>
        leaksIn([...streams, ...Emitted.filesIn(directory, (name) => name.endsWith(".txt"))], secrets).map(
          ({ stream }) => stream
        )
      )
      const found = yield* TemporaryDatabase.until("all leaks", look, (leaks) => leaks.length >= wanted.length)
      assert.deepStrictEqual([...found].sort(), wanted)
    })
  )
})
