/**
 * Encrypted rooms on a real Synapse: the whole service with its Olm machine, and what an application sees of it.
 *
 * Gotchas: a live timeline is followed from when it is asked for, and everything that it told is kept.
 *
 * Not here: people and rooms (`ServiceKit.ts`), the other side (`JsSdk.ts`), what goes over the wire (`Wire.ts`).
 */
import { Encryption, EncryptionNews, Rooms } from "@twinloop/actors"
import { ListDiff, type SyncConfig } from "@twinloop/core"
import { StoreKey, Twinloop } from "@twinloop/platform"
import { Context, Duration, Effect, Layer, Option, Predicate, Redacted, Stream, SubscriptionRef } from "effect"
import * as Kit from "./ServiceKit.ts"

const limit = Duration.seconds(45)

export const MEGOLM = "m.megolm.v1.aes-sha2"

/** Options of a room that is encrypted from the start. */
export const encrypted = (settings: Kit.Json = {}, options: Kit.Json = {}): Kit.Json => ({
  ...options,
  initial_state: [
    { type: "m.room.encryption", state_key: "", content: { algorithm: MEGOLM, ...settings } },
    ...((options["initial_state"] as ReadonlyArray<unknown> | undefined) ?? [])
  ]
})

/** A service that runs with its Olm machine. */
export interface Running extends Kit.Running {
  readonly conversations: Rooms.Rooms["Service"]
  readonly encryption: Encryption.Encryption["Service"]
  readonly news: EncryptionNews.EncryptionNews["Service"]
}

/** A further login of a person, whose password is the account's name. */
export const newDevice = Effect.fnUntraced(function* (person: Kit.Person) {
  const { homeserver, userId } = person.session
  const identifier = { type: "m.id.user", user: userId }
  const body = { type: "m.login.password", identifier, password: passwordOf(person) }
  const json = yield* Kit.call(person, "POST", "/_matrix/client/v3/login", body)
  const { access_token: accessToken, device_id: deviceId } = json
  const session = {
    homeserver,
    userId,
    deviceId: String(deviceId),
    accessToken: Redacted.make(String(accessToken), { label: "access token" })
  }
  const device: Kit.Person = { session, userId }
  return device
})

/** The name of an account, which is its password too. */
export const passwordOf = ({ userId }: Kit.Person): string => /^@(.+):/.exec(userId)?.[1] ?? ""

/** What a person answers when the homeserver asks who it is. */
export const authOf = (person: Kit.Person, session: string | undefined): Kit.Json => ({
  type: "m.login.password",
  identifier: { type: "m.id.user", user: person.userId },
  password: passwordOf(person),
  ...(session === undefined ? {} : { session })
})

/** Deletes a device of a person's, by another one of the same person. */
export const deleteDevice = Effect.fnUntraced(function* (by: Kit.Person, deviceId: string) {
  const path = `/_matrix/client/v3/devices/${deviceId}`
  const { json } = yield* Kit.ask(by, "DELETE", path, {})
  yield* Kit.call(by, "DELETE", path, { auth: authOf(by, String((json as Kit.Json)["session"])) })
})

/** A login at another address of the same homeserver. */
export const at = (baseUrl: string, person: Kit.Person): Kit.Person => ({
  ...person,
  session: { ...person.session, homeserver: baseUrl }
})

export const optionsOf = (
  { database }: Kit.Account,
  config: Partial<SyncConfig.SyncConfigShape>
): Twinloop.Options => ({
  database,
  config,
  encryption: StoreKey.StoreKey.layerFile(`${database}.key`)
})

/** Runs the whole service until the scope closes, and waits until it is loaded. */
export const run = Effect.fnUntraced(function* (
  account: Kit.Account,
  config: Partial<SyncConfig.SyncConfigShape> = {}
) {
  const context = yield* Effect.orDie(Layer.build(Twinloop.layer(optionsOf(account, config))))
  const running: Running = {
    ...Kit.runningOf(context, config),
    conversations: Context.get(context, Rooms.Rooms),
    encryption: Context.get(context, Encryption.Encryption),
    news: Context.get(context, EncryptionNews.EncryptionNews)
  }
  yield* running.service.start
  yield* Kit.untilLoaded(running)
  return running
})

/** Waits until a room is joined and known to be encrypted. */
export const untilEncrypted = (running: Running, roomId: string) =>
  Kit.untilRoom(running, roomId, "joining", (room) => room.membership === "join" && room.isEncrypted)

/** Sends an event, and gives its id. */
export const send = (
  running: Running,
  roomId: string,
  type: string,
  content: Kit.Json,
  options: Rooms.SendOptions = {}
) => Effect.orDie(running.conversations.send(roomId, type, content, options))

/** Sends a text message; its event id. */
export const say = (running: Running, roomId: string, body: string, options: Rooms.SendOptions = {}) =>
  send(running, roomId, "m.room.message", { msgtype: "m.text", body }, options)

/** Waits until the known devices of a user are as wanted; looks again whenever the homeserver has told of some. */
export const untilDevices = Effect.fnUntraced(function* (
  running: Running,
  userId: string,
  isWanted: (deviceIds: ReadonlyArray<string>) => boolean
) {
  const follower = yield* Effect.orDie(running.news.follow)
  const devices = Effect.map(Effect.orDie(running.encryption.devices(userId)), (all) =>
    all.map(({ deviceId }) => deviceId)
  )
  const wanted = Effect.gen(function* () {
    for (let ids = yield* devices; ; ids = yield* devices) {
      if (isWanted(ids)) return ids
      yield* Effect.orDie(follower.next)
    }
  })
  return yield* Effect.timeoutOrElse(wanted, {
    duration: limit,
    orElse: () => Effect.die(`waited in vain for the devices of ${userId}`)
  })
})

/** An event of a timeline as it is shown. */
export type Shown = Extract<Rooms.TimelineItem, { readonly _tag: "Event" }>

/** A live timeline, followed. */
export interface Live {
  /** Waits until an entry is as wanted, and gives it. */
  until(what: string, isWanted: (item: Shown) => boolean): Effect.Effect<Shown>
  /** Waits until an event is shown decrypted. */
  decrypted(eventId: string): Effect.Effect<Shown>
  /** Waits until an event is shown that can't be decrypted. */
  undecryptable(eventId: string): Effect.Effect<Shown>
  readonly items: Effect.Effect<ReadonlyArray<Shown>>
  /** Everything that the stream gave, oldest first. */
  readonly told: Effect.Effect<ReadonlyArray<ListDiff.Diff<Rooms.TimelineItem>>>
}

interface Followed {
  readonly items: ReadonlyArray<Rooms.TimelineItem>
  readonly told: ReadonlyArray<ListDiff.Diff<Rooms.TimelineItem>>
}

const eventsOf = ({ items }: Followed): ReadonlyArray<Shown> => items.filter((item) => item._tag === "Event")

const brief = ({ decryption, event }: Shown): unknown => [
  event.event_id,
  event.type,
  event.content["body"],
  decryption?._tag === "Decrypted" ? decryption.shield : decryption
]

/** Follows a room's live timeline until the scope closes. */
export const live = Effect.fnUntraced(function* (running: Running, roomId: string, entries = 50) {
  const stream = yield* Effect.orDie(running.conversations.live(roomId, { limit: entries }))
  const followed = yield* SubscriptionRef.make<Followed>({ items: [], told: [] })
  yield* Effect.forkScoped(
    Effect.orDie(
      Stream.runForEach(stream, (changes) =>
        SubscriptionRef.update(followed, ({ items, told }) => ({
          items: ListDiff.applyAll(items, changes),
          told: [...told, ...changes]
        }))
      )
    )
  )
  const until = Effect.fnUntraced(function* (what: string, isWanted: (item: Shown) => boolean) {
    const found = SubscriptionRef.changes(followed).pipe(
      Stream.map((now) => eventsOf(now).find(isWanted)),
      Stream.filter(Predicate.isNotUndefined),
      Stream.runHead,
      Effect.timeoutOption(limit)
    )
    const option = Option.flatten(yield* found)
    if (Option.isSome(option)) return option.value
    const last = eventsOf(yield* SubscriptionRef.get(followed)).map(brief)
    return yield* Effect.die(`waited in vain for ${what} in ${roomId}; shown: ${JSON.stringify(last, undefined, 2)}`)
  })
  const result: Live = {
    until,
    decrypted: (eventId) =>
      until(
        `${eventId}, decrypted`,
        ({ decryption, event }) => event.event_id === eventId && decryption?._tag === "Decrypted"
      ),
    undecryptable: (eventId) =>
      until(
        `${eventId}, which can't be decrypted`,
        ({ decryption, event }) => event.event_id === eventId && decryption?._tag === "Undecryptable"
      ),
    items: Effect.map(SubscriptionRef.get(followed), eventsOf),
    told: Effect.map(SubscriptionRef.get(followed), ({ told }) => told)
  }
  return result
})
