import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Blocker } from "../src/lease/Lease.ts"
import * as NotificationKeysMachine from "../src/notification/NotificationKeysMachine.ts"
import type { ErrorClass } from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"

type State = NotificationKeysMachine.State
type Input = NotificationKeysMachine.Input
type Command = NotificationKeysMachine.Command
type Need = NotificationKeysMachine.Need

const random = 0.5
const blocker: Blocker = { kind: "holder", holder: "app#1", peer: { pid: 1 }, expiresAtMillis: 10_000 }
const failed = (one: ErrorClass) => ({ failure: { class: one, message: "why" }, nowMillis: 0, random })
const tags = (commands: ReadonlyArray<Command>) => commands.map(({ _tag }) => _tag)
const taken: Input = { _tag: "LeaseTaken" }
const busy: Input = { _tag: "LeaseBusy", blocker }
const sent: Input = { _tag: "Sent", random }
const wanted: Input = { _tag: "LeaseWanted" }
const lost: Input = { _tag: "LeaseLost" }
const waited: Input = { _tag: "KeysWaited" }
const watched: Input = { _tag: "OwnerWatched" }
const iterated = (isEmpty = true, tookMillis = 30_000): Input => ({
  _tag: "Iterated",
  tookMillis,
  heldMillis: 30_000,
  isEmpty
})

/** A machine that is driven by hand; one event waits for its key until it is said otherwise. */
const drive = () => {
  let state: State = NotificationKeysMachine.initial
  let need: Need = { awaiting: 1, decrypting: 0, remainingMillis: 20_000 }
  const take = ([next, commands]: NotificationKeysMachine.Step): ReadonlyArray<Command> => {
    state = next
    return commands
  }
  const consider = (change: Partial<Need> = {}) => {
    need = { ...need, ...change }
    return take(NotificationKeysMachine.consider(defaults, state, need, random))
  }
  return {
    tag: () => state._tag,
    isAtWork: () => NotificationKeysMachine.isAtWork(state),
    consider,
    send: (...inputs: ReadonlyArray<Input>) =>
      inputs.reduce<ReadonlyArray<Command>>(
        (_, input) => take(NotificationKeysMachine.step(defaults, state, input, need)),
        []
      ),
    /** Goes on to the state in which a grant is held and the first iteration is being made. */
    own: () => {
      consider()
      take(NotificationKeysMachine.step(defaults, state, taken, need))
    }
  }
}

describe("NotificationKeysMachine", () => {
  it("tries the lease when a key is missing, and not before", () => {
    const machine = drive()
    assert.deepStrictEqual(machine.consider({ awaiting: 0, decrypting: 1 }), [])
    assert.deepStrictEqual(machine.consider({ awaiting: 1, decrypting: 0 }), [{ _tag: "TryLease", presumedDead: [] }])
    assert.isTrue(machine.isAtWork())
  })

  it("makes two iterations when the first one brings the key, both answered at once, then lets go", () => {
    const machine = drive()
    machine.consider()
    assert.deepStrictEqual(machine.send(taken), [{ _tag: "WatchGrant" }, { _tag: "Iterate", timeoutMillis: 0 }])
    assert.deepStrictEqual(machine.send(iterated(false)), [{ _tag: "SendOutgoing" }])
    machine.consider({ awaiting: 0 })
    assert.deepStrictEqual(machine.send(sent), [{ _tag: "Iterate", timeoutMillis: 0 }])
    assert.deepStrictEqual(machine.send(iterated(), sent), [{ _tag: "ReleaseLease" }])
    assert.isFalse(machine.isAtWork())
  })

  it("makes as many iterations as there is time while the key is missing; each waits until the deadline at most", () => {
    const machine = drive()
    machine.own()
    assert.deepStrictEqual(machine.send(iterated(), sent), [{ _tag: "Iterate", timeoutMillis: 20_000 }])
    machine.consider({ remainingMillis: 4_000 })
    assert.deepStrictEqual(machine.send(iterated(), sent), [{ _tag: "Iterate", timeoutMillis: 4_000 }])
    machine.consider({ remainingMillis: 50_000 })
    assert.deepStrictEqual(machine.send(iterated(), sent), [{ _tag: "Iterate", timeoutMillis: 30_000 }])
  })

  it("I10: makes no iteration that can't wait because the deadline is there", () => {
    const machine = drive()
    machine.own()
    machine.send(iterated())
    machine.consider({ remainingMillis: 0 })
    assert.deepStrictEqual(tags(machine.send(sent)), ["WaitForKeys"])
  })

  it("goes on only when what was applied has been made use of", () => {
    const machine = drive()
    machine.own()
    machine.send(iterated(false))
    machine.consider({ awaiting: 0, decrypting: 1 })
    assert.deepStrictEqual(machine.send(sent), [])
    assert.deepStrictEqual(machine.consider({ awaiting: 1, decrypting: 0 }), [
      { _tag: "Iterate", timeoutMillis: 20_000 }
    ])
  })

  it("ends a poll that waits for what nobody needs any more, but not before the second iteration", () => {
    const machine = drive()
    machine.own()
    assert.deepStrictEqual(machine.consider({ awaiting: 0 }), [])
    machine.consider({ awaiting: 1 })
    machine.send(iterated(), sent)
    assert.deepStrictEqual(machine.consider({ awaiting: 0 }), [])
    machine.consider({ awaiting: 1 })
    machine.send(iterated(), sent)
    assert.deepStrictEqual(machine.consider({ awaiting: 0 }), [{ _tag: "ReleaseLease" }])
  })

  it("rests when the homeserver answers long polls at once with nothing", () => {
    const machine = drive()
    machine.own()
    machine.send(iterated(), sent)
    const commands = [1, 2, 3, 4, 5, 6].map(() => tags(machine.send(iterated(true, 0), sent))[0])
    assert.include(commands, "WaitForKeys")
    assert.strictEqual(machine.tag(), "Resting")
    assert.deepStrictEqual(tags(machine.send(waited)), ["Iterate"])
  })

  it("I3: never queues: who owns the stream is watched, and the lease tried again when he has let go", () => {
    const machine = drive()
    machine.consider()
    assert.deepStrictEqual(machine.send(busy), [{ _tag: "WatchOwner", blocker }])
    assert.deepStrictEqual(machine.send(waited, taken, busy, iterated(), sent, lost), [], "late answers change nothing")
    assert.deepStrictEqual(machine.send({ _tag: "OwnerGone", random }), [{ _tag: "TryLease", presumedDead: [] }])
    machine.send(busy)
    assert.deepStrictEqual(machine.send({ _tag: "OwnerGone", dead: "app#1", random }), [
      { _tag: "TryLease", presumedDead: ["app#1"] }
    ])
  })

  it("looks once more when the watch is in force, and only then: who let go before was not heard", () => {
    const machine = drive()
    machine.consider()
    machine.send(busy)
    assert.deepStrictEqual(machine.send(watched), [{ _tag: "TryLease", presumedDead: [] }])
    assert.deepStrictEqual(machine.send(busy), [], "he has it still")
    assert.deepStrictEqual(machine.send(watched), [])

    const other = { ...blocker, holder: "app#2" }
    const second = drive()
    second.consider()
    second.send(busy, watched)
    assert.deepStrictEqual(second.send({ _tag: "LeaseBusy", blocker: other }), [{ _tag: "WatchOwner", blocker: other }])
    assert.deepStrictEqual(tags(second.send(watched)), ["TryLease"])
    assert.deepStrictEqual(tags(second.send(taken)), ["UnwatchOwner", "WatchGrant", "Iterate"])
  })

  it("doesn't forget an owner that goes while it looks once more", () => {
    for (const gone of [
      { _tag: "OwnerGone", dead: "app#1", random } as const,
      { _tag: "OwnerGone", random } as const
    ]) {
      const machine = drive()
      machine.consider()
      machine.send(busy, watched)
      assert.deepStrictEqual(machine.send(gone), [], "one try at a time")
      assert.deepStrictEqual(machine.send(busy), [
        { _tag: "TryLease", presumedDead: "dead" in gone ? [gone.dead] : [] }
      ])
    }
    const machine = drive()
    machine.consider()
    machine.send(busy, watched, { _tag: "WatchFailed", ...failed("store") })
    assert.deepStrictEqual(tags(machine.send(busy)), ["TryLease"])
    machine.send(busy, watched)
    assert.deepStrictEqual(tags(machine.send({ _tag: "LeaseFailed", ...failed("store") })), [
      "UnwatchOwner",
      "WaitForLease"
    ])
  })

  it("I10: tries past everybody who was seen to be dead, so that two of them don't send it to and fro", () => {
    const waiter: Input = { _tag: "LeaseBusy", blocker: { ...blocker, kind: "waiter", holder: "standby#1" } }
    const tried = (commands: ReadonlyArray<Command>) =>
      commands.flatMap((one) => (one._tag === "TryLease" ? [one.presumedDead] : []))
    const machine = drive()
    machine.consider()
    machine.send(busy)
    assert.deepStrictEqual(tried(machine.send({ _tag: "OwnerGone", dead: "app#1", random })), [["app#1"]])
    machine.send(waiter)
    assert.deepStrictEqual(tried(machine.send(watched)), [["app#1"]])
    machine.send(waiter)
    const both = [["app#1", "standby#1"]]
    assert.deepStrictEqual(tried(machine.send({ _tag: "OwnerGone", dead: "standby#1", random })), both)
    machine.send({ _tag: "LeaseFailed", ...failed("store") })
    assert.deepStrictEqual(tried(machine.send(waited)), both)

    const second = drive()
    second.consider()
    second.send(busy, watched, { _tag: "OwnerGone", dead: "app#1", random }, waiter)
    assert.deepStrictEqual(tried(second.send(watched)), [["app#1"]], "somebody else was in the way meanwhile")
    const third = drive()
    third.consider()
    third.send(busy, watched, { _tag: "OwnerGone", dead: "app#1", random })
    third.send({ _tag: "LeaseFailed", ...failed("store") })
    assert.deepStrictEqual(tried(third.send(waited)), [["app#1"]], "the lease could not be asked for meanwhile")
  })

  it("tries less and less often when the owner only seems to let go", () => {
    const machine = drive()
    machine.consider()
    const commands = Array.from({ length: 6 }, () => {
      machine.send(busy)
      const [command] = machine.send({ _tag: "OwnerGone", random })
      machine.send(waited)
      return command?._tag === "WaitForLease" ? command.millis : 0
    })
    assert.deepStrictEqual(commands, [0, 0, 0, 375, 750, 1_500])
  })

  it("stops waiting for the lease when nothing is needed any more", () => {
    const machine = drive()
    machine.consider()
    machine.send({ _tag: "LeaseFailed", ...failed("store") })
    assert.deepStrictEqual(machine.consider({ awaiting: 0 }), [{ _tag: "StopWaiting" }])
    assert.isFalse(machine.isAtWork())
  })

  it("stops watching when nothing is needed any more", () => {
    const machine = drive()
    machine.consider()
    machine.send(busy)
    assert.deepStrictEqual(machine.consider({ awaiting: 0, decrypting: 1 }), [], "it may come to wait again")
    assert.deepStrictEqual(machine.consider({ decrypting: 0 }), [{ _tag: "UnwatchOwner" }])
    assert.isFalse(machine.isAtWork())
  })

  describe("yields to who needs the stream soon", () => {
    it("after the iteration that is being made, and watches him then", () => {
      const machine = drive()
      machine.own()
      assert.deepStrictEqual(machine.send(wanted), [])
      assert.deepStrictEqual(tags(machine.send(iterated())), ["SendOutgoing"])
      assert.deepStrictEqual(tags(machine.send(sent)), ["ReleaseLease", "TryLease"])
      assert.deepStrictEqual(tags(machine.send(busy)), ["WatchOwner"])
    })

    it("at once when it only waits for something new", () => {
      const machine = drive()
      machine.own()
      machine.send(iterated(), sent)
      assert.deepStrictEqual(tags(machine.send(wanted)), ["ReleaseLease", "TryLease"])
    })

    it("at once when it rests after an error", () => {
      const machine = drive()
      machine.own()
      machine.send({ _tag: "IterateFailed", ...failed("network") })
      assert.deepStrictEqual(tags(machine.send(wanted)), ["ReleaseLease", "TryLease"])
    })
  })

  describe("meets errors", () => {
    it("I1: a lost grant ends what runs under it, whatever that is", () => {
      for (const way of [[], [iterated()], [{ _tag: "IterateFailed", ...failed("expired") } as const]]) {
        const machine = drive()
        machine.own()
        machine.send(...way)
        assert.deepStrictEqual(tags(machine.send(lost)), ["ReleaseLease", "TryLease"])
      }
      const machine = drive()
      machine.own()
      assert.deepStrictEqual(tags(machine.send({ _tag: "IterateFailed", ...failed("stale") })), [
        "ReleaseLease",
        "TryLease"
      ])
    })

    it("I9: an iteration that fails is made again after a while, later each time", () => {
      const machine = drive()
      machine.own()
      const fails = () => machine.send({ _tag: "IterateFailed", ...failed("server") })
      assert.deepStrictEqual(fails(), [{ _tag: "WaitForKeys", millis: 375 }])
      assert.deepStrictEqual(tags(machine.send(waited)), ["Iterate"])
      assert.deepStrictEqual(fails(), [{ _tag: "WaitForKeys", millis: 750 }])
    })

    it("I9: a position that the homeserver doesn't know is dropped, and the stream read afresh", () => {
      const machine = drive()
      machine.own()
      assert.deepStrictEqual(machine.send({ _tag: "IterateFailed", ...failed("expired") }), [
        { _tag: "ExpirePosition" }
      ])
      assert.deepStrictEqual(tags(machine.send({ _tag: "Expired" })), ["Iterate"])
    })

    it("I9: a lease that can't be asked for is asked for again", () => {
      const machine = drive()
      machine.consider()
      assert.deepStrictEqual(machine.send({ _tag: "LeaseFailed", ...failed("store") }), [
        { _tag: "WaitForLease", millis: 375 }
      ])
      assert.deepStrictEqual(machine.send(waited), [{ _tag: "TryLease", presumedDead: [] }])
    })

    it("I9: when an owner can't be watched any more, the lease is tried again", () => {
      const machine = drive()
      machine.consider()
      machine.send(busy)
      assert.deepStrictEqual(tags(machine.send({ _tag: "WatchFailed", ...failed("store") })), ["WaitForLease"])
      assert.deepStrictEqual(tags(machine.send(waited)), ["TryLease"])
    })

    it("gives up when nothing can help, and lets go", () => {
      const machine = drive()
      machine.own()
      assert.deepStrictEqual(machine.send({ _tag: "IterateFailed", ...failed("auth") }), [{ _tag: "ReleaseLease" }])
      assert.strictEqual(machine.tag(), "GivenUp")
      assert.isFalse(machine.isAtWork())
      const other = drive()
      other.consider()
      assert.deepStrictEqual(other.send({ _tag: "LeaseFailed", ...failed("storeTerminal") }), [])
      assert.strictEqual(other.tag(), "GivenUp")
    })
  })

  const classes: ReadonlyArray<ErrorClass> = [
    "network",
    "rateLimited",
    "expired",
    "auth",
    "server",
    "rejected",
    "store",
    "storeTerminal",
    "stale",
    "moved",
    "crypto"
  ]

  const inputs: fc.Arbitrary<Input> = fc.oneof(
    fc.constantFrom<Input>(taken, busy, sent, wanted, lost, waited, watched, { _tag: "Expired" }),
    fc.constant<Input>({ _tag: "LeaseBusy", blocker: { ...blocker, holder: "app#2" } }),
    fc.boolean().map((isEmpty) => iterated(isEmpty, 0)),
    fc.constantFrom<Input>({ _tag: "OwnerGone", random }, { _tag: "OwnerGone", dead: "app#1", random }),
    fc
      .tuple(
        fc.constantFrom("LeaseFailed" as const, "IterateFailed" as const, "WatchFailed" as const),
        fc.constantFrom(...classes)
      )
      .map(([_tag, one]): Input => ({ _tag, ...failed(one) }))
  )
  const needs: fc.Arbitrary<Need> = fc.record({
    awaiting: fc.integer({ min: 0, max: 2 }),
    decrypting: fc.integer({ min: 0, max: 1 }),
    remainingMillis: fc.integer({ min: 0, max: 20_000 })
  })
  const underGrant: ReadonlySet<Command["_tag"]> = new Set(["Iterate", "SendOutgoing", "ExpirePosition"])
  const answersATry = ({ _tag }: Input) => _tag === "LeaseTaken" || _tag === "LeaseBusy" || _tag === "LeaseFailed"

  it("I1: whatever happens, works only under a grant that it has, gives each back once, and asks for one at a time", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(inputs, needs), { maxLength: 60 }), (story) => {
        let state: State = NotificationKeysMachine.initial
        let holds = false
        let tries = 0
        const obey = ([next, commands]: NotificationKeysMachine.Step) => {
          state = next
          for (const { _tag } of commands) {
            if (_tag === "TryLease") {
              assert.isFalse(holds, "asks for what it has")
              tries++
            } else if (_tag === "ReleaseLease") {
              assert.isTrue(holds, "gives back what it hasn't")
              holds = false
            } else if (underGrant.has(_tag)) assert.isTrue(holds, `${_tag} without a grant`)
          }
        }
        for (const [input, need] of story) {
          // A try is answered once; everything else may come late, twice or never.
          if (answersATry(input) && tries === 0) continue
          if (answersATry(input)) tries--
          if (input._tag === "LeaseTaken") holds = true
          obey(NotificationKeysMachine.step(defaults, state, input, need))
          obey(NotificationKeysMachine.consider(defaults, state, need, random))
          assert.isTrue(!holds || NotificationKeysMachine.isAtWork(state), "a grant that nobody gives back")
        }
      }),
      { numRuns: 2_000 }
    )
  })
})
