/**
 * A TCP gate in front of a homeserver, which can be shut: connections through it end, and new ones are refused. It can be slow,
 * too: each piece of what is said waits, in both directions.
 *
 * The story makes a homeserver unreachable with it, the embedded one and Synapse alike, without touching the homeserver. It
 * also sees at the gate which parts of the room list are asked for, and whether one-time keys are refused, whatever the
 * processes say of themselves, also those that were killed.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as net from "node:net"
import { Transform } from "node:stream"

/** Who said something: who connects to the gate, or who it leads to. */
export type Side = "outer" | "inner"

export interface Gate {
  /** `http://127.0.0.1:<port>` */
  readonly baseUrl: string
  /** Ends all connections and refuses new ones until opened. */
  readonly shut: Effect.Effect<void>
  readonly open: Effect.Effect<void>
  /** Lets each piece of what is said from now on, in either direction, wait for so long after the one before; 0: no more. */
  slow(millis: number): Effect.Effect<void>
  /** Whether answers are lost from now on: who asked hears nothing but the end of the connection, after what was asked was done. */
  lose(isLost: boolean): Effect.Effect<void>
  /** Every range of a list that was asked for through the gate so far, as it was spelled: `[7,26]`. */
  readonly ranges: Effect.Effect<ReadonlySet<string>>
  /** Waits for the next piece that comes from that side; what waits goes on in the turn in which the piece does. */
  next(side: Side): Effect.Effect<void>
  /** How many uploads of one-time keys were refused through the gate so far, because there are others under their ids. */
  readonly conflicts: Effect.Effect<number>
}

const host = "127.0.0.1"

const listen = (server: net.Server, port: number): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    server.listen({ host, port }, () => resume(Effect.succeed((server.address() as net.AddressInfo).port)))
  })

/** `"ranges":[[7,26]]` or `"range":[7,26]` in the body of a sync request. */
const rangePattern = /"ranges?":\[?(\[\d+,\d+\])/g

/** What a homeserver says of a one-time key whose id was used for another one. */
const conflictWords = "already exists"

/** Counts words in a stream, also where they are cut in two. */
const counter = (words: string) => {
  let tail = ""
  return (chunk: Buffer): number => {
    const text = tail + chunk.toString("latin1")
    tail = text.slice(1 - words.length)
    return text.split(words).length - 1
  }
}

/** Passes everything on, each piece after as many milliseconds as `delay` says then. */
const delaying = (delay: () => number): Transform =>
  new Transform({
    transform: (chunk, _, done) => {
      const millis = delay()
      if (millis === 0) done(null, chunk)
      else setTimeout(done, millis, null, chunk)
    }
  })

/** Joins two sockets: what one says the other hears, and they end together. */
const join = (inner: net.Socket, outer: net.Socket, delay: () => number): void => {
  for (const [from, to] of [
    [inner, outer],
    [outer, inner]
  ] as const) {
    const line = delaying(delay)
    from.pipe(line)
    line.pipe(to)
    from.on("error", () => to.destroy())
    from.on("close", () => to.destroy())
  }
}

/**
 * Opens a gate to a port of this host; it is gone with the scope. Its own port is `ownPort`, or else one that the system gives, which
 * the system may give to another connection as well while the gate is shut.
 */
export const make = Effect.fn("Gate.make")(function* (
  targetPort: number,
  ownPort = 0
): Effect.fn.Return<Gate, never, Scope.Scope> {
  const sockets = new Set<net.Socket>()
  const ranges = new Set<string>()
  const waiting = { outer: new Set<() => void>(), inner: new Set<() => void>() }
  const tellOf = (side: Side) => () => {
    const told = [...waiting[side]]
    waiting[side].clear()
    for (const tell of told) tell()
  }
  let conflicts = 0
  let delayMillis = 0
  let isLost = false
  const server = net.createServer((outer) => {
    const inner = net.connect({ host, port: targetPort })
    for (const socket of [outer, inner]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on("close", () => sockets.delete(socket))
    }
    outer.on("data", (chunk: Buffer) => {
      for (const [, range] of chunk.toString("latin1").matchAll(rangePattern)) ranges.add(range!)
    })
    const conflictsIn = counter(conflictWords)
    inner.on("data", (chunk: Buffer) => {
      conflicts += conflictsIn(chunk)
      if (isLost) outer.destroy()
    })
    join(inner, outer, () => delayMillis)
    inner.on("data", tellOf("inner"))
    outer.on("data", tellOf("outer"))
  })
  const shut = Effect.sync(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const port = yield* Effect.acquireRelease(listen(server, ownPort), () => shut)
  return {
    baseUrl: `http://${host}:${port}`,
    shut,
    open: Effect.asVoid(listen(server, port)),
    lose: (lost) => Effect.sync(() => void (isLost = lost)),
    slow: (millis) => Effect.sync(() => void (delayMillis = millis)),
    next: (side) =>
      Effect.callback((resume) => {
        const tell = () => resume(Effect.void)
        waiting[side].add(tell)
        return Effect.sync(() => waiting[side].delete(tell))
      }),
    ranges: Effect.sync(() => new Set(ranges)),
    conflicts: Effect.sync(() => conflicts)
  }
})
