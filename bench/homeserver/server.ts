/** The process of a canned homeserver: `node server.ts <options>`, the options as JSON. Says where it listens, as JSON. */
import type { AddressInfo } from "node:net"
import { CannedHomeserver, type Options } from "./CannedHomeserver.ts"

/** What it says once it is ready. */
export interface Listening {
  readonly baseUrl: string
}

const { server } = new CannedHomeserver(JSON.parse(process.argv[2] ?? "{}") as Options)
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo
  const listening: Listening = { baseUrl: `http://127.0.0.1:${port}` }
  console.log(JSON.stringify(listening))
})
