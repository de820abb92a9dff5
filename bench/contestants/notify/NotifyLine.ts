/**
 * What processes of the notification benchmarks are given, are told, and say.
 *
 * They read commands from standard input, a line each, and print lines of JSON: `push ROOM EVENT` to those that resolve, and
 * `reach USER DEVICE`, `say ROOM WORD` to who sends.
 */

/** An account of the homeserver, and where a process of it keeps what it has. */
export interface NotifyTask {
  readonly baseUrl: string
  readonly userId: string
  readonly deviceId: string
  readonly accessToken: string
  /** A database with the login; the key to the end-to-end keys is beside it. Of no use to who keeps nothing. */
  readonly database: string
}

/** What a process that resolves says of a push. */
export interface Resolved {
  readonly event: "resolved"
  /** The text, when it is known. */
  readonly body: string
  /** From the moment at which the process was told the ids. */
  readonly resolvedMillis: number
  /** HTTP requests that were begun until then. */
  readonly requests: number
}

export type NotifyLine =
  | { readonly event: "ready" | "reached" }
  | { readonly event: "said"; readonly eventId: string }
  | Resolved
  /** Nothing goes on any more; requests since the push. */
  | { readonly event: "settled"; readonly requests: number }
