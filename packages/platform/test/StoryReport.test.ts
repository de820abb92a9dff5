import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Report from "../src/story/Report.ts"

const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index + 1)

const pushedAs = (as: Report.Case, count: number): ReadonlyArray<Report.Pushed> =>
  numbers(count).map((number) => ({
    as,
    roomId: `!${as}:hs`,
    eventId: `$${as}${number}`,
    body: `${as} ${number}`,
    acceptedAtMillis: 1_000
  }))

const pushed = [...pushedAs("busy", 1), ...pushedAs("free", 1), ...pushedAs("stale", 1), ...pushedAs("burst", 12)]

const shownOf = ({ body, eventId }: Report.Pushed): Report.Shown => ({
  eventId,
  result: "Event",
  body: `⚠ Bob: ${body}`,
  atMillis: 1_250
})

const shown = pushed.map(shownOf)

/** What it comes to when the notification of one message is another one, or several. */
const withShown = (change: (one: Report.Shown) => ReadonlyArray<Report.Shown>): Report.Notifications =>
  Report.notifications(pushed, [...change(shown[0]!), ...shown.slice(1)])

const good: Report.Story = {
  homeserver: "dev",
  rooms: 205,
  roomsExpected: 205,
  toDevice: Report.compare(100, numbers(100)),
  messages: { sent: 30, roomsBehind: 0 },
  encryption: {
    sent: 30,
    decrypted: 30,
    undecrypted: 0,
    reasons: [],
    roomKeys: 12,
    fetched: 3,
    oneTimeKeyConflicts: 0
  },
  notifications: Report.notifications(pushed, shown),
  handover: { releaseMillis: [20], killMillis: [25] },
  suspend: { quietMillis: 9, quiet: true, openConnections: 0 },
  exitCodes: [0, 0],
  windowChanges: 100,
  windows: { wanted: 99, asked: 90 },
  extensionLongestGapMillis: 60,
  lastEventMillis: 40,
  tookMillis: 14_000
}

describe("Report.compare", () => {
  it("finds nothing wrong when every number is there once and in order", () => {
    assert.deepStrictEqual(Report.compare(3, [1, 2, 3]), { sent: 3, applied: 3, lost: 0, duplicated: 0, outOfOrder: 0 })
  })

  it("counts what is lost, doubled and out of order", () => {
    assert.deepStrictEqual(Report.compare(5, [1, 3, 2, 2, 5]), {
      sent: 5,
      applied: 4,
      lost: 1,
      duplicated: 1,
      outOfOrder: 1
    })
  })

  it("tells every inbox that isn't the numbers in order from the one that is", () => {
    const inboxes = fc.array(fc.integer({ min: 1, max: 8 }), { maxLength: 10 })
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 8 }), inboxes, (sent, inbox) => {
        const found = Report.compare(sent, inbox)
        const isPerfect = inbox.length === sent && inbox.every((number, index) => number === index + 1)
        const saysPerfect =
          found.lost === 0 && found.duplicated === 0 && found.outOfOrder === 0 && found.applied === found.sent
        assert.strictEqual(saysPerfect, isPerfect)
      }),
      { numRuns: 2_000 }
    )
  })
})

describe("Report.longestGap", () => {
  it("counts the time before the first and after the last moment too", () => {
    assert.strictEqual(Report.longestGap(0, 100, [10, 20, 90]), 70)
    assert.strictEqual(Report.longestGap(0, 100, [60, 70]), 60)
    assert.strictEqual(Report.longestGap(0, 100, [10, 20]), 80)
  })

  it("leaves moments outside alone, and is the whole time when nothing happens", () => {
    assert.strictEqual(Report.longestGap(50, 100, [10, 120]), 50)
  })
})

describe("Report.notifications", () => {
  it("counts what was pushed and shown, and how long each took", () => {
    assert.deepStrictEqual(Report.notifications(pushed, shown), {
      pushed: 15,
      shown: 15,
      undecrypted: 0,
      reasons: [],
      late: 0,
      duplicated: 0,
      unasked: 0,
      millis: { busy: [250], free: [250], stale: [250], burst: Array.from({ length: 12 }, () => 250) },
      daemonSaid: []
    })
  })

  it("tells what was shown as encrypted, with other words, twice, and never", () => {
    const encrypted = withShown((one) => [{ ...one, result: "Undecrypted", message: "no key" }])
    assert.deepInclude(encrypted, { shown: 14, undecrypted: 1, reasons: ["no key"], late: 0 })
    const failed = withShown((one) => [{ ...one, result: "Failed", body: "It can't be shown" }])
    assert.deepInclude(failed, { shown: 14, undecrypted: 1, late: 0 })
    const altered = withShown((one) => [{ ...one, body: "Bob: busy 11" }])
    assert.deepInclude(altered, { shown: 14, undecrypted: 0, late: 0 })
    assert.deepInclude(
      withShown((one) => [one, one]),
      { shown: 14, duplicated: 1, late: 0 }
    )
    const never = withShown(() => [])
    assert.deepInclude(never, { shown: 14, late: 1, duplicated: 0 })
    assert.deepStrictEqual(never.millis.busy, [])
    const muted = withShown((one) => [one, { ...one, eventId: "$muted" }])
    assert.deepInclude(muted, { shown: 15, unasked: 1 })
  })

  it("is never negative where a push was faster than the answer to whoever sent the message", () => {
    assert.deepStrictEqual(withShown((one) => [{ ...one, atMillis: 990 }]).millis.busy, [0])
  })

  it("has the last words of the daemon only if something is missing", () => {
    assert.deepStrictEqual(Report.notifications(pushed, shown, ["a warning"]).daemonSaid, [])
    const found = Report.notifications(pushed, shown.slice(1), ["it broke"])
    assert.deepStrictEqual(found.daemonSaid, ["it broke"])
    assert.include(Report.failures({ ...good, notifications: found }).join("; "), "it broke")
  })
})

describe("Report.failures", () => {
  it("finds none in a story that kept everything", () => {
    assert.deepStrictEqual(Report.failures(good), [])
  })

  const broken: ReadonlyArray<readonly [string, Partial<Report.Story>]> = [
    ["a lost event", { toDevice: Report.compare(100, numbers(99)) }],
    ["an event applied twice", { toDevice: Report.compare(100, [...numbers(100), 100]) }],
    ["events out of order", { toDevice: Report.compare(3, [2, 1, 3]) }],
    ["an event that nobody sent", { toDevice: Report.compare(99, numbers(100)) }],
    ["a sender that sent nothing", { toDevice: Report.compare(0, []) }],
    ["a room without its latest message", { messages: { sent: 30, roomsBehind: 1 } }],
    ["messages that nobody sent encrypted", { encryption: { ...good.encryption, sent: 0, decrypted: 0 } }],
    [
      "a message that can't be decrypted",
      { encryption: { ...good.encryption, decrypted: 29, undecrypted: 1, reasons: ["MissingRoomKey"] } }
    ],
    ["a message that nobody tried to decrypt", { encryption: { ...good.encryption, decrypted: 29 } }],
    ["a one-time key that was replaced", { encryption: { ...good.encryption, oneTimeKeyConflicts: 1 } }],
    ["a missing room", { rooms: 204 }],
    ["a suspension that was not quiet", { suspend: { ...good.suspend, quiet: false } }],
    ["a process that didn't end well", { exitCodes: [0, 1] }],
    ["a connection that stayed open", { suspend: { ...good.suspend, openConnections: 1 } }],
    ["windows that nobody asked for", { windows: { wanted: 99, asked: 1 } }],
    ["a late hand-over", { handover: { ...good.handover, releaseMillis: [Report.bounds.releaseMillis + 1] } }],
    ["a late take-over", { handover: { ...good.handover, killMillis: [Report.bounds.killMillis + 1] } }],
    ["a slow suspension", { suspend: { ...good.suspend, quietMillis: Report.bounds.quietMillis + 1 } }],
    ["a gap in the extension loop", { extensionLongestGapMillis: Report.bounds.extensionGapMillis + 1 }],
    ["a notification that never came", { notifications: withShown(() => []) }],
    [
      "a notification that came late",
      {
        notifications: withShown((one) => [{ ...one, atMillis: 1_001 + Report.bounds.notificationMillis }])
      }
    ],
    ["a notification that was shown twice", { notifications: withShown((one) => [one, one]) }],
    [
      "a notification of an encrypted message",
      { notifications: withShown((one) => [{ ...one, result: "Undecrypted" }]) }
    ],
    ["a notification with other words", { notifications: withShown((one) => [{ ...one, body: "Bob: something" }]) }],
    ["a notification of a muted room", { notifications: withShown((one) => [one, { ...one, eventId: "$muted" }]) }],
    ["a case in which nothing was pushed", { notifications: Report.notifications(pushed.slice(1), shown.slice(1)) }],
    ["a late last event", { lastEventMillis: Report.bounds.lastEventMillis + 1 }]
  ]
  it.each(broken)("finds %s", (_, change) => {
    assert.isNotEmpty(Report.failures({ ...good, ...change }))
  })
})
