/**
 * A made-up account, shaped like what Synapse sends: rooms with the state that a room list asks for, timelines, news and
 * to-device batches, all from one seed.
 *
 * Sizes follow what was seen of Synapse: half of the rooms are encrypted, a quarter are direct chats, a room has 3 to 60
 * members of whom those who speak are sent, an encrypted event has 220 to 520 bytes of ciphertext, and an incremental
 * response brings 1 to 20 rooms with 1 to 3 events each.
 *
 * Not here: serving it (`homeserver/CannedHomeserver.ts`).
 */
import type { MatrixEvent } from "@twinloop/core"
import { Seeded } from "./Seeded.ts"

type JsonObject = MatrixEvent.JsonObject

/** A room as the generator knows it, to say more about it later. */
export interface SyntheticRoom {
  readonly id: string
  readonly number: number
  readonly isEncrypted: boolean
  readonly isDm: boolean
  readonly members: ReadonlyArray<string>
}

/** Whose account it is. */
export const ME = "@me:bench.local"
export const DEVICE = "BENCH"

const words =
  'the quick release of sync loop works on my phone but tests fail again today please review ünïcödé 日本語 emoji 🎉 "quoted" line\nbreak https://matrix.to/#/!x:y see thread thanks merge deploy lease lock push notify'.split(
    " "
  )

const powerLevels = (creator: string): JsonObject => ({
  users: { [creator]: 100, [ME]: 50 },
  users_default: 0,
  events: {
    "m.room.name": 50,
    "m.room.power_levels": 100,
    "m.room.history_visibility": 100,
    "m.room.canonical_alias": 50,
    "m.room.avatar": 50,
    "m.room.tombstone": 100,
    "m.room.server_acl": 100,
    "m.room.encryption": 100
  },
  events_default: 0,
  state_default: 50,
  ban: 50,
  kick: 50,
  redact: 50,
  invite: 0,
  historical: 100
})

export class SyntheticAccount {
  readonly rooms: Array<SyntheticRoom> = []
  private readonly random: Seeded
  /** Bump stamps and to-device tokens: Synapse's stream position. */
  private stream = 1_000_000
  private atMillis = 1_760_000_000_000

  constructor(seed: number) {
    this.random = new Seeded(seed)
  }

  private user(number: number): string {
    return `@user${number}:hs${number % 37}.example.org`
  }

  private text(count: number): string {
    return Array.from({ length: count }, () => this.random.pick(words)).join(" ")
  }

  private mxc(): string {
    return `mxc://example.org/${this.random.opaque(24)}`
  }

  private event(type: string, sender: string, content: JsonObject, extra: JsonObject = {}): JsonObject {
    this.atMillis += 1 + this.random.int(4_000)
    const unsigned = { age: this.random.int(1e7) }
    const event_id = `$${this.random.opaque(43)}`
    return { type, sender, content, ...extra, origin_server_ts: this.atMillis, unsigned, event_id }
  }

  private state(type: string, sender: string, content: JsonObject, state_key = ""): JsonObject {
    return this.event(type, sender, content, { state_key })
  }

  private member(user: string): JsonObject {
    const displayname = `Display ${user.slice(1, 8)} 👋`
    return this.state("m.room.member", user, { membership: "join", displayname, avatar_url: this.mxc() }, user)
  }

  private encrypted(sender: string): JsonObject {
    return this.event("m.room.encrypted", sender, {
      algorithm: "m.megolm.v1.aes-sha2",
      ciphertext: this.random.opaque(220 + this.random.int(300)),
      device_id: `DEVICE${sender.length}`,
      sender_key: this.random.opaque(43),
      session_id: this.random.opaque(43)
    })
  }

  private image(sender: string): JsonObject {
    const info = {
      w: 1920,
      h: 1080,
      mimetype: "image/jpeg",
      size: 381_023,
      "xyz.amorgan.blurhash": this.random.opaque(28),
      thumbnail_url: this.mxc()
    }
    return this.event("m.room.message", sender, { msgtype: "m.image", body: "img.jpg", url: this.mxc(), info })
  }

  private reply(sender: string): JsonObject {
    const body = this.text(6 + this.random.int(20))
    return this.event("m.room.message", sender, {
      msgtype: "m.text",
      body,
      format: "org.matrix.custom.html",
      formatted_body: `<p>${body}</p>`,
      "m.mentions": {},
      "m.relates_to": { "m.in_reply_to": { event_id: `$${this.random.opaque(43)}` } }
    })
  }

  private reaction(sender: string): JsonObject {
    const relation = { rel_type: "m.annotation", event_id: `$${this.random.opaque(43)}`, key: "👍" }
    return this.event("m.reaction", sender, { "m.relates_to": relation })
  }

  private timelineEvent(room: SyntheticRoom): JsonObject {
    const sender = this.random.pick(room.members)
    if (room.isEncrypted) return this.encrypted(sender)
    const kind = this.random.fraction()
    if (kind < 0.12) return this.reaction(sender)
    if (kind < 0.17) return this.member(sender)
    if (kind < 0.25) return this.image(sender)
    if (kind < 0.4) return this.reply(sender)
    const body = this.text(4 + this.random.int(24))
    return this.event("m.room.message", sender, { msgtype: "m.text", body, "m.mentions": {} })
  }

  private newRoom(): SyntheticRoom {
    const number = this.rooms.length
    const first = this.random.int(5_000)
    const others = 2 + Math.floor(this.random.fraction() ** 3 * 60)
    const room = {
      id: `!${this.random.opaque(18)}:hs${number % 37}.example.org`,
      number,
      isEncrypted: this.random.chance(0.5),
      isDm: this.random.chance(0.25),
      members: [ME, ...Array.from({ length: others }, (_, index) => this.user(first + index))]
    }
    this.rooms.push(room)
    return room
  }

  private nameOf(room: SyntheticRoom, creator: string): readonly [name: string, state: ReadonlyArray<JsonObject>] {
    const name = `Room ${room.number} ${this.text(2)}`
    const state = [this.state("m.room.name", creator, { name })]
    if (this.random.chance(0.4)) state.push(this.state("m.room.topic", creator, { topic: this.text(12) }))
    if (this.random.chance(0.3)) {
      state.push(this.state("m.room.canonical_alias", creator, { alias: `#room${room.number}:example.org` }))
    }
    return [name, state]
  }

  /** A room as the first response shows it: its id and its JSON, most recent room last. */
  initialRoom(timelineLimit: number): readonly [id: string, room: JsonObject] {
    const room = this.newRoom()
    const creator = room.members[1]!
    const state = [
      this.state("m.room.create", creator, { room_version: "11" }),
      this.state("m.room.power_levels", creator, powerLevels(creator)),
      this.state("m.room.join_rules", creator, { join_rule: "invite" }),
      this.state("m.room.history_visibility", creator, { history_visibility: "shared" }),
      this.member(ME)
    ]
    if (room.isEncrypted) state.push(this.state("m.room.encryption", creator, { algorithm: "m.megolm.v1.aes-sha2" }))
    const [name, named] = room.isDm ? [undefined, []] : this.nameOf(room, creator)
    state.push(...named)
    const avatar = this.random.chance(0.4) ? this.mxc() : undefined
    if (avatar !== undefined) state.push(this.state("m.room.avatar", creator, { url: avatar }))
    const timeline = Array.from({ length: timelineLimit }, () => this.timelineEvent(room))
    // $LAZY: the members who speak in the timeline.
    const speakers = new Set(timeline.map((event) => event["sender"] as string))
    for (const user of speakers) if (user !== ME) state.push(this.member(user))
    const heroes = room.members
      .slice(1, 6)
      .map((user_id) => ({ user_id, displayname: `Display ${user_id}`, avatar_url: this.mxc() }))
    this.stream += 1
    return [
      room.id,
      {
        notification_count: 0,
        highlight_count: 0,
        bump_stamp: this.stream,
        joined_count: room.members.length,
        invited_count: 0,
        ...(name === undefined ? { heroes } : { name }),
        ...(avatar === undefined ? {} : { avatar }),
        initial: true,
        required_state: state,
        timeline,
        limited: true,
        prev_batch: `s${this.stream}_0_0_0_0_0_0_0_0`,
        num_live: 0,
        ...(room.isDm ? { is_dm: true } : {})
      }
    ]
  }

  /** News: 1 to 20 rooms with 1 to 3 live events each, as the `rooms` of a response; and the highest bump stamp in it. */
  news(): readonly [rooms: JsonObject, stamp: number] {
    const rooms: Record<string, JsonObject> = {}
    const count = 1 + this.random.int(20)
    for (let index = 0; index < count; index++) {
      const room = this.random.pick(this.rooms)
      const timeline = Array.from({ length: 1 + this.random.int(3) }, () => this.timelineEvent(room))
      this.stream += 1
      rooms[room.id] = {
        notification_count: 0,
        highlight_count: 0,
        bump_stamp: this.stream,
        timeline,
        limited: false,
        prev_batch: `s${this.stream}_0_0_0_0_0_0_0_0`,
        num_live: timeline.length
      }
    }
    return [rooms, this.stream]
  }

  /** A batch of Olm-encrypted to-device messages, as the `to_device` of a response. */
  toDevice(count: number): JsonObject {
    const events = Array.from({ length: count }, () => ({
      type: "m.room.encrypted",
      sender: this.user(this.random.int(5_000)),
      content: {
        algorithm: "m.olm.v1.curve25519-aes-sha2",
        sender_key: this.random.opaque(43),
        ciphertext: {
          [this.random.opaque(43)]: { type: this.random.int(2), body: this.random.opaque(900 + this.random.int(400)) }
        },
        "org.matrix.msgid": this.random.opaque(32)
      }
    }))
    this.stream += count
    return { next_batch: String(this.stream), events }
  }
}
