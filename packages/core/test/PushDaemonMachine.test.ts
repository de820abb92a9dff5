import { PushDaemonMachine, SyncConfig } from "@twinloop/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"

type Machine = typeof PushDaemonMachine
type State = PushDaemonMachine.State
type Input = PushDaemonMachine.Input
type Command = PushDaemonMachine.Command

const config: PushDaemonMachine.Config = { limits: SyncConfig.defaults, workerMillis: 60_000, endMillis: 1_000 }

const NOW = 1_000_000

/** What a look finds: so many, the first of them due so many milliseconds from now. */
const looked = (waiting: number, inMillis = 0): Input => ({
  _tag: "Looked",
  queued: waiting === 0 ? { waiting } : { waiting, dueMillis: NOW + inMillis },
  nowMillis: NOW,
  random: 0
})

const accepted: Input = { _tag: "Accepted" }
const waited: Input = { _tag: "Waited" }
const late: Input = { _tag: "WorkerLate" }
const ended: Input = { _tag: "WorkerEnded", inOrder: true, random: 0 }
const crashed: Input = { _tag: "WorkerEnded", inOrder: false, random: 0 }

/** Gives the state after all inputs, and the commands of the last one. */
const after = (...inputs: ReadonlyArray<Input>): ReturnType<Machine["step"]> => {
  let [state, commands]: readonly [State, ReadonlyArray<Command>] = PushDaemonMachine.start
  for (const input of inputs) [state, commands] = PushDaemonMachine.step(config, state, input)
  return [state, commands]
}

const tags = (commands: ReadonlyArray<Command>) => commands.map(({ _tag }) => _tag)

describe("PushDaemonMachine", () => {
  it("starts a worker for what waits from before, and none when nothing does", () => {
    assert.deepStrictEqual(PushDaemonMachine.start[1], [{ _tag: "Look" }])
    assert.deepStrictEqual(tags(after(looked(3))[1]), ["StartWorker", "WatchWorker"])
    assert.deepStrictEqual(after(looked(0))[1], [])
  })

  it("waits for what is put off", () => {
    assert.deepStrictEqual(after(looked(1, 5_000))[1], [{ _tag: "Wait", millis: 5_000 }])
    assert.deepStrictEqual(tags(after(looked(1, 5_000), waited)[1]), ["Look"])
  })

  it("looks at the queue when something is accepted and no worker runs", () => {
    assert.deepStrictEqual(tags(after(looked(1, 5_000), accepted)[1]), ["CancelWait", "Look"])
    assert.deepStrictEqual(after(looked(1), accepted)[1], [])
  })

  it("looks again when something was accepted while it looked", () => {
    assert.deepStrictEqual(after(accepted, looked(0))[1], [{ _tag: "Look" }])
    assert.deepStrictEqual(after(accepted, looked(0), looked(0))[1], [])
  })

  it("looks at the queue after a worker's end, and starts another for what is left", () => {
    assert.deepStrictEqual(tags(after(looked(3), ended)[1]), ["UnwatchWorker", "Look"])
    assert.deepStrictEqual(tags(after(looked(3), ended, looked(2))[1]), ["StartWorker", "WatchWorker"])
  })

  it("I9: starts a worker that crashed again, each time later", () => {
    const [state, commands] = after(looked(1), crashed)
    assert.strictEqual(state.phase._tag, "BackingOff")
    const { backoffMinMillis } = SyncConfig.defaults
    assert.deepInclude(commands, { _tag: "Wait", millis: backoffMinMillis / 2 })
    const [, again] = after(looked(1), crashed, waited, looked(1), crashed)
    assert.deepInclude(again, { _tag: "Wait", millis: backoffMinMillis })
    // What is accepted meanwhile doesn't make it faster.
    assert.deepStrictEqual(after(looked(1), crashed, accepted)[1], [])
  })

  it("I9: backs off from a worker that ends as if it had done something", () => {
    assert.strictEqual(after(looked(1), ended, looked(1))[0].phase._tag, "BackingOff")
    // Unless as many have come as it has shown.
    assert.strictEqual(after(looked(1), accepted, ended, looked(1))[0].phase._tag, "Running")
  })

  it("forgets failures once a worker was of use", () => {
    assert.strictEqual(after(looked(2), crashed, waited, looked(2), ended, looked(1))[0].failures, 0)
    assert.strictEqual(after(looked(2), crashed, waited, looked(0))[0].failures, 0)
  })

  it("I10: tells a worker to end that lives too long, and kills it when it doesn't", () => {
    assert.deepStrictEqual(after(looked(1), late)[1], [
      { _tag: "TellWorker", signal: "SIGTERM" },
      { _tag: "WatchWorker", millis: 1_000 }
    ])
    assert.deepStrictEqual(after(looked(1), late, late)[1], [{ _tag: "TellWorker", signal: "SIGKILL" }])
    // That it then ends by a signal is no crash.
    assert.deepStrictEqual(tags(after(looked(1), late, crashed)[1]), ["UnwatchWorker", "Look"])
  })

  it("looks again later when the queue can't be read", () => {
    assert.deepStrictEqual(tags(after({ _tag: "LookFailed", random: 0 })[1]), ["Wait"])
  })

  it("I9, I10: whatever comes in whatever order, has one worker at most, and never stands still with something due", () => {
    const inputs = fc.constantFrom<Input>(
      accepted,
      waited,
      late,
      ended,
      crashed,
      looked(0),
      looked(1),
      looked(2),
      looked(1, 5_000),
      { _tag: "LookFailed", random: 0 }
    )
    fc.assert(
      fc.property(fc.array(inputs, { maxLength: 60 }), (given) => {
        let [state, commands] = PushDaemonMachine.start
        const pending = { look: true, wait: false, worker: false, watched: false }
        for (const input of given) {
          // Only what can come: an answer to what was asked, the end of what runs.
          if (input._tag === "Looked" || input._tag === "LookFailed") {
            if (!pending.look) continue
            pending.look = false
          }
          if (input._tag === "Waited") {
            if (!pending.wait) continue
            pending.wait = false
          }
          if (input._tag === "WorkerEnded") {
            if (!pending.worker) continue
            pending.worker = false
          }
          if (input._tag === "WorkerLate") {
            if (!pending.watched) continue
            pending.watched = false
          }
          ;[state, commands] = PushDaemonMachine.step(config, state, input)
          for (const command of commands) {
            if (command._tag === "StartWorker") {
              assert.isFalse(pending.worker)
              pending.worker = true
            }
            if (command._tag === "Look") pending.look = true
            if (command._tag === "Wait") pending.wait = true
            if (command._tag === "CancelWait") pending.wait = false
            if (command._tag === "WatchWorker") pending.watched = true
            if (command._tag === "UnwatchWorker") pending.watched = false
            if (command._tag === "TellWorker") assert.isTrue(pending.worker)
          }
          // Nothing is due, or something will happen by itself.
          const isIdle = !pending.look && !pending.wait && !pending.worker
          if (isIdle) assert.deepStrictEqual(state, { phase: { _tag: "Waiting" }, hasNews: false, failures: 0 })
        }
      })
    )
  })
})
