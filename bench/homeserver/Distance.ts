/**
 * A homeserver that is far away: what goes to it and what comes from it takes its time, on the loopback interface.
 *
 * `node Distance.ts <DistanceTask>` says where it listens.
 *
 * Gotchas: connections are made at once, so it is kinder than a network.
 */
import * as net from "node:net"
import type { Listening } from "./server.ts"

export interface DistanceTask {
  readonly baseUrl: string
  /** How long every byte takes, each way. */
  readonly oneWayMillis: number
}

const carry = (from: net.Socket, to: net.Socket, millis: number): void => {
  from.setNoDelay()
  // Timers of the same duration keep their order.
  from.on("data", (bytes) => void setTimeout(() => to.write(bytes), millis))
  from.once("end", () => void setTimeout(() => to.end(), millis))
  from.once("error", () => to.destroy())
}

/** Listens on a free port of 127.0.0.1; gives the server. */
export const listen = ({ baseUrl, oneWayMillis }: DistanceTask): Promise<net.Server> => {
  const { hostname, port } = new URL(baseUrl)
  const server = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ host: hostname, port: Number(port), allowHalfOpen: true })
    carry(near, far, oneWayMillis)
    carry(far, near, oneWayMillis)
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(server))
  })
}

/** The address of such a server. */
export const addressOf = (server: net.Server): string =>
  `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`

if (import.meta.main) {
  const server = await listen(JSON.parse(process.argv[2] ?? "{}") as DistanceTask)
  process.stdout.write(`${JSON.stringify({ baseUrl: addressOf(server) } satisfies Listening)}\n`)
}
