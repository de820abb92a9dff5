/**
 * The dev homeserver's endpoints about accounts: versions, login, refresh, devices, profiles, filters, account data.
 *
 * Source: client-server API v1.12. Registration asks for nothing but a name and a password.
 */
import { Result, Schema } from "effect"
import type { Homeserver } from "@twinloop/core"
import { HomeserverModel } from "./Model.ts"
import { AnyObject, bodyOf, type Endpoint, open, type Outcome, param, refuse, user } from "./DevRoute.ts"
import type { UserCall } from "./DevRoute.ts"

const v3 = "/_matrix/client/v3"

const tokensJson = (tokens: HomeserverModel.Tokens) => ({
  access_token: tokens.accessToken,
  ...(tokens.refreshToken === undefined ? {} : { refresh_token: tokens.refreshToken }),
  ...(tokens.expiresInMillis === undefined ? {} : { expires_in_ms: tokens.expiresInMillis })
})

const loginJson = (tokens: HomeserverModel.Tokens) => ({
  user_id: tokens.userId,
  device_id: tokens.deviceId,
  ...tokensJson(tokens)
})

const SessionOptions = {
  device_id: Schema.optionalKey(Schema.String),
  initial_device_display_name: Schema.optionalKey(Schema.String),
  refresh_token: Schema.optionalKey(Schema.Boolean)
}
const Login = Schema.Struct({
  type: Schema.String,
  identifier: Schema.optionalKey(Schema.Struct({ type: Schema.String, user: Schema.optionalKey(Schema.String) })),
  user: Schema.optionalKey(Schema.String),
  password: Schema.optionalKey(Schema.String),
  ...SessionOptions
})
const Register = Schema.Struct({
  username: Schema.String,
  password: Schema.String,
  inhibit_login: Schema.optionalKey(Schema.Boolean),
  ...SessionOptions
})

const sessionOptions = (body: Schema.Struct.Type<typeof SessionOptions>) => ({
  ...(body.device_id === undefined ? {} : { deviceId: body.device_id }),
  ...(body.initial_device_display_name === undefined ? {} : { deviceDisplayName: body.initial_device_display_name }),
  withRefresh: body.refresh_token === true
})

/** What a profile consists of. */
const profileFields = ["displayname", "avatar_url"] as const

/** Endpoints that need no token. `spellings` are what `/versions` offers. */
export const openEndpoints = (spellings: ReadonlyArray<Homeserver.Spelling>): ReadonlyArray<Endpoint> => [
  open("GET", "/_matrix/client/versions", () =>
    Result.succeed({
      versions: ["v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12"],
      unstable_features: {
        "org.matrix.simplified_msc3575": spellings.includes("unstable"),
        "org.matrix.msc4538": spellings.includes("v4"),
        "org.matrix.msc4543": spellings.includes("v4"),
        "org.matrix.msc4306": true
      }
    })
  ),
  open("GET", `${v3}/login`, () => Result.succeed({ flows: [{ type: "m.login.password" }] })),
  open("POST", `${v3}/login`, (state, call, nowMillis) =>
    Result.flatMap(bodyOf(call, Login), (body) => {
      const name = body.identifier?.user ?? body.user
      if (body.type !== "m.login.password" || name === undefined || body.password === undefined)
        return refuse(400, "M_UNKNOWN", "only m.login.password is offered, with a user and a password")
      const login = { user: name, password: body.password, ...sessionOptions(body) }
      return Result.map(HomeserverModel.logIn(state, login, nowMillis), loginJson)
    })
  ),
  open("POST", `${v3}/refresh`, (state, call, nowMillis) =>
    Result.flatMap(bodyOf(call, Schema.Struct({ refresh_token: Schema.String })), (body) =>
      Result.map(HomeserverModel.refresh(state, body.refresh_token, nowMillis), tokensJson)
    )
  ),
  open("POST", `${v3}/register`, (state, call, nowMillis) =>
    Result.flatMap(bodyOf(call, Register), (body) =>
      Result.map(
        HomeserverModel.addUser(state, { localpart: body.username, password: body.password }),
        (account): unknown =>
          body.inhibit_login === true
            ? { user_id: account.userId }
            : loginJson(HomeserverModel.startSession(state, account, sessionOptions(body), nowMillis))
      )
    )
  ),
  open("GET", `${v3}/profile/:userId`, (state, call) =>
    Result.map(HomeserverModel.findUser(state, param(call, "userId")), HomeserverModel.profile)
  ),
  ...profileFields.map((field) =>
    open("GET", `${v3}/profile/:userId/${field}`, (state, call) =>
      Result.map(HomeserverModel.findUser(state, param(call, "userId")), (account) => {
        const value = HomeserverModel.profile(account)[field]
        return value === undefined ? {} : { [field]: value }
      })
    )
  )
]

/** Does something with one's own account; another one's is `M_FORBIDDEN`. */
const own = (call: UserCall, f: () => Outcome<unknown>): Outcome<unknown> =>
  param(call, "userId") === call.requester.user.userId
    ? f()
    : refuse(403, "M_FORBIDDEN", `this is not the account ${param(call, "userId")}`)

const setProfile =
  (field: (typeof profileFields)[number]) =>
  (call: UserCall): Outcome<unknown> =>
    own(call, () =>
      Result.map(bodyOf(call, AnyObject), ({ [field]: value }) => {
        const change = { field, value: typeof value === "string" ? value : undefined }
        HomeserverModel.setProfile(call.state, call.requester.user, change, call.nowMillis)
      })
    )

const setAccountData = (call: UserCall): Outcome<unknown> =>
  own(call, () =>
    Result.flatMap(bodyOf(call, AnyObject), (content) =>
      HomeserverModel.setAccountData(call.state, call.requester.user, {
        type: param(call, "type"),
        content,
        ...(call.params.roomId === undefined ? {} : { roomId: call.params.roomId })
      })
    )
  )

const getAccountData = (call: UserCall): Outcome<unknown> =>
  own(call, () => HomeserverModel.accountData(call.requester, param(call, "type"), call.params.roomId))

const getFilter = (call: UserCall): Outcome<unknown> =>
  own(call, () => {
    const filter = call.requester.user.filters.get(param(call, "filterId"))
    return filter === undefined ? refuse(404, "M_NOT_FOUND", "there is no such filter") : Result.succeed(filter)
  })

const Auth = { auth: Schema.optionalKey(Schema.NullOr(AnyObject)) }

const deleteDevice = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, Schema.Struct(Auth)), ({ auth }) => {
    const deviceId = param(call, "deviceId")
    const operation = `DELETE /devices/${deviceId}`
    return HomeserverModel.deleteDevices(call.state, call.requester, { deviceIds: [deviceId], operation, auth })
  })

const DeviceIds = Schema.Struct({ devices: Schema.Array(Schema.String), ...Auth })

const deleteDevices = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, DeviceIds), ({ auth, devices }) =>
    HomeserverModel.deleteDevices(call.state, call.requester, {
      deviceIds: devices,
      operation: "POST /delete_devices",
      auth
    })
  )

const DeviceName = Schema.Struct({ display_name: Schema.optionalKey(Schema.NullOr(Schema.String)) })

const renameDevice = (call: UserCall): Outcome<unknown> =>
  Result.flatMap(bodyOf(call, DeviceName), ({ display_name }) =>
    HomeserverModel.renameDevice(call.state, call.requester, param(call, "deviceId"), display_name ?? undefined)
  )

const aboutDevices: ReadonlyArray<Endpoint> = [
  user("GET", `${v3}/account/whoami`, ({ requester: { user: account, device } }) =>
    Result.succeed({ user_id: account.userId, device_id: device.deviceId, is_guest: false })
  ),
  user("POST", `${v3}/logout`, ({ state, requester }) => Result.succeed(HomeserverModel.logOut(state, requester))),
  user("POST", `${v3}/logout/all`, ({ state, requester: { user: account } }) =>
    Result.succeed(HomeserverModel.removeDevices(state, account, [...account.devices.keys()]))
  ),
  user("GET", `${v3}/devices`, ({ requester }) => Result.succeed({ devices: HomeserverModel.devices(requester.user) })),
  user("GET", `${v3}/devices/:deviceId`, (call) => {
    const device = HomeserverModel.devices(call.requester.user).find(
      ({ device_id }) => device_id === param(call, "deviceId")
    )
    return device === undefined ? refuse(404, "M_NOT_FOUND", "there is no such device") : Result.succeed(device)
  }),
  user("PUT", `${v3}/devices/:deviceId`, renameDevice),
  user("DELETE", `${v3}/devices/:deviceId`, deleteDevice),
  user("POST", `${v3}/delete_devices`, deleteDevices)
]

/** Endpoints about one's own account. */
export const endpoints: ReadonlyArray<Endpoint> = [
  ...aboutDevices,
  user("GET", `${v3}/capabilities`, () =>
    Result.succeed({ capabilities: { "m.room_versions": { default: "11", available: { 11: "stable" } } } })
  ),
  ...profileFields.map((field) => user("PUT", `${v3}/profile/:userId/${field}`, setProfile(field))),
  user("POST", `${v3}/user/:userId/filter`, (call) =>
    own(call, () =>
      Result.map(bodyOf(call, AnyObject), (filter) => ({
        filter_id: HomeserverModel.addFilter(call.state, call.requester.user, filter)
      }))
    )
  ),
  user("GET", `${v3}/user/:userId/filter/:filterId`, getFilter),
  user("GET", `${v3}/user/:userId/account_data/:type`, getAccountData),
  user("PUT", `${v3}/user/:userId/account_data/:type`, setAccountData),
  user("GET", `${v3}/user/:userId/rooms/:roomId/account_data/:type`, getAccountData),
  user("PUT", `${v3}/user/:userId/rooms/:roomId/account_data/:type`, setAccountData),
  // Clients ask for these at start-up; there is nothing to tell.
  user("GET", `${v3}/voip/turnServer`, () => Result.succeed({})),
  user("GET", `${v3}/thirdparty/protocols`, () => Result.succeed({})),
  user("PUT", `${v3}/presence/:userId/status`, () => Result.succeed({})),
  user("GET", `${v3}/room_keys/version`, () => refuse(404, "M_NOT_FOUND", "there is no key backup"))
]
