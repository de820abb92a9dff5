/**
 * Judges what sliding sync answers, of which the specification has no schema (MSC4186): says it as the classic `/sync` would, and
 * holds that against the schema of `/sync`. So events of timelines, state, invitations, account data, typing and receipts, and
 * the counts, are judged by what the specification says of each of them.
 *
 * Gotchas: a room without members of the response that say what the user is in it is taken as joined.
 *
 * Not here: what only sliding sync has (lists, `pos`, heroes' names), which our own conformance suite looks at.
 */
import * as Judge from "./Judge.ts"
import type { JsonSchema } from "./JsonSchemas.ts"

interface Room {
  readonly [name: string]: unknown
  readonly heroes?: ReadonlyArray<{ readonly user_id?: unknown }>
}

interface Sections {
  readonly [name: string]: unknown
  readonly account_data?: { readonly global?: unknown; readonly rooms?: { readonly [roomId: string]: unknown } }
  readonly typing?: { readonly rooms?: { readonly [roomId: string]: unknown } }
  readonly receipts?: { readonly rooms?: { readonly [roomId: string]: unknown } }
}

interface Sliding {
  readonly pos?: unknown
  readonly rooms?: { readonly [roomId: string]: Room }
  readonly extensions?: Sections
}

/** An object without the members that are undefined, since a schema sees those as there. */
const present = (object: { readonly [name: string]: unknown }) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined))

const eventsOf = (events: unknown) => (events === undefined ? undefined : { events })

const joined = (roomId: string, room: Room, { account_data, receipts, typing }: Sections) => {
  const ephemeral = [typing?.rooms?.[roomId], receipts?.rooms?.[roomId]].filter((event) => event !== undefined)
  return present({
    state: eventsOf(room.required_state),
    timeline: present({ events: room.timeline ?? [], limited: room.limited, prev_batch: room.prev_batch }),
    ephemeral: eventsOf(ephemeral),
    account_data: eventsOf(account_data?.rooms?.[roomId]),
    summary: present({
      "m.heroes": room.heroes?.map(({ user_id }) => user_id),
      "m.joined_member_count": room.joined_count,
      "m.invited_member_count": room.invited_count
    }),
    unread_notifications: present({
      highlight_count: room.highlight_count,
      notification_count: room.notification_count
    })
  })
}

const strippedOf = ({ invite_state, stripped_state }: Room): unknown => invite_state ?? stripped_state

/** An answer of sliding sync, as the classic `/sync` would give it. */
export const classic = ({ extensions = {}, pos, rooms = {} }: Sliding) => {
  // What only an extension speaks of is a room all the same.
  const { account_data = {}, receipts = {}, typing = {} } = extensions
  const sections = { ...typing.rooms, ...receipts.rooms, ...account_data.rooms }
  const all = Object.entries({ ...Object.fromEntries(Object.keys(sections).map((id) => [id, {} as Room])), ...rooms })
  const isInvite = ([, room]: readonly [string, Room]) => strippedOf(room) !== undefined
  const { device_lists, device_one_time_keys_count } = (extensions.e2ee ??
    extensions["org.matrix.msc4543.e2ee"] ??
    {}) as {
    readonly [name: string]: unknown
  }
  const toDevice = (extensions.to_device ?? extensions["org.matrix.msc4538.to_device"]) as
    | { readonly events?: unknown }
    | undefined
  return present({
    next_batch: pos,
    account_data: eventsOf(account_data.global),
    // Events without a room, as account data are: a type and a content.
    presence: eventsOf(toDevice?.events),
    device_lists,
    device_one_time_keys_count,
    rooms: {
      join: Object.fromEntries(
        all.filter((one) => !isInvite(one)).map(([id, room]) => [id, joined(id, room, extensions)])
      ),
      invite: Object.fromEntries(
        all.filter(isInvite).map(([id, room]) => [id, { invite_state: { events: strippedOf(room) } }])
      )
    }
  })
}

/** What is wrong with an answer of sliding sync, by the schema of `/sync`'s answer. */
export const judge =
  (schema: JsonSchema) =>
  (json: unknown): ReadonlyArray<string> =>
    Judge.whatIsWrong(schema, classic(json as Sliding)).map((text) => `as /sync: ${text}`)
