import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as net from "node:net"
import * as Gate from "../src/story/Gate.ts"

/** A server that says back what it hears; its port. */
const echo = Effect.map(
  Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer((socket) => socket.on("error", () => {}).pipe(socket))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ),
  (server) => (server.address() as net.AddressInfo).port
)

const connect = (gate: Gate.Gate): Effect.Effect<net.Socket> =>
  Effect.callback((resume) => {
    const socket = net.connect(Number(new URL(gate.baseUrl).port), "127.0.0.1", () => resume(Effect.succeed(socket)))
  })

/** Everything that is heard, once it is as long as that. */
const heard = (socket: net.Socket, length: number): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let text = ""
    socket.on("data", (chunk) => {
      text += chunk.toString()
      if (text.length >= length) resume(Effect.succeed(text))
    })
  })

describe("Gate", () => {
  it.live("lets no piece overtake another one, when it is slow and when it is so no more", () =>
    Effect.gen(function* () {
      const gate = yield* Gate.make(yield* echo)
      const socket = yield* connect(gate)
      yield* gate.slow(30)
      const pieces = ["one", "two", "three", "four"]
      yield* Effect.forEach(pieces, (piece, index) =>
        Effect.gen(function* () {
          if (index === 2) yield* gate.slow(0)
          socket.write(piece)
          yield* Effect.sleep(1)
        })
      )
      const text = pieces.join("")
      assert.strictEqual(yield* heard(socket, text.length), text)
      socket.destroy()
    })
  )

  it.live("says nothing while a piece waits, and ends with what is at its other end", () =>
    Effect.gen(function* () {
      const gate = yield* Gate.make(yield* echo)
      yield* gate.slow(3_600_000)
      const socket = yield* connect(gate)
      const ended = Effect.callback<string>((resume) => {
        let text = ""
        socket.on("data", (chunk) => (text += chunk.toString()))
        socket.on("error", () => {})
        socket.on("close", () => resume(Effect.succeed(text)))
        socket.write("never heard")
      })
      const [text] = yield* Effect.all([ended, Effect.delay(gate.shut, 20)], { concurrency: "unbounded" })
      assert.strictEqual(text, "")
    })
  )

  it.live("tells of the next piece of a side, and of no other", () =>
    Effect.gen(function* () {
      const gate = yield* Gate.make(yield* echo)
      const socket = yield* connect(gate)
      const order: Array<string> = []
      const wait = (side: Gate.Side) =>
        Effect.forkChild(
          Effect.andThen(
            gate.next(side),
            Effect.sync(() => order.push(side))
          ),
          { startImmediately: true }
        )
      const told = [yield* wait("inner"), yield* wait("outer")]
      assert.deepStrictEqual(order, [])
      socket.write("one")
      yield* heard(socket, 3)
      yield* Effect.forEach(told, Fiber.join)
      assert.deepStrictEqual(order, ["outer", "inner"])
      socket.destroy()
    })
  )

  it.live("loses answers when it is told to, and lets what was asked through", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const server = yield* Effect.acquireRelease(
        Effect.callback<net.Server>((resume) => {
          const made = net.createServer((socket) =>
            socket
              .on("error", () => {})
              .on("data", (chunk) => {
                asked.push(chunk.toString())
                socket.write("an answer")
              })
          )
          made.listen(0, "127.0.0.1", () => resume(Effect.succeed(made)))
        }),
        (made) => Effect.sync(() => made.close())
      )
      const gate = yield* Gate.make((server.address() as net.AddressInfo).port)
      const ask = Effect.fnUntraced(function* (text: string) {
        const socket = yield* connect(gate)
        return yield* Effect.callback<string>((resume) => {
          let answer = ""
          socket.on("error", () => {})
          socket.on("data", (chunk) => {
            answer += chunk.toString()
            socket.end()
          })
          socket.on("close", () => resume(Effect.succeed(answer)))
          socket.write(text)
        })
      })
      yield* gate.lose(true)
      assert.strictEqual(yield* ask("one"), "")
      yield* gate.lose(false)
      assert.strictEqual(yield* ask("two"), "an answer")
      assert.deepStrictEqual(asked, ["one", "two"])
    })
  )
})
