/** Why a server of ours doesn't listen, in words that say what to do. */
import { Predicate, Schema } from "effect"

/** The port can't be listened on. `message` says why, and what to do. */
export class CannotListen extends Schema.TaggedError<CannotListen>("@twinloop/platform/CannotListen")("CannotListen", {
  message: Schema.String,
  port: Schema.Finite,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** What Node's error means, on being asked to listen on a port of a host. */
export const cannotListen = (host: string, port: number, cause: unknown): CannotListen => {
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  const why =
    code === "EADDRINUSE"
      ? `another program listens on port ${port} of ${host} already; stop it, or choose another port (0 takes a free one)`
      : code === "EACCES"
        ? `this user may not listen on port ${port}; choose one above 1023 (0 takes a free one)`
        : `listening on port ${port} of ${host} failed: ${String(cause)}`
  return new CannotListen({ message: why, port, cause })
}
