/**
 * Where notifications are measured: the dev homeserver in a process of its own, somebody who writes, and accounts that are
 * written to, each with a room in the clear and two encrypted ones.
 *
 * Gotchas: a new key for each message is what a room can ask for (`rotation_period_msgs`), and so is none for as long as
 * anything is measured.
 *
 * Not here: the programs that resolve pushes (`contestants/notify`), what is compared (`benchmarks/Notification.ts`).
 */
import { SessionStore, Twinloop } from "@twinloop/platform"
import { Effect, Redacted, Scope } from "effect"
import { pathToFileURL } from "node:url"
import type { RunEvent } from "../packages/platform/src/cli/RunEvent.ts"
import * as Program from "../test/processes/Program.ts"
import * as Child from "./Child.ts"
import type { NotifyLine, NotifyTask } from "./contestants/notify/NotifyLine.ts"
import type { DistanceTask } from "./homeserver/Distance.ts"
import type { Listening } from "./homeserver/server.ts"

/** `plain` is in the clear, in `known` all messages have one key, and in `fresh` each has a new one. */
export type RoomKind = "plain" | "known" | "fresh"

/** An account, and its rooms with the sender. */
export interface Account {
  readonly task: NotifyTask
  readonly rooms: { readonly [kind in RoomKind]: string }
}

/** What a push says, and the text that it should come to. */
export interface Push {
  readonly roomId: string
  readonly eventId: string
  readonly body: string
}

export interface Stage {
  /**
   * An account with its rooms, of which the sender is in each. Nothing has run there yet. `oneWayMillis`: how far away the
   * homeserver is for it.
   */
  account(name: string, oneWayMillis?: number): Effect.Effect<Account>
  /** Waits until an account can be encrypted for. */
  reach(account: Account): Effect.Effect<void>
  /** Has the sender say something in a room of an account; done when the homeserver has all of it. */
  say(account: Account, kind: RoomKind): Effect.Effect<Push>
}

const LIMIT_MILLIS = 60_000

type Json = { readonly [key: string]: unknown }

const post = (url: string, body: Json, token?: string): Effect.Effect<Json> =>
  Effect.promise(async () => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(body), headers })
    if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as Json
  })

const messagesPerKey: { readonly [kind in RoomKind]: number | undefined } = {
  plain: undefined,
  known: 10_000,
  fresh: 1
}

const encrypted = (messages: number) => ({
  type: "m.room.encryption",
  state_key: "",
  content: { algorithm: "m.megolm.v1.aes-sha2", rotation_period_msgs: messages }
})

const createRoom = Effect.fnUntraced(function* (owner: NotifyTask, guest: NotifyTask, kind: RoomKind) {
  const api = `${owner.baseUrl}/_matrix/client/v3`
  const messages = messagesPerKey[kind]
  const { room_id: roomId } = yield* post(
    `${api}/createRoom`,
    {
      name: `The ${kind} room`,
      preset: "private_chat",
      invite: [guest.userId],
      initial_state: messages === undefined ? [] : [encrypted(messages)]
    },
    owner.accessToken
  )
  yield* post(`${api}/join/${encodeURIComponent(String(roomId))}`, {}, guest.accessToken)
  return String(roomId)
})

/** A new user with one device, whose login is in a new database. */
const register = Effect.fnUntraced(function* (baseUrl: string, name: string) {
  const answer = yield* post(`${baseUrl}/_matrix/client/v3/register`, {
    username: name,
    password: name,
    auth: { type: "m.login.dummy" }
  })
  const task: NotifyTask = {
    baseUrl,
    userId: String(answer["user_id"]),
    deviceId: String(answer["device_id"]),
    accessToken: String(answer["access_token"]),
    database: yield* Child.newDatabase
  }
  yield* Effect.flatMap(SessionStore.SessionStore, (store) =>
    SessionStore.replace(store, {
      homeserver: baseUrl,
      userId: task.userId,
      deviceId: task.deviceId,
      accessToken: Redacted.make(task.accessToken)
    })
  ).pipe(Effect.provide(Twinloop.layerFoundation({ database: task.database })), Effect.orDie)
  return task
})

const startHomeserver = Effect.gen(function* () {
  const args = ["homeserver", "--port", "0", "--no-user", "--with-parent", "--json"]
  const program = yield* Program.start<Listening>(Program.TWINLOOP, ...args)
  const { line } = yield* program.until("listen", () => true)
  return line.baseUrl
})

/** An address at which the homeserver is far away. */
const away = Effect.fnUntraced(function* (baseUrl: string, oneWayMillis: number) {
  const task: DistanceTask = { baseUrl, oneWayMillis }
  const program = yield* Child.start<Listening>("homeserver/Distance.ts", task)
  return (yield* program.until("listen", () => true)).line.baseUrl
})

/** Starts a program of notifications, and waits until it is ready. */
export const start = Effect.fnUntraced(function* ({ cache, file }: Child.Bundle, ...args: ReadonlyArray<string>) {
  const options = { args, env: { NODE_COMPILE_CACHE: cache } }
  const program = yield* Program.startFile<NotifyLine>(pathToFileURL(file), options)
  yield* program.until("get ready", ({ event }) => event === "ready", { limitMillis: LIMIT_MILLIS })
  return program
})

/** Tells a program something, and waits for what it says then. */
const ask = Effect.fnUntraced(function* (
  program: Program.Program<NotifyLine>,
  line: string,
  event: NotifyLine["event"]
) {
  const since = yield* program.said
  yield* program.send(line)
  return (yield* program.until(`say ${event}`, (said) => said.event === event, { since, limitMillis: LIMIT_MILLIS }))
    .line
})

/** Opens the stage for as long as the scope is open. */
export const open = Effect.gen(function* () {
  const baseUrl = yield* startHomeserver
  const owner = yield* register(baseUrl, "bob")
  const bob = yield* start(yield* Child.bundled("contestants/notify/sender.ts"), JSON.stringify(owner))
  const scope = yield* Effect.scope
  let words = 0
  const stage: Stage = {
    account: (name, oneWayMillis) =>
      Effect.gen(function* () {
        const address = oneWayMillis === undefined ? baseUrl : yield* away(baseUrl, oneWayMillis)
        const task = yield* register(address, name)
        const room = (kind: RoomKind) => createRoom(owner, task, kind)
        const account: Account = {
          task,
          rooms: { plain: yield* room("plain"), known: yield* room("known"), fresh: yield* room("fresh") }
        }
        return account
      }).pipe(Effect.provideService(Scope.Scope, scope)),
    reach: ({ task }) => Effect.asVoid(ask(bob, `reach ${task.userId} ${task.deviceId}`, "reached")),
    say: Effect.fnUntraced(function* ({ rooms }, kind) {
      const body = `word${words++}`
      const roomId = rooms[kind]
      const line = yield* ask(bob, `say ${roomId} ${body}`, "said")
      return { roomId, eventId: line.event === "said" ? line.eventId : "", body }
    })
  }
  return stage
})

/** The text and the figures that a running program gives for a push, when everything about it is over. */
export const resolve = Effect.fnUntraced(function* (program: Program.Program<NotifyLine>, push: Push) {
  const since = yield* program.said
  const settled = yield* ask(program, `push ${push.roomId} ${push.eventId}`, "settled")
  const resolved = (yield* program.lines).slice(since).find((line) => line.event === "resolved")
  if (resolved?.event !== "resolved" || settled.event !== "settled") return yield* wrong(push, "nothing")
  // What is encrypted says nothing to who doesn't decrypt.
  if (resolved.body !== push.body && resolved.body !== "") return yield* wrong(push, resolved.body)
  return { resolved, settled }
})

/** A push that came to another text. */
export const wrong = ({ body, eventId }: Push, got: string) =>
  Effect.die(new Error(`the event ${eventId} says ${body}, and came to ${got}`))

/** A process that follows an account, `twinloop run`. */
export type Owner = Program.Program<RunEvent>

/** Starts one, and waits until it owns the extension stream and has all rooms. */
export const follow = Effect.fnUntraced(function* ({ task }: Account) {
  const args = ["run", "--json", "--with-parent", "--database", task.database]
  const owner: Owner = yield* Program.start<RunEvent>(Program.TWINLOOP, ...args)
  const isSyncing = (line: RunEvent): boolean =>
    line.event === "state" && line.main._tag === "Syncing" && line.extension._tag === "Syncing"
  yield* owner.until("own the stream and have all rooms", isSyncing, { limitMillis: LIMIT_MILLIS })
  return owner
})

/** Has an application follow the account until it has its rooms, and the key of the room that changes none; gives it. */
export const prepare = Effect.fnUntraced(function* (stage: Stage, account: Account) {
  const owner = yield* follow(account)
  yield* stage.reach(account)
  const since = yield* owner.said
  yield* stage.say(account, "known")
  const isKey = (line: RunEvent): boolean => line.event === "inbox" && line.type === "m.room_key"
  yield* owner.until("have the key", isKey, { since, limitMillis: LIMIT_MILLIS })
  return owner
})

/** The same, and then it ends: what is left is its database. */
export const prepareAndEnd = (stage: Stage, account: Account): Effect.Effect<void> =>
  Effect.gen(function* () {
    const owner = yield* prepare(stage, account)
    yield* owner.signal("SIGTERM")
    yield* owner.ended
  }).pipe(Effect.scoped)
