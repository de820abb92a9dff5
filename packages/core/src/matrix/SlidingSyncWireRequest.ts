/**
 * A sliding-sync request on the wire, in both spellings. Reached through `SlidingSyncWire.ts`.
 *
 * | | unstable | v4 |
 * |---|---|---|
 * | `pos`, `timeout`, `set_presence` | query | body |
 * | window | `ranges: [[a, b]]` | `range: [a, b]` |
 * | `required_state` | `[[type, key]]` with `$LAZY`, `$ME` | `{ include, lazy_members }` |
 * | invites | `is_invite` | `is_invited` |
 * | extensions | plain names | to-device and e2ee carry their MSC's prefix |
 */
import { Predicate, Record, Result, Schema } from "effect"
import type { Spelling } from "../sync/Homeserver.ts"
import type { JsonObject } from "./MatrixEvent.ts"
import type {
  ExtensionsRequest,
  ListFilters,
  ListRequest,
  RoomParams,
  StateSelector,
  SyncRequest
} from "./SlidingSync.ts"

/** What goes into a `POST`: path, query and JSON body. */
export interface WireRequest {
  readonly path: string
  readonly query: { readonly [name: string]: string }
  readonly body: JsonObject
}

/** Where each spelling is served. */
export const path = (spelling: Spelling): string =>
  spelling === "v4" ? "/_matrix/client/v4/sync" : "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

/** Wire names of the extensions: the first one is written, all are read. */
const names = {
  unstable: { toDevice: "to_device", e2ee: "e2ee" },
  v4: { toDevice: "org.matrix.msc4538.to_device", e2ee: "org.matrix.msc4543.e2ee" }
} as const

const withoutUndefined = Record.filter(Predicate.isNotUndefined)

const mapValues = <A, B>(record: { readonly [key: string]: A }, f: (value: A) => B): { readonly [key: string]: B } =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, f(value)]))

const isLazy = ([type, key]: StateSelector): boolean => type === "m.room.member" && key === "$LAZY"

const encodeRequiredState = (spelling: Spelling, selectors: ReadonlyArray<StateSelector>): unknown => {
  if (spelling === "unstable") return selectors
  return {
    include: selectors
      .filter((selector) => !isLazy(selector) && selector[1] !== "$ME")
      .map(([type, state_key]) => ({ type, state_key })),
    lazy_members: selectors.some(isLazy)
  }
}

const encodeParams = (spelling: Spelling, params: RoomParams): JsonObject => ({
  required_state: encodeRequiredState(spelling, params.requiredState),
  timeline_limit: params.timelineLimit
})

const encodeFilters = (spelling: Spelling, filters: ListFilters): JsonObject =>
  withoutUndefined({
    is_dm: filters.isDm,
    is_encrypted: filters.isEncrypted,
    [spelling === "v4" ? "is_invited" : "is_invite"]: filters.isInvite,
    spaces: filters.spaces,
    room_types: filters.roomTypes,
    not_room_types: filters.notRoomTypes,
    tags: filters.tags,
    not_tags: filters.notTags
  })

const encodeList = (spelling: Spelling, list: ListRequest): JsonObject => ({
  ...(spelling === "v4" ? { range: list.range } : { ranges: [list.range] }),
  ...encodeParams(spelling, list),
  ...(list.filters && { filters: encodeFilters(spelling, list.filters) })
})

const encodeExtensions = (spelling: Spelling, extensions: ExtensionsRequest): JsonObject =>
  withoutUndefined({
    [names[spelling].toDevice]: extensions.toDevice && { enabled: true, ...extensions.toDevice },
    [names[spelling].e2ee]: extensions.e2ee && { enabled: true },
    account_data: extensions.accountData && { enabled: true },
    receipts: extensions.receipts && { enabled: true },
    typing: extensions.typing && { enabled: true }
  })

const isEmpty = (record: object): boolean => Object.keys(record).length === 0

/** Writes a request in the given spelling. In v4 the `$ME` selectors are left out, since the merged text has none. */
export const encodeRequest = (spelling: Spelling, request: SyncRequest): WireRequest => {
  const position = {
    ...(request.pos !== undefined && { pos: request.pos }),
    ...(request.setPresence !== undefined && { set_presence: request.setPresence })
  }
  const config: JsonObject = {
    conn_id: request.connId,
    ...(!isEmpty(request.lists) && { lists: mapValues(request.lists, (list) => encodeList(spelling, list)) }),
    ...(!isEmpty(request.roomSubscriptions) && {
      room_subscriptions: mapValues(request.roomSubscriptions, (params) => encodeParams(spelling, params))
    }),
    extensions: encodeExtensions(spelling, request.extensions)
  }
  return spelling === "v4"
    ? { path: path(spelling), query: {}, body: { ...config, ...position, timeout: request.timeoutMillis } }
    : { path: path(spelling), query: { ...position, timeout: String(request.timeoutMillis) }, body: config }
}

// --- reading

const WirePresence = Schema.optionalKey(Schema.Literals(["online", "unavailable", "offline"]))
const Natural = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const WireRange = Schema.Tuple([Natural, Natural])

const Selectors = Schema.Array(Schema.Tuple([Schema.String, Schema.String]))
const Inclusion = Schema.Struct({
  include: Schema.optionalKey(
    Schema.Array(
      Schema.Struct({ type: Schema.optionalKey(Schema.String), state_key: Schema.optionalKey(Schema.String) })
    )
  ),
  lazy_members: Schema.optionalKey(Schema.Boolean)
})
const WireParams = Schema.Struct({
  required_state: Schema.Union([Selectors, Inclusion]),
  timeline_limit: Natural.check(Schema.isLessThanOrEqualTo(1000))
})

const RoomTypes = Schema.Array(Schema.NullOr(Schema.String))
const WireFilters = Schema.Struct({
  is_dm: Schema.optionalKey(Schema.Boolean),
  is_encrypted: Schema.optionalKey(Schema.Boolean),
  is_invite: Schema.optionalKey(Schema.Boolean),
  is_invited: Schema.optionalKey(Schema.Boolean),
  spaces: Schema.optionalKey(Schema.Array(Schema.String)),
  room_types: Schema.optionalKey(RoomTypes),
  not_room_types: Schema.optionalKey(RoomTypes),
  tags: Schema.optionalKey(Schema.Array(Schema.String)),
  not_tags: Schema.optionalKey(Schema.Array(Schema.String))
})
const WireList = Schema.Struct({
  ...WireParams.fields,
  ranges: Schema.optionalKey(Schema.Array(WireRange).check(Schema.isMaxLength(1))),
  range: Schema.optionalKey(WireRange),
  filters: Schema.optionalKey(WireFilters)
})

const Switch = Schema.optionalKey(Schema.Struct({ enabled: Schema.optionalKey(Schema.Boolean) }))
const WireToDevice = Schema.Struct({
  enabled: Schema.optionalKey(Schema.Boolean),
  since: Schema.optionalKey(Schema.String),
  limit: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)))
})
const WireExtensions = Schema.Struct({
  to_device: Schema.optionalKey(WireToDevice),
  [names.v4.toDevice]: Schema.optionalKey(WireToDevice),
  e2ee: Switch,
  [names.v4.e2ee]: Switch,
  account_data: Switch,
  receipts: Switch,
  typing: Switch
})
const WireBody = Schema.Struct({
  conn_id: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(64))),
  pos: Schema.optionalKey(Schema.String),
  timeout: Schema.optionalKey(Natural),
  set_presence: WirePresence,
  lists: Schema.optionalKey(Schema.Record(Schema.String, WireList)),
  room_subscriptions: Schema.optionalKey(Schema.Record(Schema.String, WireParams)),
  extensions: Schema.optionalKey(WireExtensions)
})
const WireQuery = Schema.Struct({
  pos: Schema.optionalKey(Schema.String),
  timeout: Schema.optionalKey(Schema.FiniteFromString.check(Schema.isGreaterThanOrEqualTo(0))),
  set_presence: WirePresence
})

const decodeBody = Schema.decodeUnknownResult(WireBody)
const decodeQuery = Schema.decodeUnknownResult(WireQuery)

const readRequiredState = (wire: typeof WireParams.Type.required_state): ReadonlyArray<StateSelector> => {
  if (!("include" in wire) && !("lazy_members" in wire)) return Array.isArray(wire) ? wire : []
  const included = (wire.include ?? []).map(({ type = "*", state_key = "*" }): StateSelector => [type, state_key])
  return wire.lazy_members === true ? [...included, ["m.room.member", "$LAZY"]] : included
}

const readParams = (wire: typeof WireParams.Type): RoomParams => ({
  requiredState: readRequiredState(wire.required_state),
  timelineLimit: wire.timeline_limit
})

const readFilters = (wire: typeof WireFilters.Type): ListFilters => {
  const isInvite = wire.is_invite ?? wire.is_invited
  return {
    ...(wire.is_dm !== undefined && { isDm: wire.is_dm }),
    ...(wire.is_encrypted !== undefined && { isEncrypted: wire.is_encrypted }),
    ...(isInvite !== undefined && { isInvite }),
    ...(wire.spaces && { spaces: wire.spaces }),
    ...(wire.room_types && { roomTypes: wire.room_types }),
    ...(wire.not_room_types && { notRoomTypes: wire.not_room_types }),
    ...(wire.tags && { tags: wire.tags }),
    ...(wire.not_tags && { notTags: wire.not_tags })
  }
}

// A list without a window: the merged text means all rooms by it, Synapse only counts them.
const everything = [0, Number.MAX_SAFE_INTEGER] as const
const nothing = [0, -1] as const

const readList = (spelling: Spelling, wire: typeof WireList.Type): ListRequest => ({
  ...readParams(wire),
  range: wire.range ?? wire.ranges?.[0] ?? (spelling === "v4" ? everything : nothing),
  ...(wire.filters && { filters: readFilters(wire.filters) })
})

const readToDevice = (wire: typeof WireToDevice.Type): NonNullable<ExtensionsRequest["toDevice"]> => ({
  ...(wire.since !== undefined && { since: wire.since }),
  ...(wire.limit !== undefined && { limit: wire.limit })
})

const readExtensions = (wire: typeof WireExtensions.Type): ExtensionsRequest => {
  const toDevice = wire[names.v4.toDevice] ?? wire.to_device
  const e2ee = wire[names.v4.e2ee] ?? wire.e2ee
  return {
    ...(toDevice?.enabled === true && { toDevice: readToDevice(toDevice) }),
    ...(e2ee?.enabled === true && { e2ee: true as const }),
    ...(wire.account_data?.enabled === true && { accountData: true as const }),
    ...(wire.receipts?.enabled === true && { receipts: true as const }),
    ...(wire.typing?.enabled === true && { typing: true as const })
  }
}

/**
 * Reads a request, as a homeserver must: unknown members are ignored, known ones must have their type. The failure is one
 * sentence that names the offending member (an `M_INVALID_PARAM`).
 *
 * `pos`, `timeout` and `set_presence` count only where the spelling has them. v4's `exclude` is ignored: a superset is allowed to be sent.
 */
export const decodeRequest = (
  spelling: Spelling,
  wire: { readonly query: { readonly [name: string]: unknown }; readonly body: unknown }
): Result.Result<SyncRequest, string> =>
  Result.gen(function* () {
    const body = yield* Result.mapError(decodeBody(wire.body), (error) => error.message)
    const query = yield* Result.mapError(decodeQuery(wire.query), (error) => error.message)
    const { pos, timeout, set_presence: setPresence } = spelling === "v4" ? body : query
    return {
      connId: body.conn_id ?? "",
      ...(pos !== undefined && { pos }),
      timeoutMillis: timeout ?? 0,
      ...(setPresence !== undefined && { setPresence }),
      lists: mapValues(body.lists ?? {}, (list) => readList(spelling, list)),
      roomSubscriptions: mapValues(body.room_subscriptions ?? {}, readParams),
      extensions: readExtensions(body.extensions ?? {})
    }
  })
