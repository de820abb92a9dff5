/**
 * The address of a homeserver's client-server API, checked once and then trusted.
 *
 * Includes `parse` and `join`. A base path is allowed (a homeserver may live behind one); a query, a fragment and
 * credentials are not.
 *
 * Not here: discovery of the address from a server name (spec: "Server discovery"); users give the address itself.
 */
import { Result, Schema } from "effect"
import { Url } from "effect/http"

/** What was given as the homeserver's address can't be one; `message` says why and what to write instead. */
export class InvalidHomeserverUrl extends Schema.TaggedError<InvalidHomeserverUrl>(
  "@twinloop/platform/InvalidHomeserverUrl"
)("InvalidHomeserverUrl", { message: Schema.String }) {}

/** A checked address. */
export interface HomeserverUrl {
  /** Scheme, host, port and base path, without a slash at the end. */
  readonly href: string
  /** Scheme, host and port: what messages name. */
  readonly origin: string
}

/** Long enough for any real address, short enough for one line of a terminal. */
const shownCharacters = 100

/** The input as messages may repeat it: without the credentials that it may carry before an `@`, or in a query or fragment. */
const shown = (input: string): string =>
  input
    .replace(/^([a-z]*:\/\/)?.*@/is, "$1")
    .replace(/[?#].*$/s, "…")
    .slice(0, shownCharacters)

const invalid = (message: string): Result.Result<never, InvalidHomeserverUrl> =>
  Result.fail(new InvalidHomeserverUrl({ message }))

/**
 * Checks an address as a user or a configuration gives it, for example `https://matrix.example.org`.
 *
 * A slash at the end is tolerated. Anything but http and https, credentials, a query or a fragment is refused.
 */
export const parse = (input: string): Result.Result<HomeserverUrl, InvalidHomeserverUrl> => {
  const text = input.trim()
  const parsed = Url.fromString(text)
  if (Result.isFailure(parsed) || !/^https?:$/.test(parsed.success.protocol) || !/^https?:\/\//i.test(text)) {
    return invalid(
      `"${shown(text)}" is not the address of a homeserver. Give it with its scheme, like https://matrix.example.org`
    )
  }
  const url = parsed.success
  if (url.username !== "" || url.password !== "") {
    return invalid(
      `The homeserver address for ${url.host} has a user name or password in it. Remove it and use login instead.`
    )
  }
  if (url.search !== "" || url.hash !== "") {
    return invalid(`"${shown(text)}" has a query or a fragment. A homeserver address ends with its host or path.`)
  }
  return Result.succeed({ href: `${url.origin}${url.pathname.replace(/\/+$/, "")}`, origin: url.origin })
}

/** The address of an endpoint: `path` starts with a slash and is percent-encoded already. */
export const join = (base: HomeserverUrl, path: string): string => base.href + path
