/**
 * Interactive authentication in the homeserver model: what can't be undone asks for the password once more.
 *
 * A session is for one user and one operation; once its stage is passed it stays so. As on Synapse, a password that comes
 * without a session counts, too.
 *
 * Source: client-server API, "User-Interactive Authentication API"; Synapse's `check_ui_auth`.
 */
import { Predicate, Result } from "effect"
import type { UserId } from "../../matrix/MatrixEvent.ts"
import { type AuthSession, type ModelState, nextId, type Outcome, refuse, type Requester } from "./ModelState.ts"

const passwordStage = "m.login.password"

const textAt = (json: object, member: string): string | undefined => {
  const value: unknown = (json as { readonly [member: string]: unknown })[member]
  return typeof value === "string" ? value : undefined
}

/** Asks for a stage; `refused` says why the last one didn't count. */
const ask = (
  { session }: AuthSession,
  refused: { readonly errcode: string; readonly message: string } | undefined
): Outcome<never> =>
  Result.fail({
    status: 401,
    errcode: refused?.errcode ?? "",
    message: refused?.message ?? "interactive authentication is needed",
    interactive: { session, flows: [{ stages: [passwordStage] }], params: {}, ...(refused && { completed: [] }) }
  })

const sessionFor = (state: ModelState, operation: string, session: string | undefined): Outcome<AuthSession> => {
  if (session !== undefined) {
    const known = state.authSessions.get(session)
    if (known === undefined) return refuse(400, "M_UNKNOWN", `Unknown session ID: ${session}`)
    return known.operation === operation
      ? Result.succeed(known)
      : refuse(403, "M_UNKNOWN", "Requested operation has changed during the UI authentication session.")
  }
  const made: AuthSession = { session: `session_${nextId(state)}`, operation, passedBy: undefined }
  state.authSessions.set(made.session, made)
  return Result.succeed(made)
}

/** Who passes the password stage, or why nobody does. */
const passedBy = (state: ModelState, auth: object): Outcome<UserId> => {
  const { identifier } = auth as { readonly identifier?: unknown }
  const name = Predicate.isObject(identifier) ? textAt(identifier, "user") : textAt(auth, "user")
  const password = textAt(auth, "password")
  if (name === undefined || password === undefined)
    return refuse(400, "M_MISSING_PARAM", "the stage m.login.password needs an identifier and a password")
  const userId = name.startsWith("@") ? name : `@${name}:${state.options.serverName}`
  const user = state.users.get(userId)
  return user?.password === password
    ? Result.succeed(userId)
    : refuse(403, "M_FORBIDDEN", "Invalid username or password")
}

/** Asks who makes a request: `M_FORBIDDEN` for somebody else than its token's owner, 401 with a session while it isn't known. */
export const confirm = (
  state: ModelState,
  { user }: Requester,
  { auth, operation }: { readonly operation: string; readonly auth: unknown }
): Outcome<void> =>
  Result.gen(function* () {
    const given = Predicate.isObject(auth) ? auth : {}
    const session = yield* sessionFor(state, operation, textAt(given, "session"))
    const stage = textAt(given, "type")
    if (stage !== undefined && stage !== passwordStage)
      return yield* refuse(400, "M_UNKNOWN", `Unknown login type ${stage}`)
    const passed = stage === undefined ? undefined : passedBy(state, given)
    if (passed !== undefined && Result.isSuccess(passed)) session.passedBy = passed.success
    if (session.passedBy === undefined)
      return yield* ask(session, passed !== undefined && Result.isFailure(passed) ? passed.failure : undefined)
    if (session.passedBy !== user.userId) return yield* refuse(403, "M_FORBIDDEN", "Invalid auth")
  })
