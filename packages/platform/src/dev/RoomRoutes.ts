/**
 * The dev homeserver's endpoints about rooms: making, joining, sending, reading, typing, receipts.
 *
 * Source: client-server API v1.12, "Rooms", "Instant Messaging modules".
 */
import { Option, Result, Schema } from "effect"
import { HomeserverModel } from "./Model.ts"
import { AnyObject, bodyOf, type Endpoint, type Outcome, param, refuse, user } from "./DevRoute.ts"
import type { UserCall } from "./DevRoute.ts"

const v3 = "/_matrix/client/v3"
const rooms = `${v3}/rooms/:roomId` as const

const CreateRoom = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  topic: Schema.optionalKey(Schema.String),
  invite: Schema.optionalKey(Schema.Array(Schema.String)),
  is_direct: Schema.optionalKey(Schema.Boolean),
  preset: Schema.optionalKey(Schema.String),
  visibility: Schema.optionalKey(Schema.String),
  creation_content: Schema.optionalKey(AnyObject),
  initial_state: Schema.optionalKey(
    Schema.Array(
      Schema.Struct({ type: Schema.String, state_key: Schema.optionalKey(Schema.String), content: AnyObject })
    )
  )
})

const createRoom = (call: UserCall): Outcome<unknown> =>
  Result.map(bodyOf(call, CreateRoom), (body) => {
    const isPublic = (body.preset ?? (body.visibility === "public" ? "public_chat" : "")) === "public_chat"
    const room = HomeserverModel.createRoom(
      call.state,
      call.requester.user,
      {
        isPublic,
        ...(body.name === undefined ? {} : { name: body.name }),
        ...(body.topic === undefined ? {} : { topic: body.topic }),
        ...(body.invite === undefined ? {} : { invite: body.invite }),
        ...(body.is_direct === undefined ? {} : { isDirect: body.is_direct }),
        ...(body.creation_content === undefined ? {} : { creationContent: body.creation_content }),
        initialState: (body.initial_state ?? []).map(({ type, state_key = "", content }) => ({
          type,
          stateKey: state_key,
          content
        }))
      },
      call.nowMillis
    )
    return { room_id: room.roomId }
  })

const join = (call: UserCall): Outcome<unknown> =>
  Result.map(
    HomeserverModel.join(call.state, call.requester.user, param(call, "roomId"), call.nowMillis),
    (room_id) => ({ room_id })
  )

const Target = Schema.Struct({ user_id: Schema.String })

const setMember =
  (membership: "invite" | "leave" | "ban") =>
  (call: UserCall): Outcome<unknown> =>
    Result.flatMap(bodyOf(call, Target), ({ user_id }) =>
      HomeserverModel.setMember(
        call.state,
        call.requester.user,
        { roomId: param(call, "roomId"), target: user_id, membership },
        call.nowMillis
      )
    )

const eventId = (outcome: Outcome<string>): Outcome<unknown> => Result.map(outcome, (event_id) => ({ event_id }))

const send = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, AnyObject), (content) =>
    eventId(
      HomeserverModel.send(
        call.state,
        call.requester,
        { roomId: param(call, "roomId"), type: param(call, "type"), txnId: param(call, "txnId"), content },
        call.nowMillis
      )
    )
  )

const setState = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, AnyObject), (content) =>
    eventId(
      HomeserverModel.send(
        call.state,
        call.requester,
        { roomId: param(call, "roomId"), type: param(call, "type"), stateKey: param(call, "stateKey"), content },
        call.nowMillis
      )
    )
  )

const redact = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, AnyObject), (content) =>
    eventId(
      HomeserverModel.redact(
        call.state,
        call.requester,
        { roomId: param(call, "roomId"), eventId: param(call, "eventId"), txnId: param(call, "txnId"), content },
        call.nowMillis
      )
    )
  )

const making: ReadonlyArray<Endpoint> = [
  user("POST", `${v3}/createRoom`, createRoom),
  user("POST", `${v3}/join/:roomId`, join),
  user("POST", `${rooms}/join`, join),
  user("POST", `${rooms}/leave`, (call) =>
    HomeserverModel.leave(call.state, call.requester.user, param(call, "roomId"), call.nowMillis)
  ),
  user("POST", `${rooms}/forget`, () => Result.succeed({})),
  user("POST", `${rooms}/invite`, setMember("invite")),
  user("POST", `${rooms}/kick`, setMember("leave")),
  user("POST", `${rooms}/ban`, setMember("ban")),
  user("POST", `${rooms}/unban`, setMember("leave")),
  user("GET", `${v3}/joined_rooms`, ({ requester }) =>
    Result.succeed({
      joined_rooms: [...requester.user.rooms].flatMap(([roomId, { membership }]) =>
        membership === "join" ? [roomId] : []
      )
    })
  )
]

const sending: ReadonlyArray<Endpoint> = [
  user("PUT", `${rooms}/send/:type/:txnId`, send),
  user("PUT", `${rooms}/redact/:eventId/:txnId`, redact),
  user("PUT", `${rooms}/state/:type`, setState),
  user("PUT", `${rooms}/state/:type/:stateKey`, setState)
]

const limitOf = (call: UserCall, fallback: number): number => {
  const limit = Number(call.query.limit ?? fallback)
  return Number.isInteger(limit) && limit >= 0 ? Math.min(limit, 1_000) : fallback
}

const messages = (call: UserCall): Outcome<unknown> => {
  const { dir, from, to } = call.query
  if (dir !== "b" && dir !== "f") return refuse(400, "M_MISSING_PARAM", `"dir" must be b or f`)
  return HomeserverModel.messages(call.requester, {
    roomId: param(call, "roomId"),
    dir,
    limit: limitOf(call, 10),
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to })
  })
}

const stateContent = (call: UserCall): Outcome<unknown> =>
  HomeserverModel.stateContent(call.requester, {
    roomId: param(call, "roomId"),
    type: param(call, "type"),
    stateKey: param(call, "stateKey")
  })

const membersOf = (call: UserCall): Outcome<unknown> => {
  const { membership, not_membership } = call.query
  const filter = {
    ...(membership === undefined ? {} : { membership }),
    ...(not_membership === undefined ? {} : { notMembership: not_membership })
  }
  return Result.map(HomeserverModel.members(call.requester, param(call, "roomId"), filter), (chunk) => ({ chunk }))
}

const joinedMembers = (call: UserCall): Outcome<unknown> =>
  Result.map(HomeserverModel.members(call.requester, param(call, "roomId"), { membership: "join" }), (events) => ({
    joined: Object.fromEntries(
      events.map(({ state_key = "", content }) => [
        state_key,
        { display_name: content.displayname, avatar_url: content.avatar_url }
      ])
    )
  }))

/** Whether a filter asks for members only where they matter. Spec: "Filtering", "Lazy-loading room members". */
const decodeLazy = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ lazy_load_members: Schema.Literal(true) }))
)

const context = (call: UserCall): Outcome<unknown> =>
  HomeserverModel.context(call.requester, {
    roomId: param(call, "roomId"),
    eventId: param(call, "eventId"),
    limit: limitOf(call, 10),
    lazyMembers: Option.isSome(decodeLazy(call.query.filter))
  })

const reading: ReadonlyArray<Endpoint> = [
  user("GET", `${rooms}/event/:eventId`, (call) =>
    HomeserverModel.event(call.requester, param(call, "roomId"), param(call, "eventId"))
  ),
  user("GET", `${rooms}/context/:eventId`, context),
  user("GET", `${rooms}/messages`, messages),
  user("GET", `${rooms}/state`, (call) => HomeserverModel.roomState(call.requester, param(call, "roomId"))),
  user("GET", `${rooms}/state/:type`, stateContent),
  user("GET", `${rooms}/state/:type/:stateKey`, stateContent),
  user("GET", `${rooms}/members`, membersOf),
  user("GET", `${rooms}/joined_members`, joinedMembers)
]

const Typing = Schema.Struct({ typing: Schema.Boolean, timeout: Schema.optionalKey(Schema.Finite) })

const setTyping = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, Typing), ({ typing, timeout = 30_000 }) =>
    HomeserverModel.setTyping(
      call.state,
      call.requester,
      { roomId: param(call, "roomId"), typing, timeoutMillis: timeout },
      call.nowMillis
    )
  )

const setReceipt = (call: UserCall, type: string, event: string): Outcome<void> =>
  HomeserverModel.setReceipt(
    call.state,
    call.requester,
    { roomId: param(call, "roomId"), type, eventId: event },
    call.nowMillis
  )

const setReadMarkers = (call: UserCall): Outcome<unknown> =>
  Result.gen(function* () {
    const { "m.fully_read": fullyRead, ...receipts } = yield* bodyOf(call, Schema.Record(Schema.String, Schema.String))
    for (const [type, event] of Object.entries(receipts)) yield* setReceipt(call, type, event)
    if (fullyRead !== undefined) {
      const data = { type: "m.fully_read", content: { event_id: fullyRead }, roomId: param(call, "roomId") }
      yield* HomeserverModel.setAccountData(call.state, call.requester.user, data)
    }
  })

const signalling: ReadonlyArray<Endpoint> = [
  user("PUT", `${rooms}/typing/:userId`, setTyping),
  user("POST", `${rooms}/receipt/:type/:eventId`, (call) =>
    setReceipt(call, param(call, "type"), param(call, "eventId"))
  ),
  user("POST", `${rooms}/read_markers`, setReadMarkers)
]

const threadOf = (call: UserCall) => ({ roomId: param(call, "roomId"), threadRootId: param(call, "rootId") })

const subscribe = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, Schema.Struct({ automatic: Schema.optionalKey(Schema.String) })), ({ automatic }) =>
    HomeserverModel.subscribeToThread(call.state, call.requester, threadOf(call), automatic)
  )

const subscription = "/_matrix/client/unstable/io.element.msc4306/rooms/:roomId/thread/:rootId/subscription" as const

/** MSC4306. */
const following: ReadonlyArray<Endpoint> = [
  user("GET", subscription, (call) => HomeserverModel.threadSubscription(call.requester, threadOf(call))),
  user("PUT", subscription, subscribe),
  user("DELETE", subscription, (call) =>
    HomeserverModel.unsubscribeFromThread(call.state, call.requester, threadOf(call))
  )
]

/** Endpoints about rooms. */
export const endpoints: ReadonlyArray<Endpoint> = [...making, ...sending, ...reading, ...signalling, ...following]
