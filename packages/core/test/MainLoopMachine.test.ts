import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { emptyResponse, emptyRoomUpdate } from "../src/matrix/SlidingSync.ts"
import type { RoomId, SyncRequest } from "../src/matrix/SlidingSync.ts"
import * as MainLoopMachine from "../src/sync/MainLoopMachine.ts"
import type { Failure } from "../src/sync/SupervisionPolicy.ts"
import * as SupervisionPolicy from "../src/sync/SupervisionPolicy.ts"
import { defaults } from "../src/sync/SyncConfig.ts"

type State = MainLoopMachine.State
type Input = MainLoopMachine.Input
type Command = MainLoopMachine.Command
type Of<Tag extends State["_tag"]> = Extract<State, { _tag: Tag }>

const config: MainLoopMachine.Config = { sync: defaults, connId: "rooms-main", ownUserId: "@me:x" }
const random = 0.5
const { silenceMillis, pollTimeoutMillis } = defaults

const failure = (one: Failure["class"]): Failure => ({ class: one, message: "why" })
const view = (revision: number, more: Partial<MainLoopMachine.View> = {}): MainLoopMachine.View => ({
  ...MainLoopMachine.emptyView,
  revision,
  ...more
})

/** A machine that is driven by hand, and what it asked for last. */
const drive = (from: State = MainLoopMachine.initial) => {
  let state = from
  let commands: ReadonlyArray<Command> = []
  let nowMillis = 1_000_000
  const send = (input: Input): ReadonlyArray<Command> => {
    ;[state, commands] = MainLoopMachine.step(config, state, input)
    return commands
  }
  const as = <Tag extends State["_tag"]>(tag: Tag): Of<Tag> => {
    assert.strictEqual(state._tag, tag)
    return state as Of<Tag>
  }
  const machine = {
    state: () => state,
    as,
    now: () => nowMillis,
    pass: (millis: number) => (nowMillis += millis),
    send,
    /** Starts, with what the store holds. */
    load: (stored: { pos?: string; count?: number; rooms?: ReadonlyArray<RoomId> } = {}) => {
      send({ _tag: "Start" })
      const { pos, count, rooms = [] } = stored
      return send({ _tag: "Loaded", pos, count, rooms, nowMillis })
    },
    request: (): SyncRequest => as("Polling").request,
    epoch: () => as("Polling").loop.epoch,
    /** The homeserver answers the request. */
    answer: (
      pos: string,
      count?: number,
      rooms: ReadonlyArray<RoomId> = [],
      tookMillis = machine.request().timeoutMillis
    ) => {
      const lists = count === undefined ? {} : { [MainLoopMachine.ROOMS_LIST]: { count } }
      const response = { ...emptyResponse(pos), lists, rooms: rooms.map(emptyRoomUpdate) }
      return send({ _tag: "Polled", epoch: machine.epoch(), response, tookMillis, nowMillis })
    },
    committed: () => send({ _tag: "Committed", nowMillis, random }),
    /** One whole iteration. */
    iterate: (pos: string, count?: number, rooms: ReadonlyArray<RoomId> = []) => {
      const asked = machine.answer(pos, count, rooms)
      machine.committed()
      return asked
    },
    fail: (one: Failure["class"]) =>
      send({ _tag: "PollFailed", epoch: machine.epoch(), failure: failure(one), nowMillis, random }),
    commitFails: (one: Failure["class"]) => send({ _tag: "CommitFailed", failure: failure(one), nowMillis, random }),
    expired: (rooms: ReadonlyArray<RoomId> = []) => send({ _tag: "Expired", rooms, nowMillis }),
    elapse: () => send({ _tag: "BackoffElapsed", nowMillis }),
    look: (next: MainLoopMachine.View) => send({ _tag: "ViewChanged", view: next }),
    aborted: () => send({ _tag: "PollAborted", epoch: machine.epoch(), nowMillis }),
    /** Iterates until the loop holds the line open. */
    run: (count = 5) => {
      machine.load()
      let pos = 0
      while (machine.request().timeoutMillis === 0) machine.iterate(`p${pos++}`, count)
      return machine
    }
  }
  return machine
}

const rangeOf = (request: SyncRequest) => request.lists[MainLoopMachine.ROOMS_LIST]?.range
const tags = (commands: ReadonlyArray<Command>) => commands.map((command) => command._tag)
const ids = (count: number, from = 0): ReadonlyArray<RoomId> =>
  Array.from({ length: count }, (_, n) => `!${n + from}:x`)

describe("MainLoopMachine loads", () => {
  it("I10: comes to an end with a homeserver that counts rooms which it never sends", () => {
    const machine = drive()
    machine.load()
    let requests = 0
    for (; machine.request().timeoutMillis === 0 && requests < 1_000; requests++) {
      machine.iterate(`p${requests}`, 1_000_000_000)
    }
    assert.isBelow(requests, 50)
  })

  for (const count of [150.5, -1, 1e300]) {
    it(`I7: asks for windows that exist when the homeserver says that there are ${count} rooms`, () => {
      const machine = drive()
      machine.load()
      for (let pos = 0; pos < 100; pos++) {
        const [start, end] = rangeOf(machine.request()) ?? []
        assert.isTrue(Number.isSafeInteger(start) && Number.isSafeInteger(end), `the range is ${start} to ${end}`)
        machine.iterate(`p${pos}`, count, [])
      }
    })
  }

  it("asks page by page, with the last page for all rooms, and holds the line open only then", () => {
    const machine = drive()
    machine.load()
    const asked: Array<unknown> = []
    for (const pos of ["0", "1", "2", "3", "4"]) {
      const request = machine.request()
      asked.push([rangeOf(request), request.pos, request.timeoutMillis])
      machine.iterate(pos, 220, ids(20))
    }
    assert.deepStrictEqual(asked, [
      [[0, 19], undefined, 0],
      [[20, 99], "0", 0],
      [[100, 199], "1", 0],
      [[0, 219], "2", 0],
      [[0, 219], "3", pollTimeoutMillis]
    ])
  })

  it("goes from init through settingUp to running", () => {
    const machine = drive()
    machine.load()
    const phases = [machine.as("Polling").loop.phase]
    for (const pos of ["0", "1", "2"]) {
      machine.iterate(pos, 120, ids(20))
      phases.push(machine.as("Polling").loop.phase)
    }
    assert.deepStrictEqual(phases, ["init", "settingUp", "settingUp", "running"])
  })

  for (const [count, windows] of [
    [0, [[0, 19]]],
    [5, [[0, 19]]],
    [20, [[0, 19]]],
    [
      21,
      [
        [0, 19],
        [0, 20]
      ]
    ],
    [
      100,
      [
        [0, 19],
        [0, 99]
      ]
    ],
    [
      101,
      [
        [0, 19],
        [20, 99],
        [0, 100]
      ]
    ]
  ] as const) {
    it(`needs ${windows.length} windows for ${count} rooms`, () => {
      const machine = drive()
      machine.load()
      const asked: Array<unknown> = []
      while (machine.request().timeoutMillis === 0) {
        asked.push(rangeOf(machine.request()))
        machine.iterate(`p${asked.length}`, count, ids(20))
      }
      assert.deepStrictEqual<unknown>(asked, windows)
      assert.deepStrictEqual<unknown>(rangeOf(machine.request()), windows.at(-1))
    })
  }

  it("loads 10,000 rooms with a request per page, in windows that name each place twice at most", () => {
    const machine = drive()
    machine.load()
    let [requests, places] = [0, 0]
    while (machine.request().timeoutMillis === 0) {
      const [from, to] = rangeOf(machine.request())!
      requests += 1
      places += to - from + 1
      machine.iterate(`p${requests}`, 10_000, ids(100))
    }
    // The first 20, then 80, then pages of 100: 101 in all. The last one is for all, as every request is after it.
    assert.strictEqual(requests, 101)
    assert.strictEqual(places, 9_900 + 10_000)
  })

  it("loads n rooms with 1 + ⌈n / 100⌉ requests, and names no place more than twice", () => {
    for (let count = 21; count <= 1_050; count++) {
      const machine = drive()
      machine.load()
      let [requests, places] = [0, 0]
      while (machine.request().timeoutMillis === 0) {
        const [from, to] = rangeOf(machine.request())!
        requests += 1
        places += to - from + 1
        machine.iterate(`p${requests}`, count, ids(100))
      }
      // The first 20 are asked for by themselves, and the last page with all others: what is before it is named once more.
      assert.strictEqual(requests, 1 + Math.ceil(count / 100))
      assert.strictEqual(places, count + Math.max(20, 100 * Math.floor((count - 1) / 100)))
    }
  })

  it("goes on from a stored position, with nothing new, in 1 + ⌈log2(n / 200 + 1)⌉ requests", () => {
    for (const count of [21, 199, 200, 201, 600, 601, 1_400, 1_401, 10_000, 100_000]) {
      const machine = drive()
      machine.load({ pos: "stored", count })
      let requests = 0
      while (machine.request().timeoutMillis === 0) machine.iterate(`p${requests++}`, count)
      // Windows end at 20, 200, 600, 1400, ...: each is twice as long as the one before.
      assert.strictEqual(requests, 1 + Math.ceil(Math.log2(count / 200 + 1)), `of ${count} rooms`)
    }
  })

  it("stays with the first window when the homeserver never counts, and takes no room for gone", () => {
    const machine = drive()
    machine.load({ rooms: ids(3) })
    const [commit] = machine.answer("0")
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, [])
    machine.committed()
    assert.deepStrictEqual(rangeOf(machine.request()), [0, 19])
    assert.strictEqual(machine.request().timeoutMillis, pollTimeoutMillis)
  })

  it("takes no room for gone that moved up past the page while the pages came: the last request is for all", () => {
    const machine = drive()
    machine.load({ rooms: ids(150) })
    machine.iterate("0", 150, ids(20))
    machine.iterate("1", 150, ids(80, 20))
    // The last room of the list has become the first one, and every other one has moved down.
    assert.deepStrictEqual(rangeOf(machine.request()), [0, 149])
    const [commit] = machine.answer("2", 150, ids(50, 100))
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, [])
  })

  it("covers every place of the list, whatever its length, with pages of one batch at most", () => {
    for (let count = 0; count <= 450; count++) {
      const machine = drive()
      machine.load()
      const covered = new Set<number>()
      while (machine.request().timeoutMillis === 0) {
        const [from, to] = rangeOf(machine.request())!
        const before = covered.size
        for (let place = from; place <= Math.min(to, count - 1); place++) covered.add(place)
        assert.isAtMost(covered.size - before, defaults.windowBatch)
        machine.iterate(`p${covered.size}`, count, ids(20))
      }
      assert.strictEqual(covered.size, count)
      assert.strictEqual(rangeOf(machine.request())![0], 0)
    }
  })

  it("follows the count while it runs", () => {
    const machine = drive().run(30)
    machine.iterate("more", 31)
    assert.deepStrictEqual([rangeOf(machine.request()), machine.request().timeoutMillis], [[0, 30], 0])
    machine.iterate("same", 31)
    machine.iterate("fewer", 25)
    assert.deepStrictEqual([rangeOf(machine.request()), machine.request().timeoutMillis], [[0, 24], pollTimeoutMillis])
  })

  it("asks for account data, receipts and typing, never for what is the extension loop's (I3)", () => {
    const machine = drive().run()
    assert.deepStrictEqual(machine.request().extensions, { accountData: true, receipts: true, typing: true })
    assert.strictEqual(machine.request().connId, "rooms-main")
  })

  it("doubles the window when it goes on from a stored position, since it is sent only news", () => {
    const machine = drive()
    machine.load({ pos: "stored", count: 10_000, rooms: ids(10) })
    assert.strictEqual(machine.request().pos, "stored")
    let requests = 0
    while (machine.request().timeoutMillis === 0) {
      requests = requests + 1
      machine.iterate(`p${requests}`, 10_000)
    }
    assert.isAtMost(requests, 10)
    assert.deepStrictEqual(rangeOf(machine.request()), [0, 9_999])
  })

  it("grows by single batches when the stored position brings much", () => {
    const machine = drive()
    machine.load({ pos: "stored", count: 1_000 })
    machine.iterate("0", 1_000, ids(20))
    machine.iterate("1", 1_000, ids(80))
    assert.deepStrictEqual(rangeOf(machine.request()), [100, 199])
  })

  it("I10: doesn't grow its batch while it runs, however long", () => {
    const machine = drive().run(500)
    for (let turn = 0; turn < 2_000; turn++) machine.iterate(`r${turn}`, 500)
    assert.isAtMost(machine.as("Polling").loop.batch, defaults.windowBatch * 2)
    machine.fail("expired")
    machine.expired()
    machine.iterate("fresh", 500, ids(20))
    assert.deepStrictEqual(rangeOf(machine.request()), [20, 99])
  })
})

describe("MainLoopMachine after a fresh start", () => {
  it("names the rooms that were known and are not in the list any more, with the last page only", () => {
    const machine = drive()
    machine.load({ rooms: ["!old:x", ...ids(120)] })
    const gone: Array<ReadonlyArray<RoomId>> = []
    for (const [page, count] of [
      [ids(20), 120],
      [ids(80, 20), 120],
      [ids(20, 100), 120]
    ] as const) {
      const [commit] = machine.answer(`p${gone.length}`, count, page)
      gone.push(commit?._tag === "Commit" ? commit.gone : ["no commit"])
      machine.committed()
    }
    assert.deepStrictEqual(gone, [[], [], ["!old:x"]])
    // Running, silence about a room says nothing.
    const [commit] = machine.answer("later", 120)
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, [])
  })

  it("I7: doesn't name a room that the homeserver sends in a way that can't be read", () => {
    const machine = drive()
    machine.load({ rooms: ["!broken:x", "!old:x"] })
    const response = {
      ...emptyResponse("0"),
      lists: { [MainLoopMachine.ROOMS_LIST]: { count: 1 } },
      quarantined: [{ source: "room" as const, roomId: "!broken:x", reason: "the room is not a JSON object", raw: 1 }]
    }
    const [commit] = machine.send({
      _tag: "Polled",
      epoch: machine.epoch(),
      response,
      tookMillis: 0,
      nowMillis: machine.now()
    })
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, ["!old:x"])
  })

  it("stores the count only when no room can be gone any more, so that a start that is cut short begins again", () => {
    const machine = drive()
    machine.load({ rooms: ["!old:x", ...ids(120)] })
    const stored: Array<unknown> = []
    for (const [pos, page] of [
      ["0", ids(20)],
      ["1", ids(80, 20)],
      ["2", ids(20, 100)]
    ] as const) {
      const [commit] = machine.answer(pos, 120, page)
      stored.push(commit?._tag === "Commit" ? commit.lists : undefined)
      machine.committed()
    }
    assert.deepStrictEqual(stored, [{}, {}, { [MainLoopMachine.ROOMS_LIST]: 120 }])

    // Killed before the last page: the store has a position and no count.
    const next = drive()
    assert.deepStrictEqual(tags(next.load({ pos: "1", rooms: ["!old:x", ...ids(100)] })), ["Expire"])
    next.expired(["!old:x", ...ids(100)])
    assert.isUndefined(next.request().pos)
    next.iterate("3", 120, ids(20))
    next.iterate("4", 120, ids(80, 20))
    const [commit] = next.answer("5", 120, ids(20, 100))
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, ["!old:x"])
  })

  it("goes on from where a first start was cut short, since no room was known before", () => {
    const machine = drive()
    machine.load()
    const [commit] = machine.answer("0", 220, ids(20))
    const count = commit?._tag === "Commit" ? commit.lists[MainLoopMachine.ROOMS_LIST] : undefined
    assert.strictEqual(count, 220)
    assert.deepStrictEqual(tags(drive().load({ pos: "0", count: 220, rooms: ids(20) })), ["Poll"])
  })

  it("stores the count that is known when a response doesn't count", () => {
    const machine = drive().run(150)
    const [commit] = machine.answer("silent")
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.lists : undefined, {
      [MainLoopMachine.ROOMS_LIST]: 150
    })
  })

  it("keeps every room when it goes on from a stored position", () => {
    const machine = drive()
    machine.load({ pos: "stored", count: 5, rooms: ids(5) })
    const [commit] = machine.answer("0", 5)
    assert.deepStrictEqual(commit?._tag === "Commit" ? commit.gone : undefined, [])
  })
})

describe("MainLoopMachine rests", () => {
  it("I10: asks less and less often when long polls are answered at once with nothing, from where it is", () => {
    const machine = drive().run()
    const waits = Array.from({ length: 8 }, (_, turn) => {
      machine.answer(`r${turn}`, 5, [], 3)
      const [command] = machine.committed()
      if (command?._tag !== "Wait") return 0
      assert.strictEqual(machine.as("BackingOff").loop.phase, "running")
      machine.elapse()
      return command.millis
    })
    const backoff = [0, 1, 2].map((attempt) => SupervisionPolicy.backoffMillis(defaults, attempt, random))
    assert.deepStrictEqual(waits, [0, 0, 0, 0, 0, ...backoff])

    // One that is held open shows that the homeserver can.
    machine.iterate("held", 5)
    machine.answer("hasty", 5, [], 3)
    assert.deepStrictEqual(tags(machine.committed()), ["Poll"])
  })

  it("doesn't rest while news come, however fast, nor over views that bring nothing new", () => {
    const machine = drive().run()
    for (let turn = 0; turn < 50; turn++) {
      machine.answer(`n${turn}`, 5, ["!0:x"], 0)
      assert.deepStrictEqual(tags(machine.committed()), ["Poll"])
    }
    for (let revision = 1; revision < 50; revision++) {
      machine.look(view(revision))
      machine.aborted()
      machine.answer(`v${revision}`, 5, [], 0)
      assert.deepStrictEqual(tags(machine.committed()), ["Poll"])
    }
  })
})

describe("MainLoopMachine recovers", () => {
  it("I9: asks for the same window again after a failure before it runs", () => {
    const machine = drive()
    machine.load()
    machine.iterate("0", 220, ids(20))
    const before = machine.request()
    assert.deepStrictEqual(tags(machine.fail("network")), ["Wait"])
    const waiting = machine.as("BackingOff")
    assert.strictEqual(waiting.untilMillis, machine.now() + SupervisionPolicy.backoffMillis(defaults, 0, random))
    machine.elapse()
    assert.deepStrictEqual(machine.request(), before)
    assert.strictEqual(machine.as("Polling").loop.phase, "settingUp")
  })

  it("I9: begins with the first window again after a failure while it runs, with its position", () => {
    const machine = drive().run(220)
    const { pos } = machine.request()
    machine.fail("server")
    machine.elapse()
    assert.deepStrictEqual([rangeOf(machine.request()), machine.request().pos], [[0, 19], pos])
    assert.strictEqual(machine.as("Polling").loop.phase, "recovering")
    assert.strictEqual(machine.request().timeoutMillis, 0)
    machine.iterate("next", 220, ids(20))
    assert.deepStrictEqual(rangeOf(machine.request()), [20, 99])
  })

  it("waits longer after each failure in a row, and starts over after a commit", () => {
    const machine = drive()
    machine.load()
    const delays = [0, 1, 2].map(() => {
      const [wait] = machine.fail("network")
      machine.elapse()
      return wait?._tag === "Wait" ? wait.millis : undefined
    })
    assert.deepStrictEqual(
      delays,
      [0, 1, 2].map((attempt) => SupervisionPolicy.backoffMillis(defaults, attempt, random))
    )
    machine.iterate("0", 5)
    assert.deepStrictEqual(machine.fail("network"), [{ _tag: "Wait", millis: delays[0]! }])
  })

  it("I2: sends the position that is stored, when a response could not be made durable", () => {
    const machine = drive()
    machine.load({ rooms: ["!old:x"] })
    machine.iterate("0", 220, ids(20))
    machine.answer("1", 220, ids(80, 20))
    assert.deepStrictEqual(tags(machine.commitFails("store")), ["Wait"])
    machine.elapse()
    assert.deepStrictEqual([rangeOf(machine.request()), machine.request().pos], [[20, 99], "0"])

    // Nothing of the refused response counts: neither its rooms nor that it came.
    assert.isTrue(machine.as("Polling").loop.unseen?.has("!old:x"))
    assert.strictEqual(machine.as("Polling").loop.attempt, 1)
  })

  it("I9: doesn't hammer when every commit is refused since somebody else uses the connection", () => {
    const machine = drive()
    machine.load()
    const delays: Array<number> = []
    for (let turn = 0; turn < 4; turn++) {
      machine.answer(`p${turn}`, 5)
      machine.commitFails("moved")
      const [next] = machine.expired()
      delays.push(next?._tag === "Wait" ? next.millis : 0)
      if (next?._tag === "Wait") machine.elapse()
    }
    assert.strictEqual(delays[0], 0)
    for (let turn = 1; turn < 4; turn++) assert.isAbove(delays[turn]!, delays[turn - 1]!)
  })

  it("starts the connection afresh when its position has expired: at once, without position, with the view", () => {
    const machine = drive().run(220)
    const subscriptions = new Map([["!open:x", { requiredState: [], timelineLimit: 20 }]])
    machine.look(view(1, { window: [3, 9], subscriptions }))
    machine.aborted()
    assert.deepStrictEqual(machine.fail("expired"), [{ _tag: "Expire" }])
    const [command] = machine.expired(["!a:x"])
    assert.strictEqual(command?._tag, "Poll")
    const request = machine.request()
    assert.isUndefined(request.pos)
    assert.deepStrictEqual(rangeOf(request), [0, 19])
    assert.deepStrictEqual(request.lists[MainLoopMachine.WINDOW_LIST]?.range, [3, 9])
    assert.deepStrictEqual(Object.keys(request.roomSubscriptions), ["!open:x"])
  })

  it("waits before it starts afresh a second time in a row", () => {
    const machine = drive().run()
    machine.fail("expired")
    machine.expired()
    machine.fail("expired")
    assert.deepStrictEqual(machine.expired(), [
      { _tag: "Wait", millis: SupervisionPolicy.backoffMillis(defaults, 0, random) }
    ])
    machine.elapse()
    assert.isUndefined(machine.request().pos)

    // A success in between makes it the first time again.
    machine.iterate("0", 5)
    machine.fail("expired")
    assert.deepStrictEqual(tags(machine.expired()), ["Poll"])
  })

  it("tries again when the stored position could not be dropped", () => {
    const machine = drive().run()
    machine.fail("expired")
    assert.deepStrictEqual(tags(machine.commitFails("store")), ["Wait"])
    machine.elapse()
    assert.deepStrictEqual(machine.fail("expired"), [{ _tag: "Expire" }])
  })

  it("begins with the first window again after half an hour of silence", () => {
    for (const [millis, phase, range] of [
      [silenceMillis, "running", [0, 219]],
      [silenceMillis + 1, "recovering", [0, 19]]
    ] as const) {
      const machine = drive().run(220)
      machine.pass(millis)
      machine.look(view(1))
      machine.aborted()
      assert.strictEqual(machine.as("Polling").loop.phase, phase)
      assert.deepStrictEqual<unknown>(rangeOf(machine.request()), range)
    }
  })

  it("halves the batch when a response is too large, and doesn't grow it again", () => {
    const machine = drive()
    machine.load()
    machine.iterate("0", 220, ids(20))
    assert.deepStrictEqual(tags(machine.fail("tooLarge")), ["Wait"])
    machine.elapse()
    const ranges: Array<unknown> = []
    for (const pos of ["1", "2", "3", "4", "5", "6"]) {
      ranges.push(rangeOf(machine.request()))
      machine.iterate(pos, 220, ids(2))
    }
    assert.deepStrictEqual(ranges, [
      [0, 19],
      [20, 49],
      [50, 99],
      [100, 149],
      [150, 199],
      [0, 219]
    ])
  })

  it("keeps a batch small that was too large, although the windows in between are nearly empty", () => {
    const machine = drive()
    machine.load({ pos: "stored", count: 1_000 })
    machine.iterate("0", 1_000)
    assert.deepStrictEqual(rangeOf(machine.request()), [20, 199])
    machine.fail("tooLarge")
    machine.elapse()
    const ends: Array<number | undefined> = []
    for (const pos of ["1", "2", "3", "4"]) {
      ends.push(rangeOf(machine.request())?.[1])
      machine.iterate(pos, 1_000)
    }
    assert.deepStrictEqual(ends, [19, 49, 99, 149])
  })

  it("I9: gets through however small the largest response may be", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), fc.integer({ min: 0, max: 300 }), (most, count) => {
        const machine = drive()
        machine.load()
        let [requests, sent] = [0, 0]
        while (machine.request().timeoutMillis === 0) {
          requests = requests + 1
          assert.isBelow(requests, 1_000)
          const wanted = Math.min(count, (rangeOf(machine.request())?.[1] ?? 0) + 1)
          // Rooms that were sent on this connection aren't sent again.
          const fresh = Math.max(0, wanted - sent)
          if (fresh > most) {
            machine.fail("tooLarge")
            machine.elapse()
          } else {
            machine.iterate(`p${requests}`, count, ids(fresh, sent))
            sent = Math.max(sent, wanted)
          }
        }
        assert.strictEqual(sent, count)
      })
    )
  })

  it("tries at once when something says that it may work now", () => {
    const machine = drive().run()
    machine.fail("network")
    assert.deepStrictEqual(tags(machine.send({ _tag: "Retry", nowMillis: machine.now() })), ["Poll"])
    // The wait that was cut short ends too late.
    assert.deepStrictEqual(machine.elapse(), [])
  })

  it("gives up when nothing helps, and starts when it is told to", () => {
    const machine = drive().run()
    assert.deepStrictEqual(machine.fail("auth"), [])
    assert.deepStrictEqual(machine.as("Failed").failure, failure("auth"))
    machine.look(view(7))
    assert.deepStrictEqual(tags(machine.send({ _tag: "Retry", nowMillis: machine.now() })), [])
    assert.deepStrictEqual(machine.send({ _tag: "Start" }), [{ _tag: "Load" }])
    assert.strictEqual(machine.as("Loading").view.revision, 7)
  })

  it("waits and reads the store again when it can't be read, unless that is hopeless", () => {
    const machine = drive()
    machine.send({ _tag: "Start" })
    const fails = (one: Failure["class"]) =>
      machine.send({ _tag: "LoadFailed", failure: failure(one), nowMillis: machine.now(), random })
    const [first] = fails("store")
    machine.elapse()
    const [second] = fails("store")
    assert.isTrue(first?._tag === "Wait" && second?._tag === "Wait" && second.millis > first.millis)
    assert.deepStrictEqual(machine.send({ _tag: "Retry", nowMillis: machine.now() }), [{ _tag: "Load" }])
    fails("storeTerminal")
    machine.as("Failed")
  })
})

describe("MainLoopMachine and the view", () => {
  it("aborts a long poll, and asks for the new view at once", () => {
    const machine = drive().run()
    const epoch = machine.epoch()
    assert.deepStrictEqual(machine.look(view(1, { window: [0, 9] })), [{ _tag: "AbortPoll", epoch }])
    machine.aborted()
    assert.strictEqual(machine.request().timeoutMillis, 0)
    assert.deepStrictEqual(machine.request().lists[MainLoopMachine.WINDOW_LIST]?.range, [0, 9])
    machine.iterate("next", 5)
    assert.strictEqual(machine.request().timeoutMillis, pollTimeoutMillis)
  })

  it("never aborts a request that is answered at once", () => {
    const machine = drive()
    machine.load()
    const request = machine.request()
    assert.deepStrictEqual(machine.look(view(1)), [])
    assert.strictEqual(machine.request(), request)
  })

  it("makes many changes one request, with the newest view", () => {
    const machine = drive().run()
    const commands = Array.from({ length: 100 }, (_, n) => machine.look(view(n + 1, { window: [0, n] }))).flat()
    assert.deepStrictEqual(tags(commands), ["AbortPoll"])
    assert.deepStrictEqual(tags(machine.aborted()), ["Poll"])
    assert.deepStrictEqual(machine.request().lists[MainLoopMachine.WINDOW_LIST]?.range, [0, 99])
  })

  it("I6: counts a view as answered only when the response that answers it is durable", () => {
    const machine = drive().run()
    machine.look(view(1))
    machine.aborted()
    machine.answer("1", 5)
    machine.commitFails("store")
    machine.elapse()
    assert.strictEqual(machine.request().timeoutMillis, 0)
  })

  it("takes a change up while it commits, and while it waits", () => {
    for (const meanwhile of ["commit", "backoff", "expiry"] as const) {
      const machine = drive().run()
      if (meanwhile === "commit") machine.answer("1", 5)
      else machine.fail(meanwhile === "backoff" ? "network" : "expired")
      assert.deepStrictEqual(machine.look(view(1, { window: [0, 3] })), [])
      if (meanwhile === "commit") machine.committed()
      else if (meanwhile === "backoff") machine.elapse()
      else machine.expired()
      assert.deepStrictEqual(machine.request().lists[MainLoopMachine.WINDOW_LIST]?.range, [0, 3])
      assert.strictEqual(machine.request().timeoutMillis, 0)
    }
  })

  it("keeps a change that came while a commit failed", () => {
    const machine = drive().run()
    machine.answer("1", 5)
    machine.look(view(1, { window: [0, 3] }))
    machine.commitFails("store")
    machine.elapse()
    assert.deepStrictEqual(machine.request().lists[MainLoopMachine.WINDOW_LIST]?.range, [0, 3])
  })

  it("commits a response that was there before the abort", () => {
    const machine = drive().run()
    machine.look(view(1))
    const epoch = machine.epoch()
    assert.deepStrictEqual(tags(machine.answer("1", 5)), ["Commit"])
    assert.deepStrictEqual(machine.send({ _tag: "PollAborted", epoch, nowMillis: machine.now() }), [])
    machine.committed()
    assert.deepStrictEqual([machine.request().pos, machine.request().timeoutMillis], ["1", 0])
  })

  for (const [given, asked] of [
    [
      [3, 9],
      [3, 9]
    ],
    [
      [0.5, 9.2],
      [0, 10]
    ],
    [
      [-5, 9],
      [0, 9]
    ],
    // What a scrolling list says of nothing, or while it is laid out.
    [[0, -1], undefined],
    [[9, 3], undefined],
    [[0, Number.NaN], undefined],
    [
      [0, Number.POSITIVE_INFINITY],
      [0, defaults.windowBatch - 1]
    ],
    // A page each of its own: the room list's batches bound those of the list, nothing else this one.
    [
      [50, 10_000],
      [50, 50 + defaults.windowBatch - 1]
    ]
  ] as const) {
    it(`I10: asks for ${asked === undefined ? "no window" : `the window ${asked}`} when the application looks at ${given}`, () => {
      const machine = drive().run()
      machine.look(view(1, { window: given }))
      machine.aborted()
      assert.deepStrictEqual<unknown>(machine.request().lists[MainLoopMachine.WINDOW_LIST]?.range, asked)
    })
  }

  it("ignores a view that a newer one has overtaken", () => {
    const machine = drive().run()
    machine.look(view(2))
    machine.aborted()
    const state = machine.state()
    machine.look(view(1))
    assert.strictEqual(machine.state(), state)
  })
})

describe("MainLoopMachine at any time", () => {
  it("changes nothing for a late answer to an earlier request", () => {
    const machine = drive().run()
    const epoch = machine.epoch()
    machine.look(view(1))
    machine.aborted()
    const state = machine.state()
    const late: ReadonlyArray<Input> = [
      { _tag: "Polled", epoch, response: emptyResponse("late"), tookMillis: 0, nowMillis: machine.now() },
      { _tag: "PollFailed", epoch, failure: failure("auth"), nowMillis: machine.now(), random },
      { _tag: "PollAborted", epoch, nowMillis: machine.now() },
      { _tag: "Committed", nowMillis: machine.now(), random },
      { _tag: "Expired", rooms: [], nowMillis: machine.now() },
      { _tag: "BackoffElapsed", nowMillis: machine.now() }
    ]
    for (const input of late) {
      assert.deepStrictEqual(machine.send(input), [])
      assert.strictEqual(machine.state(), state)
    }
  })

  const nowMillis = fc.nat({ max: 10_000_000 })
  const epoch = fc.nat({ max: 12 })
  const classes = ["network", "expired", "auth", "server", "tooLarge", "store", "moved", "storeTerminal"] as const
  const failing = {
    failure: fc.constantFrom(...classes).map(failure),
    nowMillis,
    random: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
  }
  const response = fc
    .record({ pos: fc.string({ maxLength: 3 }), count: fc.option(fc.nat({ max: 300 })), rooms: fc.nat({ max: 30 }) })
    .map(({ pos, count, rooms }) => ({
      ...emptyResponse(pos),
      lists: count === null ? {} : { [MainLoopMachine.ROOMS_LIST]: { count } },
      rooms: ids(rooms).map(emptyRoomUpdate)
    }))
  const tagged = <const Tag extends string, T>(tag: Tag, model: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
    fc.record<{ _tag: Tag } & T>({ _tag: fc.constant(tag), ...model } as never)
  const inputs: fc.Arbitrary<Input> = fc.oneof(
    fc.constant<Input>({ _tag: "Start" }),
    tagged("Loaded", {
      pos: fc.option(fc.string(), { nil: undefined }),
      count: fc.option(fc.nat({ max: 300 }), { nil: undefined }),
      rooms: fc.constant(ids(3)),
      nowMillis
    }),
    tagged("LoadFailed", failing),
    tagged("ViewChanged", { view: fc.nat({ max: 20 }).map((revision) => view(revision)) }),
    tagged("Polled", { epoch, response, tookMillis: fc.nat({ max: 40_000 }), nowMillis }),
    tagged("PollFailed", { epoch, ...failing }),
    tagged("PollAborted", { epoch, nowMillis }),
    tagged("Committed", { nowMillis, random: failing.random }),
    tagged("CommitFailed", failing),
    tagged("Expired", { rooms: fc.constant(ids(3)), nowMillis }),
    tagged("BackoffElapsed", { nowMillis }),
    tagged("Retry", { nowMillis })
  )

  /** What each state waits for: the command whose answer takes it further. */
  const awaited: Record<State["_tag"], Command["_tag"] | undefined> = {
    Idle: undefined,
    Loading: "Load",
    Polling: "Poll",
    Committing: "Commit",
    Expiring: "Expire",
    BackingOff: "Wait",
    LoadBackingOff: "Wait",
    Failed: undefined
  }

  it("has one request in flight at most, and always exactly one thing to wait for", () => {
    fc.assert(
      fc.property(fc.array(inputs, { maxLength: 80, size: "max" }), (all) => {
        let state: State = MainLoopMachine.initial
        let waiting: string | undefined
        for (const input of all) {
          const before = state
          const [next, commands] = MainLoopMachine.step(config, state, input)
          state = next
          const started = commands.filter((command) => command._tag !== "AbortPoll")
          assert.isAtMost(started.length, 1)
          const [command] = started
          if (command !== undefined) waiting = identity(command)
          else if (awaited[state._tag] === undefined) waiting = undefined
          // Without a new command, the state still waits for the same.
          else assert.strictEqual(identityOf(state), identityOf(before))
          assert.strictEqual(waiting, identityOf(state))
        }
      }),
      { numRuns: 2_000 }
    )
  })

  const identity = (command: Command) => (command._tag === "Poll" ? `Poll ${command.epoch}` : command._tag)
  const identityOf = (state: State) => (state._tag === "Polling" ? `Poll ${state.loop.epoch}` : awaited[state._tag])

  it("I10: never asks for a range that isn't one", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(inputs, fc.boolean()), { maxLength: 80, size: "max" }), (all) => {
        let state: State = MainLoopMachine.step(config, MainLoopMachine.initial, { _tag: "Start" })[0]
        for (const [input, timely] of all) {
          const current = timely && "epoch" in input && state._tag === "Polling" ? state.loop.epoch : undefined
          const [next, commands] = MainLoopMachine.step(
            config,
            state,
            current === undefined ? input : ({ ...input, epoch: current } as Input)
          )
          state = next
          for (const command of commands) {
            if (command._tag !== "Poll") continue
            const [from, to] = rangeOf(command.request) ?? [1, 0]
            assert.isTrue(Number.isInteger(from) && from >= 0, `${from}`)
            assert.isTrue(Number.isInteger(to) && to >= from && to < 400, `${from} to ${to}`)
          }
        }
      }),
      { numRuns: 1_000 }
    )
  })
})
