/**
 * Every limit and interval that an integrator may want to change, in one place, each with its reason (invariant I10).
 *
 * A `Context.Reference`: it has these values unless an integrator provides others with `SyncConfig.layer({...})`.
 *
 * Not here: limits that nobody gains by changing; each is a named constant, with its reason, beside the code that keeps it.
 */
import { Context, Layer } from "effect"
import type { Presence } from "../matrix/SlidingSync.ts"

export interface SyncConfigShape {
  /** Role of this process in the account: names its lease holder and its main connection. 1–8 letters, digits or dashes. */
  readonly role: string
  /** How the user appears to others while either loop syncs. Absent: nothing is sent, which homeservers take for online. */
  readonly presence?: Presence

  // --- the lease
  /** How long an owner may be silent before others take over. Covers a stalled event loop; frozen holders cost others this long. */
  readonly leaseMillis: number
  /** How often an owner renews: three chances per lease. */
  readonly renewMillis: number
  /** How often a waiter looks at the lease when no signal comes: bounds the harm of a lost signal. A read, not a write. */
  readonly waitPollMillis: number
  /** How long a place in the queue lasts without a refresh (at half of it): a dead waiter must not block others for long. */
  readonly ticketMillis: number
  /** How long a waiter that is handed the lease has to confirm it: longer than its poll, for when it misses the signal. */
  readonly handoverMillis: number
  /** How long an owner keeps what it was just given before it yields to who needs it soon: two that send in turns don't reload for each message. */
  readonly yieldAfterMillis: number

  // --- the loops
  /** Long poll: what Element and matrix-rust-sdk use; below the 60 s at which proxies commonly cut. */
  readonly pollTimeoutMillis: number
  /** How long beyond the poll a response may take before the request counts as failed (10 s at least, for a slow mobile network). */
  readonly networkTimeoutMillis: number
  /** First window: what fits a screen, so that something shows at once. */
  readonly initialWindow: number
  /** Rooms added per page: parse and commit of one page stay within a frame or two, whatever the account's size. */
  readonly windowBatch: number
  /** Silence after which the main loop starts from the first window again, so that the next response is small. */
  readonly silenceMillis: number
  /** Timeline events per room in the list: the latest event, for the room list's preview. */
  readonly listTimelineLimit: number
  /** Timeline events per room that the application looks at. */
  readonly subscriptionTimelineLimit: number
  /** Subscriptions at once: the homeserver refuses more (MSC4186). */
  readonly maxSubscriptions: number
  /** To-device events per batch: the homeserver's own limit (MSC4538). */
  readonly toDeviceLimit: number
  /** Body size at which a response is refused: far above a page, far below what would stall the process for seconds. */
  readonly maxResponseBytes: number

  // --- recovery
  /** First wait after an error; doubles, with jitter. */
  readonly backoffMinMillis: number
  /** Longest wait between tries: an hour-long outage ends for the user within half a minute. */
  readonly backoffMaxMillis: number
  /** Longest `Retry-After` that is honoured as given; a homeserver can't switch a client off for a day. */
  readonly retryAfterMaxMillis: number
  /** How long the offline probe waits for an answer. */
  readonly probeTimeoutMillis: number
  /** How long before its end an access token is renewed: as long as a request takes to get there, so that it isn't refused on arrival. */
  readonly tokenRenewAheadMillis: number

  // --- end-to-end encryption
  /** How long a call of the end-to-end machine may take: a batch of 100 messages takes 0.1 s, on a phone in its pocket a few. */
  readonly cryptoCallMillis: number
  /** How long sending an encrypted message waits until this process owns the extension stream; a holder yields within milliseconds. */
  readonly sendWaitMillis: number

  // --- notifications
  /** How long a push may take until it is shown, with what is there by then: iOS gives 30 s, and showing takes some. */
  readonly notificationDeadlineMillis: number
  /** Role of the process that follows the rooms: what it has stored is looked at before anybody is asked. */
  readonly notificationAppRole: string

  // --- storage and memory
  /** How long a write waits for another process's write before it counts as failed. */
  readonly storeBusyMillis: number
  /** Inbox rows that are read at once: a page stays far below a millisecond of JSON. */
  readonly inboxPage: number
  /** Inbox rows that are kept after every consumer has read them, for a consumer that is added later. */
  readonly inboxKept: number
  /** Quarantined things that are kept, newest first: enough to study a fault, while a hostile server can't fill the disk. All are counted. */
  readonly quarantineKept: number
  /** Pushes that wait to be shown; more are put off, and the homeserver keeps them: nobody reads a thousand notifications. */
  readonly pushQueueLimit: number
  /** Body size at which a push is refused: an event has 64 KiB at most, and its push may have as much around it. */
  readonly pushBodyBytes: number
  /** How long a push may take to arrive: far above a homeserver on a slow line, so that who dribbles holds no connection for long. */
  readonly pushRequestMillis: number
  /** Inputs that an actor's mailbox holds; more wait at the sender. */
  readonly mailboxCapacity: number
  /** Changes that a slow subscriber may lag behind before it is given the whole list again. */
  readonly diffBacklog: number
  /** Default deadline of `stop` and `suspend`: iOS gives about 5 s. */
  readonly stopDeadlineMillis: number
}

/** The values that hold when nothing else is said. */
export const defaults: SyncConfigShape = {
  role: "main",
  leaseMillis: 10_000,
  renewMillis: 3_300,
  waitPollMillis: 1_000,
  ticketMillis: 15_000,
  handoverMillis: 3_000,
  yieldAfterMillis: 200,
  pollTimeoutMillis: 30_000,
  networkTimeoutMillis: 30_000,
  initialWindow: 20,
  windowBatch: 100,
  silenceMillis: 1_800_000,
  listTimelineLimit: 1,
  subscriptionTimelineLimit: 20,
  maxSubscriptions: 100,
  toDeviceLimit: 100,
  maxResponseBytes: 64 * 1024 * 1024,
  backoffMinMillis: 500,
  backoffMaxMillis: 30_000,
  retryAfterMaxMillis: 300_000,
  probeTimeoutMillis: 10_000,
  tokenRenewAheadMillis: 2_000,
  cryptoCallMillis: 60_000,
  sendWaitMillis: 10_000,
  notificationDeadlineMillis: 20_000,
  notificationAppRole: "main",
  storeBusyMillis: 5_000,
  inboxPage: 100,
  inboxKept: 1_000,
  quarantineKept: 10_000,
  pushQueueLimit: 1_000,
  pushBodyBytes: 128 * 1024,
  pushRequestMillis: 10_000,
  mailboxCapacity: 256,
  diffBacklog: 1_024,
  stopDeadlineMillis: 5_000
}

/** The limits and intervals in force. */
export const SyncConfig = Context.Reference<SyncConfigShape>("@twinloop/core/SyncConfig", {
  defaultValue: () => defaults
})

/** Replaces some of the values, keeps the defaults of the others. */
export const layer = (overrides: Partial<SyncConfigShape>): Layer.Layer<never> =>
  Layer.succeed(SyncConfig, { ...defaults, ...overrides })
