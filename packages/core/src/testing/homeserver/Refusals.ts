/**
 * A refusal of the homeserver model as the reason that a client of the `Homeserver` port is given, by the same rules by
 * which an HTTP client reads status and errcode.
 */
import type { HomeserverErrorReason } from "../../sync/HomeserverError.ts"
import * as Errors from "../../sync/HomeserverError.ts"
import type { Refusal } from "./ModelState.ts"

/** The reason for a refusal. */
export const reasonOf = ({
  status,
  errcode,
  message,
  softLogout = false,
  interactive
}: Refusal): HomeserverErrorReason => {
  if (interactive !== undefined) {
    const failed = errcode === "" ? {} : { errcode }
    return new Errors.UserInteractiveAuth({ message, completed: [], ...interactive, ...failed })
  }
  if (errcode === "M_UNKNOWN_POS") return new Errors.UnknownPosition({ message })
  if (errcode === "M_UNRECOGNIZED") return new Errors.Unsupported({ message })
  if (status === 401) return new Errors.Unauthorized({ message, softLogout })
  if (status === 403) return new Errors.Forbidden({ message, errcode })
  if (status === 404) return new Errors.NotFound({ message })
  if (status === 429) return new Errors.RateLimited({ message })
  return status >= 500
    ? new Errors.ServerError({ message, status })
    : new Errors.BadRequest({ message, status, errcode })
}
