/**
 * What can go wrong on the way to a running Synapse: one envelope with a tagged reason, each with what to do next.
 */
import { Schema } from "effect"

/** There is no Python 3.10 or newer that can be started. */
export class PythonMissing extends Schema.TaggedError<PythonMissing>("@twinloop/platform/PythonMissing")(
  "PythonMissing",
  { message: Schema.String }
) {}

/** Python is there, but the environment or the package could not be had; `output` ends with what the tool said. */
export class InstallFailed extends Schema.TaggedError<InstallFailed>("@twinloop/platform/InstallFailed")(
  "InstallFailed",
  { message: Schema.String, output: Schema.String }
) {}

/** Synapse ended, or did not answer in time, when it was started; `output` ends with what it said. */
export class StartFailed extends Schema.TaggedError<StartFailed>("@twinloop/platform/StartFailed")("StartFailed", {
  message: Schema.String,
  output: Schema.String
}) {}

/** The running Synapse refused a request of ours, or did not answer it. */
export class RequestFailed extends Schema.TaggedError<RequestFailed>("@twinloop/platform/RequestFailed")(
  "RequestFailed",
  { message: Schema.String, status: Schema.optionalKey(Schema.Finite) }
) {}

export const SynapseErrorReason = Schema.Union([PythonMissing, InstallFailed, StartFailed, RequestFailed])
export type SynapseErrorReason = typeof SynapseErrorReason.Type

/** There is no Synapse to work with; `reason` says why, `message` is its sentence, followed by the tool's last words. */
export class SynapseError extends Schema.TaggedError<SynapseError>("@twinloop/platform/SynapseError")("SynapseError", {
  reason: SynapseErrorReason
}) {
  override get message(): string {
    const { reason } = this
    return "output" in reason && reason.output !== "" ? `${reason.message}\n${reason.output}` : reason.message
  }
}
