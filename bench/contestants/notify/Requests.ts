/** Counts the HTTP requests that this process begins, whoever makes them: by `node:http`, or by `fetch`. */
import { subscribe } from "node:diagnostics_channel"

let count = 0

for (const channel of ["http.client.request.start", "undici:request:create"]) subscribe(channel, () => void count++)

/** So many so far. */
export const requests = (): number => count
