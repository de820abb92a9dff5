/**
 * The two spellings of simplified sliding sync on the wire, to and from `SlidingSync.ts`.
 *
 * Includes both directions of both messages, so that a client, the homeserver model and the dev homeserver share one
 * codec. Responses are read leniently, in either spelling, whatever was asked: some homeservers answer `/v4/sync` in the
 * unstable spelling, and the other way round.
 *
 * Invariants: I7 (a malformed room or event is quarantined with its raw JSON and never fails the response).
 *
 * Gotchas: `$ME` exists in the unstable spelling only, so a caller sends his explicit user id beside it.
 *
 * Not here: HTTP, and choosing the spelling (`Homeserver.capabilities`); which membership a room without `membership` has,
 * which takes knowing who asks (`rooms/`).
 *
 * Source: MSC4186 with MSC4508, MSC4538, MSC4543; the unstable spelling as Synapse serves it.
 */
export { decodeRequest, encodeRequest, path, type WireRequest } from "./SlidingSyncWireRequest.ts"
export { decodeResponse, encodeResponse } from "./SlidingSyncWireResponse.ts"
