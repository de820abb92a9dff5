/**
 * A process with wake-ups, driven by lines: `node wakeChild.ts <directory>`. Says its `Peer` as JSON first.
 *
 * `notify <topic>` says the monotonic time in nanoseconds and notifies; `watch <topic> <peer>` says `watching`, and from
 * then on each signal; `close` closes its socket and goes on living; `leave` stops listening to its input, so that only
 * its sockets are left.
 */
import { Effect, Exit, Scope } from "effect"
import { createInterface } from "node:readline"
import * as WakeSocket from "../../packages/platform/src/wake/WakeSocket.ts"

const scope = Scope.makeUnsafe()
const wake = await Effect.runPromise(Scope.provide(WakeSocket.make({ directory: process.argv[2] ?? "" }), scope))
console.log(JSON.stringify(wake.self))

const watch = (topic: string, peer: string) =>
  Effect.gen(function* () {
    const next = yield* wake.subscribe(JSON.parse(peer), topic)
    console.log("watching")
    while (true) {
      const signal = yield* next
      console.log(signal)
      if (signal !== "Signalled") return
    }
  })

const input = createInterface(process.stdin)
for await (const line of input) {
  const [command, topic = "", ...peer] = line.split(" ")
  if (command === "notify") {
    console.log(`${process.hrtime.bigint()}`)
    await Effect.runPromise(wake.notify(topic))
  }
  if (command === "watch") Effect.runFork(Scope.provide(watch(topic, peer.join(" ")), scope))
  if (command === "close") await Effect.runPromise(Scope.close(scope, Exit.void))
  if (command === "leave") break
}
process.stdin.destroy()
