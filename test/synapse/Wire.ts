/**
 * A proxy before a homeserver that takes down what clients ask and how they are answered, whatever process or library asks.
 *
 * Includes the bodies of what travels about keys and tokens, and of to-device messages; nothing is changed on its way.
 *
 * Gotchas: an exchange is taken down when its answer has been read, so before whoever asked can act on it.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { Agent, createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http"
import type { IncomingHttpHeaders } from "node:http"
import type { AddressInfo } from "node:net"

type Json = { readonly [name: string]: unknown }

/** A request and its answer, byte for byte. */
export interface Message {
  readonly method: string
  /** From the root, with the query. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly asked: Buffer
  readonly status: number
  readonly answerHeaders: IncomingHttpHeaders
  readonly answered: Buffer
}

/** A request and its answer, as far as tests look at them. */
export interface Exchange {
  readonly method: string
  /** Without the query. */
  readonly path: string
  /** Whose request it was. */
  readonly token: string
  readonly status: number
  /** JSON of what was asked; empty unless it is about keys, tokens or a to-device message. */
  readonly asked: Json
  /** JSON of the answer; empty unless what was asked is kept. */
  readonly answered: Json
}

export interface Wire {
  /** Where clients find the homeserver: `http://127.0.0.1:<port>`. */
  readonly baseUrl: string
  /** What was taken down, oldest first. */
  readonly exchanges: Effect.Effect<ReadonlyArray<Exchange>>
  /** Those whose path has a text in it. */
  about(text: string): Effect.Effect<ReadonlyArray<Exchange>>
}

const isKept = (path: string): boolean =>
  path.includes("/keys/") || path.includes("/sendToDevice/") || path.endsWith("/refresh")

const bytesOf = async (message: IncomingMessage): Promise<Buffer> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of message) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const jsonOf = (bytes: Buffer): Json => {
  try {
    return JSON.parse(bytes.toString("utf8")) as Json
  } catch {
    // A proxy takes what there is: an answer without JSON has nothing to look at.
    return {}
  }
}

const exchangeOf = ({ answered, asked, headers, method, status, url }: Message): Exchange => {
  const path = url.split("?")[0] ?? url
  const token = (headers.authorization ?? "").replace("Bearer ", "")
  const json = isKept(path) ? { asked: jsonOf(asked), answered: jsonOf(answered) } : { asked: {}, answered: {} }
  return { method, path, token, status, ...json }
}

const forward = async (
  target: string,
  agent: Agent,
  note: (message: Message) => void,
  incoming: IncomingMessage,
  outgoing: ServerResponse
): Promise<void> => {
  const { headers, method = "GET", url = "/" } = incoming
  const asked = await bytesOf(incoming)
  const { "transfer-encoding": _, ...kept } = headers
  const upstream = httpRequest(target + url, {
    agent,
    method,
    headers: { ...kept, host: new URL(target).host, "content-length": String(asked.length) }
  })
  // Who has gone away waits for no answer.
  outgoing.on("close", () => upstream.destroy())
  upstream.on("error", () => outgoing.destroy())
  upstream.on("response", (answer) => {
    bytesOf(answer).then(
      (answered) => {
        const { headers: answerHeaders, statusCode: status = 0 } = answer
        note({ method, url, headers, asked, status, answerHeaders, answered })
        const { "transfer-encoding": _, ...rest } = answerHeaders
        outgoing.writeHead(status, { ...rest, "content-length": String(answered.length) })
        outgoing.end(answered)
      },
      () => outgoing.destroy()
    )
  })
  upstream.end(asked)
}

/**
 * Stands before the homeserver at an address until the scope closes, and tells of each request that was answered. Gives where
 * clients find it: `http://127.0.0.1:<port>`.
 */
export const tap = (target: string, note: (message: Message) => void): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function* () {
    // A connection for each request: one that is kept may have been closed by the other side when it is used again.
    const agent = new Agent()
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createServer((incoming, outgoing) => {
          forward(target, agent, note, incoming, outgoing).catch(() => outgoing.destroy())
        })
      ),
      (server) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
          agent.destroy()
        })
    )
    yield* Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void)))
    const { port } = server.address() as AddressInfo
    return `http://127.0.0.1:${port}`
  })

/** Stands before the homeserver at an address until the scope closes, and takes down what goes through. */
export const start = (target: string): Effect.Effect<Wire, never, Scope.Scope> =>
  Effect.gen(function* () {
    const exchanges: Array<Exchange> = []
    const baseUrl = yield* tap(target, (message) => exchanges.push(exchangeOf(message)))
    return {
      baseUrl,
      exchanges: Effect.sync(() => [...exchanges]),
      about: (text) => Effect.sync(() => exchanges.filter(({ path }) => path.includes(text)))
    }
  })
