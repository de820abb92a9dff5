/**
 * The parts of the proof, in the order of the page.
 *
 * Not here: what bugs each found (`Notes.ts`).
 */
import { Schema } from "effect"
import * as Part from "./Part.ts"

const { duration, number } = Part

const counts = Schema.Record(Schema.String, Schema.Finite)

const simulation = Part.make({
  name: "simulation",
  title: "Simulation of whole processes",
  how: [
    "`SyncSim` plays an application, a process that stands by, and short-lived ones that pushes start, over one homeserver, one database and one",
    "virtual clock, as a seed says. After every step the checkers of I1 to I10 look; in the end the faults stop, and everything must be back in",
    "sync. Simulated are the cipher, the database and the network; everything that decides is the product."
  ].join("\n"),
  runs: {
    short: [{ name: "whole", script: "sim", args: ["--seeds", "150", "--minutes", "1", "--json"], limitMinutes: 4 }],
    long: [
      {
        name: "whole",
        script: "sim",
        args: ["--seeds", "10000", "--minutes", "60", "--json"],
        limitMinutes: 70
      }
    ]
  },
  report: Schema.Struct({
    seeds: Schema.Finite,
    steps: Schema.Finite,
    faults: Schema.Finite,
    hits: counts,
    virtualDays: Schema.Finite,
    checks: Schema.Finite,
    wallSeconds: Schema.Finite,
    failed: Schema.Array(Schema.Finite)
  }),
  judge: ({ checks, failed, faults, hits, seeds, steps, virtualDays, wallSeconds }) => ({
    ok: failed.length === 0 && seeds > 0,
    headline: `${number(seeds)} seeds, ${number(virtualDays)} days of virtual time, ${number(faults)} faults met, ${number(checks)} checks: ${failed.length} failed`,
    figures: [
      ["seeds", number(seeds)],
      ["failed", failed.length === 0 ? "0" : failed.join(", ")],
      ["virtual time", `${number(virtualDays)} days`],
      ["checks", number(checks)],
      ["steps of the schedules", number(steps)],
      ["faults that met somebody", number(faults)],
      ["it took", duration(wallSeconds)]
    ],
    table: {
      head: ["fault", "met"],
      rows: Object.entries(hits)
        .toSorted(([, one], [, other]) => other - one)
        .map(([fault, times]) => [fault, number(times)])
    }
  })
})

const mutation = Part.make({
  name: "mutants",
  title: "Deliberate faults in our own code",
  how: "One fault at a time is made in a copy of the tree; a test must notice it. The short form tries another handful for each commit.",
  runs: {
    short: [{ name: "whole", script: "mutants", args: ["--sample", "5", "--json"], limitMinutes: 10 }],
    long: [{ name: "whole", script: "mutants", args: ["--json"], limitMinutes: 30 }]
  },
  report: Schema.Struct({
    passed: Schema.Finite,
    failed: Schema.Finite,
    mutants: Schema.Array(
      Schema.Struct({
        id: Schema.String,
        breaks: Schema.String,
        verdict: Schema.String,
        by: Schema.String,
        seconds: Schema.Finite
      })
    )
  }),
  judge: ({ failed, mutants, passed }) => ({
    ok: failed === 0 && passed > 0,
    headline: `${passed} of ${passed + failed} deliberate faults noticed`,
    figures: [
      ["faults tried", number(passed + failed)],
      ["noticed", number(passed)]
    ],
    table: {
      head: ["fault", "breaks", "noticed by", "within"],
      rows: mutants.map(({ breaks, by, id, seconds, verdict }) => [
        id,
        breaks,
        verdict === "caught" ? by : `${verdict}: ${by}`,
        `${number(seconds)} s`
      ])
    }
  })
})

const one = { processes: "1", notifications: "1", pushes: "1", events: "1" }
const two = { processes: "2", events: "1", crashes: "1" }

const modelArgs = (bounds: { readonly [name: string]: string }): ReadonlyArray<string> => [
  ...Object.entries(bounds).flatMap(([name, value]) => [`--${name}`, value]),
  "--json"
]

const model = Part.make({
  name: "model",
  title: "All interleavings of a small account",
  how: [
    "A breadth-first search over the pure machines of the product: the lease, the extension loop, and the process that a push starts. Nothing is",
    "sampled: each step of each process, each answer and each trouble within the bounds comes after each other one. I1 to I5 hold in every",
    "state, and from every state everything can still come to a good end."
  ].join("\n"),
  runs: {
    short: [
      { name: "two applications", script: "model", args: modelArgs(two), limitMinutes: 5 },
      { name: "one and a push", script: "model", args: modelArgs(one), limitMinutes: 5 }
    ],
    long: [{ name: "whole", script: "model", args: ["--all", "--json"], limitMinutes: 240 }]
  },
  report: Schema.Array(
    Schema.Struct({
      name: Schema.optionalKey(Schema.String),
      bounds: counts,
      states: Schema.Finite,
      transitions: Schema.Finite,
      depth: Schema.Finite,
      isCut: Schema.Boolean,
      violations: Schema.Array(Schema.Struct({ what: Schema.String })),
      cpuSeconds: Schema.Finite,
      memoryMegabytes: Schema.Finite
    })
  ),
  judge: (report) => {
    const sum = (pick: (found: (typeof report)[number]) => number): number =>
      report.reduce((total, found) => total + pick(found), 0)
    const violations = report.flatMap((found) => found.violations.map(({ what }) => what))
    const isCut = report.some((found) => found.isCut)
    return {
      ok: report.length > 0 && violations.length === 0 && !isCut,
      headline: `${number(sum(({ states }) => states))} states, ${number(sum(({ transitions }) => transitions))} transitions: ${violations.length} violations`,
      figures: [
        ["configurations", String(report.length)],
        ["states", number(sum(({ states }) => states))],
        ["transitions", number(sum(({ transitions }) => transitions))],
        ["violations", violations.join("; ") || "0"],
        ["all visited", isCut ? "no" : "yes"]
      ],
      table: {
        head: ["configuration", "bounds", "states", "transitions", "depth", "time of a core", "memory"],
        rows: report.map(({ bounds, cpuSeconds, depth, memoryMegabytes, name, states, transitions }) => [
          name ?? "",
          Object.entries(bounds)
            .filter(([, value]) => value > 0)
            .map(([what, value]) => `${what} ${value}`)
            .join(", "),
          number(states),
          number(transitions),
          number(depth),
          duration(cpuSeconds),
          `${number(memoryMegabytes)} MB`
        ])
      }
    }
  }
})

const chaosArgs = (homeserver: string, minutes: string): ReadonlyArray<string> => [
  "--minutes",
  minutes,
  "--homeserver",
  homeserver,
  "--seed",
  "1",
  "--json"
]

const chaosRuns = (minutes: string, limitMinutes: number): ReadonlyArray<Part.Run> =>
  ["dev", "synapse"].map((homeserver) => ({
    name: homeserver === "dev" ? "dev homeserver" : "Synapse",
    script: "chaos",
    args: chaosArgs(homeserver, minutes),
    limitMinutes
  }))

const timesOf = (done: { readonly [what: string]: number }, fault: string): number =>
  Object.entries(done).reduce((sum, [what, times]) => (what.startsWith(`${fault} `) ? sum + times : sum), 0)

const chaos = Part.make({
  name: "chaos",
  title: "Chaos of real processes",
  how: [
    "Two `twinloop run` and a push daemon with its workers follow an account, over one SQLite file, HTTP and the real encryption, while another user",
    "writes. They are killed (SIGKILL), stopped (SIGSTOP), suspended, cut off, and their disk is full; then what was sent is compared with what is",
    "there. The network is cut at a TCP gate on the same host, and no power is lost."
  ].join("\n"),
  runs: { short: chaosRuns("0.4", 5), long: chaosRuns("10", 20) },
  report: Schema.Struct({
    ok: Schema.Boolean,
    seed: Schema.Finite,
    minutes: Schema.Finite,
    canFill: Schema.Boolean,
    done: counts,
    restarts: Schema.Finite,
    toDevice: Schema.Struct({
      sent: Schema.Finite,
      applied: Schema.Finite,
      lost: Schema.Finite,
      duplicated: Schema.Finite,
      outOfOrder: Schema.Finite
    }),
    encryption: Schema.Struct({
      sent: Schema.Finite,
      undecrypted: Schema.Finite,
      roomKeys: Schema.Finite,
      oneTimeKeyConflicts: Schema.Finite
    }),
    pushes: Schema.Struct({
      pushed: Schema.Finite,
      shown: Schema.Finite,
      missing: Schema.Finite,
      duplicated: Schema.Finite
    }),
    connectionsWhileSuspended: Schema.Finite,
    recoveryMillis: Schema.Finite,
    failures: Schema.Array(Schema.String)
  }),
  judge: (report) => {
    const { done, encryption, pushes, toDevice } = report
    const [kills, stops, suspends] = ["Kill", "Stop", "Suspend"].map((fault) => timesOf(done, fault))
    return {
      ok: report.ok,
      headline: `${number(report.minutes)} minutes, ${kills} kills, ${stops} stops, ${suspends} suspends: ${toDevice.lost} lost, ${toDevice.duplicated} duplicated of ${number(toDevice.sent)}`,
      figures: [
        ["minutes of trouble, seed", `${number(report.minutes)}, ${report.seed}`],
        ["kills", String(kills)],
        ["stops", String(stops)],
        ["suspends", String(suspends)],
        ["cut off, slow", `${timesOf(done, "Cut")}, ${timesOf(done, "Slow")}`],
        ["answers lost", String(timesOf(done, "Lose"))],
        ["disk full", report.canFill ? String(timesOf(done, "Full")) : "can't be filled here"],
        ["to-device events sent", number(toDevice.sent)],
        ["lost", String(toDevice.lost)],
        ["duplicated", String(toDevice.duplicated)],
        ["out of order", String(toDevice.outOfOrder)],
        ["encrypted messages, unreadable", `${number(encryption.sent)}, ${encryption.undecrypted}`],
        ["room keys", number(encryption.roomKeys)],
        ["one-time keys made twice", String(encryption.oneTimeKeyConflicts)],
        ["pushes, shown once", `${number(pushes.pushed)}, ${number(pushes.shown)}`],
        ["never shown, shown twice", `${pushes.missing}, ${pushes.duplicated}`],
        ["most connections while suspended", String(report.connectionsWhileSuspended)],
        ["all there after the last trouble", duration(report.recoveryMillis / 1_000)],
        ["what was not kept", report.failures.join("; ") || "nothing"]
      ]
    }
  }
})

const fuzz = Part.make({
  name: "fuzz",
  title: "Every decoder, with what nobody sends in good faith",
  how: "Good texts, recorded from homeservers or written as we write them, changed by chance. Each must be taken or refused by a typed error, within five seconds.",
  runs: {
    short: [{ name: "whole", script: "fuzz", args: ["--inputs", "5000", "--seed", "1", "--json"], limitMinutes: 4 }],
    long: ["dev", "synapse"].map((homeserver) => ({
      name: homeserver === "dev" ? "dev homeserver" : "Synapse",
      script: "fuzz",
      args: ["--inputs", "100000", "--homeserver", homeserver, "--seed", "1", "--json"],
      limitMinutes: 40
    }))
  },
  report: Schema.Struct({
    seed: Schema.Finite,
    inputs: Schema.Finite,
    failures: Schema.Array(Schema.Unknown),
    targets: Schema.Record(Schema.String, Schema.Struct({ inputs: Schema.Finite, taken: Schema.Finite })),
    slow: Schema.Finite,
    slowest: Schema.Struct({ target: Schema.String, millis: Schema.Finite }),
    seconds: Schema.Finite
  }),
  judge: ({ failures, inputs, seconds, seed, slow, slowest, targets }) => ({
    ok: failures.length === 0 && inputs > 0,
    headline: `${number(inputs)} inputs to ${Object.keys(targets).length} decoders: ${failures.length} failed`,
    figures: [
      ["seed", String(seed)],
      ["inputs", number(inputs)],
      ["decoders", String(Object.keys(targets).length)],
      ["failed", String(failures.length)],
      ["taken", number(Object.values(targets).reduce((sum, { taken }) => sum + taken, 0))],
      ["slowest", `${number(slowest.millis)} ms (${slowest.target})`],
      ["slower than 50 ms", number(slow)],
      ["it took", duration(seconds)]
    ]
  })
})

const Slope = Schema.Struct({ perHour: Schema.Finite, error: Schema.Finite })

const risesBy = (slope: typeof Slope.Type | undefined, unit: string): string =>
  slope === undefined ? "too short to say" : `${slope.perHour.toFixed(2)} ± ${slope.error.toFixed(2)}${unit} an hour`

const soak = Part.make({
  name: "soak",
  title: "An hour without faults",
  how: [
    "The same processes under a steady load. Slopes are fitted after the warm-up; each must be below its bound in `scripts/soak/Figures.ts`. Live heap",
    "is what is left after a collection of garbage. A short run is too short for slopes."
  ].join("\n"),
  runs: {
    short: [{ name: "whole", script: "soak", args: ["--minutes", "1", "--json"], limitMinutes: 5 }],
    long: [{ name: "whole", script: "soak", args: ["--minutes", "60", "--json"], limitMinutes: 75 }]
  },
  report: Schema.Struct({
    ok: Schema.Boolean,
    minutes: Schema.Finite,
    isJudged: Schema.Boolean,
    processes: Schema.Record(
      Schema.String,
      Schema.Struct({
        liveMib: Schema.optionalKey(Slope),
        residentMib: Schema.optionalKey(Slope),
        handles: Schema.optionalKey(Slope),
        lastMib: Schema.Finite,
        peakMib: Schema.Finite,
        lastHandles: Schema.Finite,
        threadsStarted: Schema.Finite
      })
    ),
    lastDatabaseBytes: Schema.Finite,
    mostLogBytes: Schema.Finite,
    bytesPerMessage: Schema.Finite,
    leaseWritesPerMinute: Schema.Finite,
    mostRows: counts,
    bounds: counts,
    toDevice: Schema.Struct({ sent: Schema.Finite, lost: Schema.Finite, duplicated: Schema.Finite }),
    failures: Schema.Array(Schema.String)
  }),
  judge: (report) => {
    const { bounds, mostRows, processes, toDevice } = report
    const rises = Object.entries(processes).map(([name, { liveMib }]) => `${name} ${risesBy(liveMib, " MiB")}`)
    return {
      ok: report.ok,
      headline: report.isJudged
        ? `${number(report.minutes)} minutes; live heap: ${rises.slice(0, 3).join(", ")}`
        : `${number(report.minutes)} minutes, too short for slopes: everything within its bounds`,
      figures: [
        ["minutes", number(report.minutes)],
        ...Object.entries(processes).flatMap(([name, one]): ReadonlyArray<readonly [string, string]> => [
          ...(one.liveMib === undefined ? [] : [[`${name}: live heap`, risesBy(one.liveMib, " MiB")] as const]),
          [
            `${name}: resident memory`,
            `${number(one.lastMib)} MiB (peak ${number(one.peakMib)}), ${risesBy(one.residentMib, " MiB")}`
          ],
          [
            `${name}: handles`,
            `${one.lastHandles}, ${risesBy(one.handles, "")}; ${one.threadsStarted} threads started late`
          ]
        ]),
        [
          "database",
          `${number(report.lastDatabaseBytes / 1e6)} MB, ${number(report.bytesPerMessage)} bytes a message (at most ${number(bounds["bytesPerMessage"] ?? 0)})`
        ],
        ["log", `at most ${number(report.mostLogBytes / 1e6)} MB`],
        ...Object.entries(mostRows).map(
          ([table, rows]) =>
            [`rows of \`${table}\``, `at most ${number(rows)} of ${number(bounds[table] ?? 0)}`] as const
        ),
        ["writes of leases", `${number(report.leaseWritesPerMinute)} a minute`],
        ["to-device events", `${number(toDevice.sent)} sent, ${toDevice.lost} lost, ${toDevice.duplicated} twice`],
        ["what grew", report.failures.join("; ") || "nothing"]
      ]
    }
  }
})

const schemas = Part.make({
  name: "schemas",
  title: "The specification's schemas as the judge",
  how: [
    "The specification publishes schemas of its requests, answers and events. A judge on the wire holds each answer of the dev homeserver against them, and each",
    "request of our client and of matrix-js-sdk (sliding sync and encryption), while they live their stories, and while each route is asked with",
    "good and bad input. Known deviations have a reason, and must be met."
  ].join("\n"),
  runs: {
    short: [{ name: "whole", script: "conformance", args: ["--json"], limitMinutes: 10 }],
    long: [{ name: "whole", script: "conformance", args: ["--json"], limitMinutes: 10 }]
  },
  report: Schema.Struct({
    ok: Schema.Boolean,
    routes: Schema.Finite,
    specified: Schema.Finite,
    judged: Schema.Finite,
    answers: Schema.Finite,
    statuses: counts,
    requests: counts,
    deviations: Schema.Array(Schema.String)
  }),
  judge: ({ answers, deviations, judged, ok, requests, routes, specified, statuses }) => {
    const times = (numbers: { readonly [name: string]: number }): string =>
      Object.entries(numbers)
        .map(([name, count]) => `${name}: ${number(count)}`)
        .join(", ")
    const all = Object.values(requests).reduce((sum, count) => sum + count, 0)
    return {
      ok,
      headline: `${judged} of ${specified} specified routes, ${number(answers)} answers and ${number(all)} requests judged, ${deviations.length} known deviations`,
      figures: [
        ["routes of the dev homeserver", String(routes)],
        ["specified", String(specified)],
        ["judged", String(judged)],
        ["answers judged", `${number(answers)} (${times(statuses)})`],
        ["requests judged", times(requests)],
        ["known deviations", String(deviations.length)]
      ],
      table: { head: ["known deviation"], rows: deviations.map((why) => [why]) }
    }
  }
})

const rust = Part.make({
  name: "rust",
  title: "matrix-rust-sdk as the other client",
  how: [
    "`matrix-sdk-ui` of the crate registry, built on demand: its `SyncService`, `RoomListService`, `EncryptionSyncService` and `NotificationClient` live",
    "on the dev homeserver, and exchange encrypted messages with our client. Not in the short form, since it takes long to build."
  ].join("\n"),
  runs: { short: [], long: [{ name: "whole", script: "test:rust", args: ["--json"], limitMinutes: 60 }] },
  report: Schema.Struct({
    matrixSdkUi: Schema.String,
    scenarios: Schema.Struct({ passed: Schema.Finite, failed: Schema.Finite }),
    messages: Schema.Struct({ readByRustSdk: Schema.Finite, readByTwinloop: Schema.Finite })
  }),
  judge: ({ matrixSdkUi, messages, scenarios }) => ({
    ok: scenarios.failed === 0 && scenarios.passed > 0,
    headline: `matrix-sdk-ui ${matrixSdkUi}: ${scenarios.passed} of ${scenarios.passed + scenarios.failed} scenarios, ${messages.readByRustSdk} of our messages read, ${messages.readByTwinloop} of its`,
    figures: [
      ["matrix-sdk-ui", matrixSdkUi],
      ["scenarios passed", String(scenarios.passed)],
      ["failed", String(scenarios.failed)],
      ["messages of ours that it read", String(messages.readByRustSdk)],
      ["messages of its that we read", String(messages.readByTwinloop)]
    ]
  })
})

export const all: ReadonlyArray<Part.Part> = [simulation, model, mutation, chaos, schemas, rust, fuzz, soak]
