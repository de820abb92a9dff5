import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Fence } from "../src/lease/Lease.ts"
import { emptyResponse, type SyncResponse } from "../src/matrix/SlidingSync.ts"
import * as ExtensionLoopMachine from "../src/sync/ExtensionLoopMachine.ts"
import type { ErrorClass, Failure } from "../src/sync/SupervisionPolicy.ts"
import * as SupervisionPolicy from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"
import type { ExtensionPosition } from "../src/sync/SyncStore.ts"

type State = ExtensionLoopMachine.State
type Input = ExtensionLoopMachine.Input
type Command = ExtensionLoopMachine.Command
type Of<Tag extends State["_tag"]> = Extract<State, { _tag: Tag }>

const config: ExtensionLoopMachine.Config = { sync: defaults }
const random = 0.5
const none: SyncResponse["extensions"] = { unknown: {} }
const nowMillis = 1_000_000
const fenceOf = (generation: number): Fence => ({ name: "stream", holder: "main#1", generation })
const failure = (one: ErrorClass): Failure => ({ class: one, message: "why" })
const failed = (one: ErrorClass) => ({ failure: failure(one), nowMillis, random })
const tags = (commands: ReadonlyArray<Command>) => commands.map((command) => command._tag)

/** A machine that is driven by hand. */
const drive = () => {
  let state = ExtensionLoopMachine.initial
  const send = (input: Input): ReadonlyArray<Command> => {
    const [next, commands] = ExtensionLoopMachine.step(config, state, input)
    state = next
    return commands
  }
  const as = <Tag extends State["_tag"]>(tag: Tag): Of<Tag> => {
    assert.strictEqual(state._tag, tag)
    return state as Of<Tag>
  }
  const machine = {
    state: () => state,
    as,
    send,
    start: () => send({ _tag: "Start" }),
    grant: (generation = 1, isDirty = true) =>
      send({ _tag: "LockGranted", fence: fenceOf(generation), isDirty, nowMillis }),
    read: (position: ExtensionPosition = {}) => send({ _tag: "PositionRead", position }),
    /** The homeserver answers, by default when the poll is over. */
    answer: (pos = "p", tookMillis = defaults.pollTimeoutMillis, extensions: SyncResponse["extensions"] = none) => {
      const response = { ...emptyResponse(pos), extensions }
      return send({ _tag: "Polled", epoch: as("Polling").epoch, response, tookMillis })
    },
    pollFails: (one: ErrorClass) => send({ _tag: "PollFailed", epoch: as("Polling").epoch, ...failed(one) }),
    /** Goes on, by the ordinary way, until a state is reached. */
    to: (tag: State["_tag"]) => {
      for (let steps = 0; state._tag !== tag; steps++) {
        if (steps > 20) return assert.fail(`${tag} is not on the ordinary way from ${state._tag}`)
        machine.goOn()
      }
      return machine
    },
    goOn: () => {
      switch (state._tag) {
        case "Idle":
        case "Failed":
          return machine.start()
        case "WaitingForLock":
          return machine.grant()
        case "Reloading":
          return send({ _tag: "Reloaded" })
        case "Reading":
          return machine.read({ since: "s", pos: "p" })
        case "Polling":
          return machine.answer()
        case "Applying":
          return send({ _tag: "Applied" })
        case "Sending":
          return send({ _tag: "Sent", nowMillis, random })
        case "Expiring":
          return send({ _tag: "Expired", nowMillis })
        case "BackingOff":
        case "Resting":
          return send({ _tag: "BackoffElapsed" })
      }
    }
  }
  return machine
}

describe("ExtensionLoopMachine goes round", () => {
  it("waits for the lock, reloads, sends, and then reads, polls, applies and sends for as long as it holds", () => {
    const machine = drive()
    const commands = [...machine.start(), ...machine.grant()]
    for (let steps = 0; steps < 10; steps++) commands.push(...machine.goOn())
    const round = ["ReadPosition", "Poll", "Apply", "SendOutgoing"] as const
    assert.deepStrictEqual(tags(commands), [
      "TakeLock",
      "WatchLock",
      "Reload",
      "SendOutgoing",
      ...round,
      ...round,
      "ReadPosition"
    ])
  })

  it("I5: reloads when memory may be outdated, and not otherwise", () => {
    const dirty = drive()
    dirty.start()
    assert.deepStrictEqual(dirty.grant(4, true), [{ _tag: "WatchLock" }, { _tag: "Reload", fence: fenceOf(4) }])
    const clean = drive()
    clean.start()
    assert.deepStrictEqual(clean.grant(4, false), [{ _tag: "WatchLock" }, { _tag: "ReadPosition" }])
  })

  it("I1: shows the grant's fence with everything that writes", () => {
    const machine = drive()
    const commands = [...machine.start(), ...machine.grant(7)]
    for (let steps = 0; steps < 5; steps++) commands.push(...machine.goOn())
    machine.to("Polling")
    commands.push(...machine.pollFails("expired"))
    const fences = commands.flatMap((command) => ("fence" in command ? [[command._tag, command.fence.generation]] : []))
    assert.deepStrictEqual(fences, [
      ["Reload", 7],
      ["SendOutgoing", 7],
      ["Apply", 7],
      ["SendOutgoing", 7],
      ["ExpirePosition", 7]
    ])
  })

  it("has both extensions and nothing else in every request, on one connection of its own", () => {
    const machine = drive().to("Reading")
    const polled = [{}, { since: "nb0", pos: "p0" }, { since: "nb1", pos: "p1" }].map((position) => {
      const [command] = machine.to("Reading").read(position)
      machine.answer()
      return command?._tag === "Poll" ? command.request : undefined
    })
    const common = { connId: "encryption", lists: {}, roomSubscriptions: {} }
    const { pollTimeoutMillis: timeoutMillis } = defaults
    const { toDeviceLimit: limit } = defaults
    assert.deepStrictEqual<unknown>(polled, [
      { ...common, timeoutMillis: 0, extensions: { e2ee: true, toDevice: { limit } } },
      { ...common, timeoutMillis, pos: "p0", extensions: { e2ee: true, toDevice: { limit, since: "nb0" } } },
      { ...common, timeoutMillis, pos: "p1", extensions: { e2ee: true, toDevice: { limit, since: "nb1" } } }
    ])
  })

  it("asks to be answered at once after a grant, a loss and every failure, and holds the line once it was answered", () => {
    const machine = drive()
    const timeout = () => {
      const [command] = machine.to("Reading").read({ since: "s", pos: "p" })
      return command?._tag === "Poll" ? command.request.timeoutMillis : undefined
    }
    const long = defaults.pollTimeoutMillis
    const answered = () => {
      machine.answer()
      return timeout()
    }
    assert.deepStrictEqual([timeout(), answered(), answered()], [0, long, long])
    for (const one of ["network", "expired", "server"] as const) {
      machine.pollFails(one)
      assert.deepStrictEqual([timeout(), answered()], [0, long])
    }
    machine.answer()
    machine.send({ _tag: "ApplyFailed", ...failed("store") })
    assert.deepStrictEqual([timeout(), answered()], [0, long])
    machine.send({ _tag: "LockLost", generation: 1 })
    assert.strictEqual(timeout(), 0)
  })

  it("I2: sends the since that is stored, also when another process has stored it, and applies against it", () => {
    const machine = drive().to("Reading")
    machine.read({ since: "nb1", pos: "p1" })
    machine.answer("p2")
    machine.to("Reading")
    const stored = { since: "written-by-another", pos: "p9" }
    const [poll] = machine.read(stored)
    assert.strictEqual(poll?._tag === "Poll" ? poll.request.extensions.toDevice?.since : "", "written-by-another")
    const [apply] = machine.answer("p10")
    assert.deepStrictEqual(apply?._tag === "Apply" ? apply.sent : undefined, stored)
  })

  it("starts once, however often it is told to", () => {
    const machine = drive()
    machine.start()
    const state = machine.state()
    assert.deepStrictEqual(machine.start(), [])
    assert.strictEqual(machine.state(), state)
  })
})

describe("ExtensionLoopMachine recovers", () => {
  it("starts the connection afresh when the homeserver goes on rejecting the request", () => {
    const machine = drive()
    for (let times = 0; times < 3; times++) {
      assert.deepStrictEqual(tags(machine.to("Polling").pollFails("rejected")), ["Wait"])
    }
    assert.deepStrictEqual(tags(machine.to("Polling").pollFails("rejected")), ["ExpirePosition"])
  })

  it("starts the connection afresh after its position expired: both extensions, no pos, the last since", () => {
    const machine = drive().to("Polling")
    assert.deepStrictEqual(tags(machine.pollFails("expired")), ["ExpirePosition"])
    assert.deepStrictEqual(tags(machine.send({ _tag: "Expired", nowMillis })), ["ReadPosition"])
    // Dropping the position leaves the since in the store.
    const [poll] = machine.read({ since: "nb1" })
    const request = poll?._tag === "Poll" ? poll.request : undefined
    assert.isUndefined(request?.pos)
    assert.deepStrictEqual(request?.extensions, { e2ee: true, toDevice: { limit: 100, since: "nb1" } })
  })

  it("waits before it starts afresh a second time in a row", () => {
    const machine = drive().to("Polling")
    machine.pollFails("expired")
    machine.to("Polling")
    machine.pollFails("expired")
    assert.deepStrictEqual(machine.send({ _tag: "Expired", nowMillis }), [
      { _tag: "Wait", millis: SupervisionPolicy.backoffMillis(defaults, 0, random) }
    ])
    assert.deepStrictEqual(tags(machine.send({ _tag: "BackoffElapsed" })), ["ReadPosition"])
  })

  for (const one of ["network", "server", "rateLimited", "store"] as const) {
    it(`I9: keeps the lock over a failure of class ${one}, waits longer each time, and reads again`, () => {
      const machine = drive().to("Polling")
      const delays = [0, 1, 2].map(() => {
        const commands = machine.pollFails(one)
        assert.deepStrictEqual(tags(commands), ["Wait"])
        assert.strictEqual(machine.as("BackingOff").fence?.generation, 1)
        assert.deepStrictEqual(tags(machine.send({ _tag: "BackoffElapsed" })), ["ReadPosition"])
        machine.to("Polling")
        return commands[0]?._tag === "Wait" ? commands[0].millis : undefined
      })
      assert.deepStrictEqual(
        delays,
        [0, 1, 2].map((n) => SupervisionPolicy.backoffMillis(defaults, n, random))
      )

      // A batch that was applied makes the next failure the first one.
      machine.to("Applying").to("Polling")
      assert.deepStrictEqual(machine.pollFails(one), [{ _tag: "Wait", millis: delays[0]! }])
    })
  }

  for (const from of ["Applying", "Sending"] as const) {
    it(`I1: discards, lets go and waits when the commit is stale (${from})`, () => {
      const machine = drive().to("Polling").to(from)
      const commands = machine.send({ _tag: "ApplyFailed", ...failed("stale") })
      assert.deepStrictEqual(tags(commands), ["DiscardMemory", "ReleaseLock", "TakeLock"])
      machine.as("WaitingForLock")
    })

    it(`I5: discards and reloads when another process has moved the position (${from})`, () => {
      const machine = drive().to("Polling").to(from)
      const commands = machine.send({ _tag: "ApplyFailed", ...failed("moved") })
      assert.deepStrictEqual(commands, [{ _tag: "DiscardMemory" }, { _tag: "Wait", millis: 0 }])
      assert.deepStrictEqual(tags(machine.send({ _tag: "BackoffElapsed" })), ["Reload"])
    })

    it(`I2: discards and reloads after a store that couldn't be written (${from})`, () => {
      const machine = drive().to("Polling").to(from)
      assert.deepStrictEqual(tags(machine.send({ _tag: "ApplyFailed", ...failed("store") })), ["DiscardMemory", "Wait"])
      assert.deepStrictEqual(tags(machine.send({ _tag: "BackoffElapsed" })), ["Reload"])
    })

    it(`waits longer each time the end-to-end machine fails (${from})`, () => {
      const machine = drive().to("Polling").to(from)
      const delays = [0, 1, 2].map(() => {
        const [discard, wait] = machine.send({ _tag: "ApplyFailed", ...failed("crypto") })
        assert.strictEqual(discard?._tag, "DiscardMemory")
        machine.to(from)
        return wait?._tag === "Wait" ? wait.millis : 0
      })
      assert.isTrue(delays[0]! > 0 && delays[1]! > delays[0]! && delays[2]! > delays[1]!, `${delays}`)
    })
  }

  it("lets go when the lease turns out stale while the position is dropped", () => {
    const machine = drive().to("Polling")
    machine.pollFails("expired")
    const commands = machine.send({ _tag: "ExpireFailed", ...failed("stale") })
    assert.deepStrictEqual(tags(commands).slice(0, 2), ["DiscardMemory", "ReleaseLock"])
    assert.isUndefined(machine.as("BackingOff").fence)
    assert.deepStrictEqual(tags(machine.send({ _tag: "BackoffElapsed" })), ["TakeLock"])
  })

  it("I9: doesn't hammer when every commit is stale", () => {
    const machine = drive()
    const delays = [0, 1, 2, 3].map(() => {
      machine.to("Applying")
      const commands = machine.send({ _tag: "ApplyFailed", ...failed("stale") })
      return commands.reduce((millis, command) => (command._tag === "Wait" ? command.millis : millis), 0)
    })
    assert.deepStrictEqual(delays, [
      0,
      ...[1, 2, 3].map((attempt) => SupervisionPolicy.backoffMillis(defaults, attempt, random))
    ])
  })

  it("tries again to reload, to read and to get the lock", () => {
    const machine = drive().to("Reloading")
    assert.deepStrictEqual(tags(machine.send({ _tag: "ReloadFailed", ...failed("crypto") })), ["Wait"])
    assert.deepStrictEqual(tags(machine.send({ _tag: "Retry" })), ["Reload"])
    machine.to("Reading")
    assert.deepStrictEqual(tags(machine.send({ _tag: "ReadFailed", ...failed("store") })), ["Wait"])
    assert.deepStrictEqual(tags(machine.send({ _tag: "Retry" })), ["ReadPosition"])

    const waiting = drive().to("WaitingForLock")
    assert.deepStrictEqual(tags(waiting.send({ _tag: "LockFailed", ...failed("store") })), ["Wait"])
    assert.deepStrictEqual(tags(waiting.send({ _tag: "BackoffElapsed" })), ["TakeLock"])
  })

  it("lets the lock go when nothing helps, and starts when it is told to", () => {
    const machine = drive().to("Polling")
    assert.deepStrictEqual(tags(machine.pollFails("auth")), ["DiscardMemory", "ReleaseLock"])
    assert.deepStrictEqual(machine.as("Failed").failure, failure("auth"))
    assert.deepStrictEqual(machine.send({ _tag: "Retry" }), [])
    assert.deepStrictEqual(tags(machine.start()), ["TakeLock"])

    // Without the lock there is nothing to let go.
    assert.deepStrictEqual(machine.send({ _tag: "LockFailed", ...failed("storeTerminal") }), [])
    machine.as("Failed")
  })
})

describe("ExtensionLoopMachine rests", () => {
  const events = [{ type: "m.dummy", sender: "@a:x", content: {} }]
  /** How long it waits before each of the next requests. */
  const waits = (machine: ReturnType<typeof drive>, rounds: number, answer: () => void) =>
    Array.from({ length: rounds }, () => {
      machine.to("Polling")
      answer()
      machine.to("Sending")
      const [command] = machine.goOn()
      return command?._tag === "Wait" ? command.millis : 0
    })

  it("I10: asks less and less often when long polls are answered at once with nothing", () => {
    const machine = drive().to("Polling")
    const backoff = [0, 1, 2].map((attempt) => SupervisionPolicy.backoffMillis(defaults, attempt, random))
    // The first request isn't held open.
    assert.deepStrictEqual(
      waits(machine, 9, () => machine.answer("p", 3)),
      [0, 0, 0, 0, 0, 0, ...backoff]
    )
    assert.strictEqual(machine.as("Resting").failure.class, "server")
    assert.deepStrictEqual(tags(machine.send({ _tag: "Retry" })), ["ReadPosition"])
    // One that is held open shows that the homeserver can.
    assert.deepStrictEqual(
      waits(machine, 3, () => machine.answer()),
      [0, 0, 0]
    )
    machine.to("Polling").answer("p", 3)
    machine.to("Sending")
    assert.deepStrictEqual(tags(machine.goOn()), ["ReadPosition"])
  })

  it("I10: counts events that can't be acknowledged as nothing, which come again at once", () => {
    const machine = drive().to("Polling")
    const quarantined = [{ source: "extension" as const, reason: "no next_batch", raw: {} }]
    const answer = () => {
      const response = { ...emptyResponse("p"), quarantined }
      machine.send({ _tag: "Polled", epoch: machine.as("Polling").epoch, response, tookMillis: 3 })
    }
    assert.isAbove(waits(machine, 9, answer).at(-1) ?? 0, 0)
  })

  for (const [what, extensions] of [
    ["to-device events", { unknown: {}, toDevice: { nextBatch: "n", events } }],
    ["changed device lists", { unknown: {}, e2ee: { deviceLists: { changed: ["@a:x"], left: [] } } }]
  ] as const) {
    it(`doesn't rest while ${what} come, however fast`, () => {
      const machine = drive().to("Polling")
      assert.deepStrictEqual([...new Set(waits(machine, 50, () => machine.answer("p", 0, extensions)))], [0])
    })
  }
})

describe("ExtensionLoopMachine loses the lock", () => {
  const lost = (generation: number): Input => ({ _tag: "LockLost", generation })
  const ways: ReadonlyArray<readonly [string, () => ReturnType<typeof drive>]> = [
    ...(["Reloading", "Reading", "Polling", "Applying", "Sending"] as const).map(
      (tag) => [tag, () => drive().to(tag)] as const
    ),
    [
      "Expiring",
      () => {
        const machine = drive().to("Polling")
        machine.pollFails("expired")
        return machine
      }
    ],
    [
      "BackingOff",
      () => {
        const machine = drive().to("Polling")
        machine.pollFails("network")
        return machine
      }
    ]
  ]

  for (const [tag, reach] of ways) {
    it(`I1: ends its work, discards memory, lets go and waits again (${tag})`, () => {
      const machine = reach()
      assert.strictEqual(machine.state()._tag, tag)
      assert.deepStrictEqual(tags(machine.send(lost(1))), ["AbortWork", "DiscardMemory", "ReleaseLock", "TakeLock"])
      machine.as("WaitingForLock")
    })

    it(`changes nothing when an earlier grant is lost (${tag})`, () => {
      const machine = reach()
      const state = machine.state()
      assert.deepStrictEqual(machine.send(lost(0)), [])
      assert.strictEqual(machine.state(), state)
    })
  }

  it("changes nothing where there is no lock", () => {
    const machine = drive()
    for (const tag of ["Idle", "WaitingForLock"] as const) assert.deepStrictEqual(machine.to(tag).send(lost(1)), [])
    machine.send({ _tag: "LockFailed", ...failed("store") })
    assert.deepStrictEqual(machine.send(lost(1)), [])
    machine.as("BackingOff")
  })

  it("I1: takes no answer to a request of the lost grant for one of the next", () => {
    const machine = drive().to("Polling")
    const { epoch } = machine.as("Polling")
    machine.send(lost(1))
    machine.grant(2)
    machine.to("Polling")
    const state = machine.state()
    assert.deepStrictEqual(machine.send({ _tag: "Polled", epoch, response: emptyResponse("late"), tookMillis: 0 }), [])
    assert.deepStrictEqual(machine.send({ _tag: "PollFailed", epoch, ...failed("auth") }), [])
    assert.strictEqual(machine.state(), state)
  })

  it("takes no answer to a request from before a reload for one of after it", () => {
    const machine = drive().to("Polling")
    const { epoch } = machine.as("Polling")
    machine.answer()
    machine.send({ _tag: "ApplyFailed", ...failed("crypto") })
    machine.to("Polling")
    assert.deepStrictEqual(machine.send({ _tag: "Polled", epoch, response: emptyResponse("late"), tookMillis: 0 }), [])
    machine.as("Polling")
  })
})

describe("ExtensionLoopMachine yields the lock", () => {
  const { yieldAfterMillis } = defaults
  /** Somebody else needs it, by default when it has been kept for long enough. */
  const wanted = (afterMillis = yieldAfterMillis, generation = 1): Input => ({
    _tag: "LockWanted",
    generation,
    nowMillis: nowMillis + afterMillis
  })
  const yields: Array<Command["_tag"]> = ["AbortWork", "ReleaseLock", "TakeLock"]
  const backingOff = () => {
    const machine = drive().to("Polling")
    machine.pollFails("network")
    return machine
  }
  const resting = () => {
    const machine = drive()
    while (machine.state()._tag !== "Resting") {
      machine.to("Polling").answer("p", 3)
      machine.to("Sending")
      machine.goOn()
    }
    return machine
  }

  for (const [tag, reach] of [
    ["Reading", () => drive().to("Reading")],
    ["Polling", () => drive().to("Polling")],
    ["Resting", resting],
    ["BackingOff", backingOff]
  ] as const) {
    it(`ends what only waits, lets go, and waits its turn (${tag})`, () => {
      const machine = reach()
      assert.strictEqual(machine.state()._tag, tag)
      assert.deepStrictEqual(tags(machine.send(wanted())), yields)
      machine.as("WaitingForLock")
    })
  }

  it("I2: commits what it applies before it lets go, and leaves what is to be sent to the next owner", () => {
    const machine = drive().to("Applying")
    assert.deepStrictEqual(machine.send(wanted()), [])
    assert.deepStrictEqual(tags(machine.send({ _tag: "Applied" })), yields)
  })

  it("finishes what it sends before it lets go", () => {
    const machine = drive().to("Polling").to("Sending")
    assert.deepStrictEqual(machine.send(wanted()), [])
    assert.deepStrictEqual(tags(machine.goOn()), yields)
  })

  it("has sent what was queued, however long it takes to reload, so that each owner gets something done", () => {
    const machine = drive().to("Reloading")
    assert.deepStrictEqual(machine.send(wanted()), [])
    assert.deepStrictEqual(tags(machine.goOn()), ["SendOutgoing"])
    assert.deepStrictEqual(tags(machine.goOn()), yields)
  })

  it("has dropped an expired position before it lets go", () => {
    for (const times of [1, 2]) {
      const machine = drive()
      for (let time = 0; time < times; time++) machine.to("Polling").pollFails("expired")
      machine.as("Expiring")
      assert.deepStrictEqual(machine.send(wanted()), [])
      // Whether it would read at once or wait.
      assert.deepStrictEqual(tags(machine.goOn()), yields)
    }
  })

  it("I5: lets go after a commit that failed, with its memory declared void", () => {
    const machine = drive().to("Applying")
    machine.send(wanted())
    assert.deepStrictEqual(tags(machine.send({ _tag: "ApplyFailed", ...failed("store") })), [
      "AbortWork",
      "DiscardMemory",
      "ReleaseLock",
      "TakeLock"
    ])
    const stale = drive().to("Applying")
    stale.send(wanted())
    assert.deepStrictEqual(tags(stale.send({ _tag: "ApplyFailed", ...failed("stale") })), [
      "DiscardMemory",
      "ReleaseLock",
      "TakeLock"
    ])
  })

  it("keeps what it was just given for yieldAfterMillis, and then yields", () => {
    const machine = drive().to("Polling")
    const state = machine.state()
    assert.deepStrictEqual(machine.send(wanted(50)), [
      { _tag: "WantLater", generation: 1, millis: yieldAfterMillis - 50 }
    ])
    assert.strictEqual(machine.state(), state)
    // A timer may be early.
    assert.deepStrictEqual(machine.send(wanted(yieldAfterMillis - 1)), [
      { _tag: "WantLater", generation: 1, millis: 1 }
    ])
    assert.deepStrictEqual(tags(machine.send(wanted())), yields)
  })

  it("measures that from the last grant, and not from the first", () => {
    const machine = drive().to("Polling")
    machine.send(wanted())
    const fence = fenceOf(3)
    machine.send({ _tag: "LockGranted", fence, isDirty: false, nowMillis: nowMillis + 1_000 })
    assert.deepStrictEqual(machine.send(wanted(1_050, 3)), [
      { _tag: "WantLater", generation: 3, millis: yieldAfterMillis - 50 }
    ])
    // And nobody wants it yet: it goes round as ever.
    for (const tag of ["Polling", "Applying", "Sending", "Polling"] as const) machine.to(tag)
    assert.deepStrictEqual(tags(machine.send(wanted(1_200, 3))), yields)
  })

  it("I10: doesn't keep it for longer when the clock is set back", () => {
    assert.deepStrictEqual(tags(drive().to("Polling").send(wanted(-3_600_000))), yields)
  })

  it("changes nothing when an earlier grant was wanted, where there is no lock, and when it is known", () => {
    const machine = drive()
    for (const tag of ["Idle", "WaitingForLock"] as const) assert.deepStrictEqual(machine.to(tag).send(wanted()), [])
    assert.deepStrictEqual(machine.to("Polling").send(wanted(yieldAfterMillis, 0)), [])
    machine.as("Polling")
    machine.to("Applying").send(wanted())
    const state = machine.state()
    assert.deepStrictEqual(machine.send(wanted()), [])
    assert.strictEqual(machine.state(), state)
  })

  it("goes on counting failures, so that a loop that fails doesn't ask more often because others want the lock", () => {
    const machine = backingOff()
    machine.send(wanted())
    const [wait] = machine.to("Polling").pollFails("network")
    assert.deepStrictEqual(wait, { _tag: "Wait", millis: SupervisionPolicy.backoffMillis(defaults, 1, random) })
  })
})

describe("ExtensionLoopMachine at any time", () => {
  const generation = fc.integer({ min: 1, max: 3 })
  const epoch = fc.nat({ max: 8 })
  const classes = ["network", "expired", "auth", "store", "stale", "moved", "crypto", "storeTerminal"] as const
  const failing = fc.constantFrom(...classes).map(failed)
  const input: fc.Arbitrary<Input> = fc.oneof(
    fc.constantFrom<Input>(
      { _tag: "Start" },
      { _tag: "LockRefused" },
      { _tag: "Reloaded" },
      { _tag: "PositionRead", position: { since: "s" } },
      { _tag: "Applied" },
      { _tag: "Sent", nowMillis, random },
      { _tag: "Expired", nowMillis },
      { _tag: "BackoffElapsed" },
      { _tag: "Retry" }
    ),
    fc
      .tuple(generation, fc.boolean())
      .map(([generation, isDirty]): Input => ({ _tag: "LockGranted", fence: fenceOf(generation), isDirty, nowMillis })),
    generation.map((generation): Input => ({ _tag: "LockLost", generation })),
    fc
      .tuple(generation, fc.constantFrom(nowMillis, nowMillis + defaults.yieldAfterMillis))
      .map(([generation, nowMillis]): Input => ({ _tag: "LockWanted", generation, nowMillis })),
    epoch.map((epoch): Input => ({ _tag: "Polled", epoch, response: emptyResponse("p"), tookMillis: 0 })),
    fc.tuple(epoch, failing).map(([epoch, failed]): Input => ({ _tag: "PollFailed", epoch, ...failed })),
    fc
      .tuple(
        fc.constantFrom("LockFailed", "ReloadFailed", "ReadFailed", "ApplyFailed", "ExpireFailed") as fc.Arbitrary<
          "LockFailed" | "ReloadFailed" | "ReadFailed" | "ApplyFailed" | "ExpireFailed"
        >,
        failing
      )
      .map(([_tag, failed]): Input => ({ _tag, ...failed }))
  )
  /** Goes the ordinary way at times, so that every state is reached often. */
  const moves = fc.array(fc.option(input, { nil: undefined, freq: 2 }), { maxLength: 80, size: "max" })

  /** What each state waits for: the command whose answer takes it further. */
  const awaited: Record<State["_tag"], Command["_tag"] | undefined> = {
    Idle: undefined,
    WaitingForLock: "TakeLock",
    Reloading: "Reload",
    Reading: "ReadPosition",
    Polling: "Poll",
    Applying: "Apply",
    Sending: "SendOutgoing",
    Expiring: "ExpirePosition",
    BackingOff: "Wait",
    Resting: "Wait",
    Failed: undefined
  }
  const cleaning: ReadonlyArray<Command["_tag"]> = [
    "AbortWork",
    "DiscardMemory",
    "ReleaseLock",
    "WatchLock",
    "WantLater"
  ]
  const identity = (command: Command) => (command._tag === "Poll" ? `Poll ${command.epoch}` : command._tag)
  const identityOf = (state: State) => (state._tag === "Polling" ? `Poll ${state.epoch}` : awaited[state._tag])

  /** Sends all inputs, and looks at every step. */
  const observe = (
    inputs: ReadonlyArray<Input | undefined>,
    look: (before: State, after: State, commands: ReadonlyArray<Command>) => void
  ) => {
    const machine = drive()
    for (const input of inputs) {
      const before = machine.state()
      const commands = input === undefined ? machine.goOn() : machine.send(input)
      look(before, machine.state(), commands)
    }
  }

  it("has one piece of work at most, and always exactly one thing to wait for", () => {
    fc.assert(
      fc.property(moves, (inputs) => {
        let waiting: string | undefined
        observe(inputs, (before, after, commands) => {
          const started = commands.filter((command) => !cleaning.includes(command._tag))
          assert.isAtMost(started.length, 1)
          if (started[0] !== undefined) waiting = identity(started[0])
          else if (awaited[after._tag] === undefined) waiting = undefined
          else assert.strictEqual(identityOf(after), identityOf(before))
          assert.strictEqual(waiting, identityOf(after))
        })
      }),
      { numRuns: 2_000 }
    )
  })

  it("I1: holds one lock at most, lets go of every one it was given, and works only under the one it holds", () => {
    fc.assert(
      fc.property(moves, (inputs) => {
        let held: Fence | undefined
        observe(inputs, (before, after, commands) => {
          for (const command of commands) {
            if (command._tag === "ReleaseLock") {
              assert.isDefined(held)
              held = undefined
            }
            if (command._tag === "TakeLock") assert.isUndefined(held)
            if ("fence" in command && before._tag !== "WaitingForLock") assert.deepStrictEqual(command.fence, held)
          }
          const fence = "fence" in after ? after.fence : undefined
          if (before._tag === "WaitingForLock") held = fence
          assert.deepStrictEqual(fence, held)
        })
      }),
      { numRuns: 2_000 }
    )
  })

  it("I5: never goes on with memory that was declared void, but reloads it or lets the lock go", () => {
    fc.assert(
      fc.property(moves, (inputs) => {
        let isVoid = false
        observe(inputs, (_, after, commands) => {
          for (const { _tag } of commands) {
            if (_tag === "DiscardMemory") isVoid = true
            if (_tag === "Reload" || _tag === "ReleaseLock") isVoid = false
          }
          const works = after._tag === "Polling" || after._tag === "Applying" || after._tag === "Sending"
          assert.isFalse(isVoid && works)
        })
      }),
      { numRuns: 2_000 }
    )
  })

  it("asks the homeserver for nothing more under a lock that is known to be wanted, and has let go when it waits", () => {
    fc.assert(
      fc.property(moves, (inputs) => {
        observe(inputs, (before, after, commands) => {
          if (before.hold?.wanted === true) assert.notInclude(tags(commands), "Poll")
          if (after.hold?.wanted === true) {
            assert.include(["Reloading", "Applying", "Sending", "Expiring"], after._tag)
          }
        })
      }),
      { numRuns: 2_000 }
    )
  })

  it("I10: numbers its requests upwards, so that no two are the same while it runs", () => {
    fc.assert(
      fc.property(moves, (inputs) => {
        let last = 0
        observe(inputs, (_, after, commands) => {
          if (after._tag === "Failed") last = 0
          for (const command of commands) {
            if (command._tag !== "Poll") continue
            assert.isAbove(command.epoch, last)
            last = command.epoch
          }
        })
      }),
      { numRuns: 1_000 }
    )
  })
})
