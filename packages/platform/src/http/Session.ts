/**
 * A login: whose device this is, and the tokens that prove it.
 *
 * Gotchas: the tokens are `Redacted`, so that neither a log line nor an error nor JSON ever shows them; take the value out
 * only to send or to store it.
 *
 * Not here: where a login is kept (`SessionStore.ts`), how one comes to be (`Login.ts`), how its tokens are renewed
 * (`SessionTokens.ts`).
 */
import { Redacted, Schema } from "effect"
import type { MatrixEvent } from "@twinloop/core"

/** One device of one account on one homeserver. */
export interface AccountSession {
  /** The homeserver's address, as `HomeserverUrl.parse` gives it. */
  readonly homeserver: string
  readonly userId: MatrixEvent.UserId
  readonly deviceId: MatrixEvent.DeviceId
  readonly accessToken: Redacted.Redacted
  /** Absent when the homeserver gave none: then the access token lasts until it is revoked. */
  readonly refreshToken?: Redacted.Redacted
  /** When the access token ends, in Unix milliseconds of this host. Absent when the homeserver didn't say. */
  readonly expiresAtMillis?: number
}

/** Whose a session is, without what proves it. */
export type Device = Pick<AccountSession, "userId" | "deviceId">

/** What a homeserver answers to a login or a refresh, as far as tokens go. Spec: `POST /login`, `POST /refresh`. */
export const IssuedTokens = Schema.Struct({
  access_token: Schema.NonEmptyString,
  refresh_token: Schema.optionalKey(Schema.NonEmptyString),
  expires_in_ms: Schema.optionalKey(Schema.Finite)
})
export type IssuedTokens = typeof IssuedTokens.Type

/** Longest life of an access token that is believed, in milliseconds (a year): every store can keep the sum as an integer. */
const maxLifeMillis = 365 * 24 * 3_600_000

const lifeMillis = (expiresInMillis: number): number =>
  Math.floor(Math.min(maxLifeMillis, Math.max(0, expiresInMillis)))

/**
 * The tokens of a session from a homeserver's answer; `askedAtMillis` is when the request was sent, so that the expiry is
 * rather too early than too late. Without a new refresh token the one in use stays valid (spec: "Refreshing access tokens").
 */
export const tokensOf = (
  issued: IssuedTokens,
  askedAtMillis: number,
  previous?: AccountSession
): Pick<AccountSession, "accessToken" | "refreshToken" | "expiresAtMillis"> => {
  const refreshToken =
    issued.refresh_token === undefined
      ? previous?.refreshToken
      : Redacted.make(issued.refresh_token, { label: "refresh token" })
  return {
    accessToken: Redacted.make(issued.access_token, { label: "access token" }),
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(issued.expires_in_ms === undefined ? {} : { expiresAtMillis: askedAtMillis + lifeMillis(issued.expires_in_ms) })
  }
}

/** Whether two sessions carry the same access token. */
export const sameToken = (a: AccountSession, b: AccountSession): boolean =>
  Redacted.value(a.accessToken) === Redacted.value(b.accessToken)

/** Whether two sessions are of the same device on the same homeserver, whatever their tokens. */
export const sameDevice = (a: AccountSession, b: AccountSession): boolean =>
  a.homeserver === b.homeserver && a.userId === b.userId && a.deviceId === b.deviceId
