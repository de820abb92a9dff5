/**
 * Where the dev homeserver or a client deviates from the specification's schemas, knowingly, and why.
 *
 * Invariants: each of them is met in every run; one that isn't is stale, and fails the test.
 */
import type { Finding } from "./Judge.ts"

export interface Deviation {
  /** Part of a finding's line, as `line` writes it. */
  readonly finding: RegExp
  readonly why: string
}

export const deviations: ReadonlyArray<Deviation> = [
  {
    finding:
      /^answer of .*, GET \/_matrix\/client\/v3\/voip\/turnServer, answered by 200: it must have required property/,
    why: "there is no TURN server to tell of, which Synapse says by an empty object, and clients know"
  },
  {
    finding: /^answer of .*, POST \/_matrix\/client\/v3\/keys\/upload, answered by 400: .* for M_TOO_LARGE$/,
    why: "a device would hold too many one-time keys, which Synapse refuses by this status, and the specification by none"
  },
  {
    finding:
      /^request of the dev homeserver, POST \/_matrix\/push\/v1\/notify, .*: \/notification\/type must be string$/,
    why: "a push of nothing but counts has a type that is null, as Synapse sends it; so a gateway must take it"
  }
]

/** A finding in one line. */
export const line = ({ client, endpoint, of, status, what }: Finding): string =>
  `${of} of ${client}, ${endpoint}, answered by ${status}: ${what}`

/** What nobody has explained, and explanations of nothing. */
export const unexplained = (findings: ReadonlyArray<Finding>) => {
  const lines = findings.map(line)
  return {
    findings: lines.filter((text) => !deviations.some(({ finding }) => finding.test(text))),
    stale: deviations.filter(({ finding }) => !lines.some((text) => finding.test(text))).map(({ why }) => why)
  }
}
