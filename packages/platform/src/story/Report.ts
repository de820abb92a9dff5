/**
 * What the story comes to: what was sent against what was applied, and the times, each with the bound that it must keep.
 *
 * Pure: everything is computed from the sender's record, the inbox, and what the processes said.
 */

/** Bounds that the story holds itself to. Wide of what is measured, so that a busy machine isn't a failure. */
export const bounds = {
  /** From the request to suspend until the other process owns the stream: measured about 5 ms. */
  releaseMillis: 1_000,
  /** From SIGKILL until the other process owns the stream: measured about 5 ms; a lease would be 10 000. */
  killMillis: 2_000,
  /** From the request to suspend until everything is quiet; the deadline that phones give. */
  quietMillis: 5_000,
  /** Longest time without a to-device event reaching the inbox while the window changes many times a second. */
  extensionGapMillis: 2_000,
  /** From the last accepted event until it is in the inbox. */
  lastEventMillis: 10_000,
  /** Of the different windows, the part that the homeserver must have been asked for; the others were gone too fast. */
  windowsAskedShare: 0.1,
  /**
   * From the acceptance of a message until its notification is shown: measured about 1 s where a process has to start first, and
   * 0.1 s where not. Half of the deadline under which a push is resolved.
   */
  notificationMillis: 10_000
} as const

export interface ToDevice {
  readonly sent: number
  readonly applied: number
  readonly lost: number
  readonly duplicated: number
  readonly outOfOrder: number
}

/** Compares the numbers 1..sent that the homeserver accepted with the numbers in the inbox, in the inbox's order. */
export const compare = (sent: number, inbox: ReadonlyArray<number>): ToDevice => {
  const seen = new Set<number>()
  let duplicated = 0
  let outOfOrder = 0
  let highest = 0
  for (const number of inbox) {
    if (seen.has(number)) duplicated++
    else if (number < highest) outOfOrder++
    seen.add(number)
    highest = Math.max(highest, number)
  }
  let lost = 0
  for (let number = 1; number <= sent; number++) if (!seen.has(number)) lost++
  return { sent, applied: seen.size, lost, duplicated, outOfOrder }
}

/** The longest time between two neighbours of ascending moments, the given ends included, in milliseconds. */
export const longestGap = (fromMillis: number, toMillis: number, momentsMillis: ReadonlyArray<number>): number => {
  const inside = momentsMillis.filter((moment) => moment > fromMillis && moment < toMillis)
  const all = [fromMillis, ...inside, toMillis]
  return all.slice(1).reduce((longest, moment, index) => Math.max(longest, moment - all[index]!), 0)
}

/** What can be read of the encrypted messages with the keys that the database holds at the end. */
export interface Readable {
  readonly sent: number
  readonly decrypted: number
  readonly undecrypted: number
  /** Why not, each reason once. */
  readonly reasons: ReadonlyArray<string>
  /** Keys under which they were sent, each of which came in a to-device event of its own. */
  readonly roomKeys: number
  /** How many the timelines in the database lack, so that the homeserver was asked for them. */
  readonly fetched: number
}

export interface Encryption extends Readable {
  /** How often a one-time key was uploaded under an id that had been used: the stored keys had gone back. */
  readonly oneTimeKeyConflicts: number
}

/** What the application is at when a push arrives: it owns the stream, is suspended, was killed; or it runs, and many arrive. */
export type Case = "busy" | "free" | "stale" | "burst"

const cases: ReadonlyArray<Case> = ["busy", "free", "stale", "burst"]

/** A message that the homeserver has accepted, and is to push. Times are of the monotonic clock. */
export interface Pushed {
  readonly as: Case
  readonly roomId: string
  readonly eventId: string
  readonly body: string
  readonly acceptedAtMillis: number
}

/** A notification as it was shown, and when that was seen. */
export interface Shown {
  readonly eventId: string
  /** `NotificationResult`'s tag: `Event` is decrypted. */
  readonly result: string
  /** Whoever wrote it, and what. */
  readonly body?: string
  /** Why it isn't decrypted. */
  readonly message?: string
  readonly atMillis: number
}

export interface Notifications {
  readonly pushed: number
  /** Once each, with what was written. */
  readonly shown: number
  /** Without what was written: as an encrypted message, or as something that can't be shown. */
  readonly undecrypted: number
  /** Why, each reason once. */
  readonly reasons: ReadonlyArray<string>
  /** After the bound, or never. */
  readonly late: number
  readonly duplicated: number
  /** Of rooms that are muted, or of nothing that was sent. */
  readonly unasked: number
  /** From the acceptance of the message until it was seen to be shown, one for each message that was. */
  readonly millis: { readonly [as in Case]: ReadonlyArray<number> }
  /** The last that the push daemon said on standard error, if not all were shown. */
  readonly daemonSaid: ReadonlyArray<string>
}

/** Compares what was pushed with what was shown. */
export const notifications = (
  pushed: ReadonlyArray<Pushed>,
  shown: ReadonlyArray<Shown>,
  daemonSaid: ReadonlyArray<string> = []
): Notifications => {
  const known = new Set(pushed.map(({ eventId }) => eventId))
  const compared = pushed.map((message) => {
    const all = shown.filter(({ eventId }) => eventId === message.eventId)
    const [first] = all
    // The homeserver may push before it has answered whoever sent the message.
    const millis = first === undefined ? undefined : Math.max(0, first.atMillis - message.acceptedAtMillis)
    const isWhole = first?.result === "Event" && first.body?.endsWith(`: ${message.body}`) === true
    return { as: message.as, times: all.length, millis, isWhole, first }
  })
  const count = (holds: (one: (typeof compared)[number]) => boolean): number => compared.filter(holds).length
  const whole = count(({ isWhole, times }) => isWhole && times === 1)
  const millisOf = (as: Case) => compared.flatMap((one) => (one.as === as ? (one.millis ?? []) : []))
  return {
    pushed: pushed.length,
    shown: whole,
    undecrypted: count(({ first }) => first !== undefined && first.result !== "Event"),
    reasons: [...new Set(compared.flatMap(({ first }) => first?.message ?? []))],
    late: count(({ millis }) => millis === undefined || millis > bounds.notificationMillis),
    duplicated: count(({ times }) => times > 1),
    unasked: shown.filter(({ eventId }) => !known.has(eventId)).length,
    millis: { busy: millisOf("busy"), free: millisOf("free"), stale: millisOf("stale"), burst: millisOf("burst") },
    daemonSaid: whole === pushed.length ? [] : daemonSaid
  }
}

export interface Story {
  readonly homeserver: string
  readonly rooms: number
  readonly roomsExpected: number
  readonly toDevice: ToDevice
  readonly messages: { readonly sent: number; readonly roomsBehind: number }
  readonly encryption: Encryption
  readonly notifications: Notifications
  readonly handover: { readonly releaseMillis: ReadonlyArray<number>; readonly killMillis: ReadonlyArray<number> }
  /** `openConnections` is null where the operating system doesn't tell. */
  readonly suspend: { readonly quietMillis: number; readonly quiet: boolean; readonly openConnections: number | null }
  /** How the two processes and the push daemon ended when they were told to stop. */
  readonly exitCodes: ReadonlyArray<number>
  readonly windowChanges: number
  /** How many different windows they were, and how many of those the homeserver was asked for. */
  readonly windows: { readonly wanted: number; readonly asked: number }
  readonly extensionLongestGapMillis: number
  readonly lastEventMillis: number
  readonly tookMillis: number
}

/** What the notifications did not keep, in words. */
const notificationFailures = (found: Notifications): ReadonlyArray<string> => {
  const { daemonSaid, duplicated, late, millis, pushed, reasons, shown, unasked, undecrypted } = found
  const missing = cases.filter((as) => millis[as].length === 0)
  const words = daemonSaid.length === 0 ? "" : `; the push daemon said: ${daemonSaid.join(" | ")}`
  return [
    ...(shown === pushed ? [] : [`${shown} of ${pushed} notifications were shown once and decrypted${words}`]),
    ...(missing.length === 0 ? [] : [`no notification was shown in these cases: ${missing.join(", ")}`]),
    ...(undecrypted === 0
      ? []
      : [`${undecrypted} notifications were shown without what was written: ${reasons.join(" | ")}`]),
    ...(late === 0 ? [] : [`${late} notifications came after ${bounds.notificationMillis} ms or never`]),
    ...(duplicated === 0 ? [] : [`${duplicated} notifications were shown twice`]),
    ...(unasked === 0 ? [] : [`${unasked} notifications were shown of rooms that are muted`])
  ]
}

/** What the story did not keep, in words; empty when all is well. */
export const failures = (story: Story): ReadonlyArray<string> => {
  const { encryption, handover, messages, suspend, toDevice } = story
  const found: Array<string> = []
  const must = (kept: boolean, otherwise: string): void => {
    if (!kept) found.push(otherwise)
  }
  const within = (what: string, millis: number, bound: number): void =>
    must(millis <= bound, `${what} took ${Math.round(millis)} ms, more than its bound of ${bound} ms`)
  must(toDevice.sent > 0, "no to-device event was sent")
  must(toDevice.lost === 0, `${toDevice.lost} to-device events were lost`)
  must(toDevice.duplicated === 0, `${toDevice.duplicated} to-device events were applied twice`)
  must(toDevice.outOfOrder === 0, `${toDevice.outOfOrder} to-device events were applied out of order`)
  must(toDevice.applied === toDevice.sent, `${toDevice.applied} of ${toDevice.sent} to-device events are in the inbox`)
  must(messages.roomsBehind === 0, `${messages.roomsBehind} rooms don't have their latest message`)
  must(encryption.sent > 0, "no encrypted message was sent")
  must(
    encryption.undecrypted === 0,
    `${encryption.undecrypted} encrypted messages can't be read: ${encryption.reasons.join(", ")}`
  )
  must(
    encryption.decrypted === encryption.sent,
    `${encryption.decrypted} of ${encryption.sent} encrypted messages were read`
  )
  must(
    encryption.oneTimeKeyConflicts === 0,
    `${encryption.oneTimeKeyConflicts} times a one-time key had the id of another one`
  )
  must(story.rooms === story.roomsExpected, `the room list has ${story.rooms} rooms instead of ${story.roomsExpected}`)
  must(suspend.quiet, "suspending did not end everything within its deadline")
  must((suspend.openConnections ?? 0) === 0, `${suspend.openConnections} TCP connections were open while suspended`)
  must(
    story.exitCodes.every((code) => code === 0),
    `the processes ended with exit codes ${story.exitCodes.join(" and ")}`
  )
  must(
    story.windows.asked >= story.windows.wanted * bounds.windowsAskedShare,
    `of ${story.windows.wanted} windows only ${story.windows.asked} were asked for`
  )
  for (const millis of handover.releaseMillis) within("hand-over after a release", millis, bounds.releaseMillis)
  for (const millis of handover.killMillis) within("hand-over after a kill", millis, bounds.killMillis)
  within("becoming quiet", suspend.quietMillis, bounds.quietMillis)
  within("the longest gap of the extension loop", story.extensionLongestGapMillis, bounds.extensionGapMillis)
  within("the last event", story.lastEventMillis, bounds.lastEventMillis)
  return [...found, ...notificationFailures(story.notifications)]
}

const millis = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`

type Row = readonly [what: string, is: string, bound: string]

const range = (values: ReadonlyArray<number>): string => {
  const [least, most] = [Math.min(...values), Math.max(...values)]
  if (values.length < 2) return values.map(millis).join("")
  return `${millis(least)} to ${millis(most)}`
}

const notificationRows = (found: Notifications): ReadonlyArray<Row> => {
  const bound = `≤ ${bounds.notificationMillis} ms`
  return [
    ["messages pushed", String(found.pushed), ""],
    ["  shown, once and decrypted", String(found.shown), String(found.pushed)],
    ["  shown without their words", String(found.undecrypted), "0"],
    ["  late or never", String(found.late), "0"],
    ["  shown while the app runs", range(found.millis.busy), bound],
    ["  while it is suspended", range(found.millis.free), bound],
    ["  after it was killed", range(found.millis.stale), bound],
    ["  many at once", range(found.millis.burst), bound]
  ]
}

/** The table at the end, for people. */
export const table = (story: Story): ReadonlyArray<string> => {
  const { encryption, handover, messages, suspend, toDevice } = story
  const rows: ReadonlyArray<Row> = [
    ["rooms in the list", String(story.rooms), `${story.roomsExpected}`],
    ["to-device events sent", String(toDevice.sent), ""],
    ["  applied", String(toDevice.applied), String(toDevice.sent)],
    ["  lost", String(toDevice.lost), "0"],
    ["  duplicated", String(toDevice.duplicated), "0"],
    ["  out of order", String(toDevice.outOfOrder), "0"],
    ["encrypted messages sent", String(encryption.sent), ""],
    ["  keys of rooms for them", String(encryption.roomKeys), ""],
    ["  in gaps of the stored timelines", String(encryption.fetched), ""],
    ["  decrypted", String(encryption.decrypted), String(encryption.sent)],
    ["  undecrypted", String(encryption.undecrypted), "0"],
    ["  rooms without their latest", String(messages.roomsBehind), "0"],
    ["one-time key conflicts", String(encryption.oneTimeKeyConflicts), "0"],
    ["hand-over after release", handover.releaseMillis.map(millis).join(", "), `≤ ${bounds.releaseMillis} ms`],
    ["hand-over after SIGKILL", handover.killMillis.map(millis).join(", "), `≤ ${bounds.killMillis} ms`],
    ["quiet after suspend", millis(suspend.quietMillis), `≤ ${bounds.quietMillis} ms`],
    ["TCP connections while suspended", String(suspend.openConnections ?? "can't be seen here"), "0"],
    ["window changes", String(story.windowChanges), ""],
    [
      "  windows asked for",
      String(story.windows.asked),
      `≥ ${Math.ceil(story.windows.wanted * bounds.windowsAskedShare)}`
    ],
    [
      "  longest gap of the extension loop",
      millis(story.extensionLongestGapMillis),
      `≤ ${bounds.extensionGapMillis} ms`
    ],
    ["last event to inbox", millis(story.lastEventMillis), `≤ ${bounds.lastEventMillis} ms`],
    ...notificationRows(story.notifications)
  ]
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map(([what, is, bound]) => `  ${what.padEnd(widths[0]!)}  ${is.padStart(widths[1]!)}  ${bound}`.trimEnd())
}
