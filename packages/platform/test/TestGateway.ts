/** A push gateway on a free port that keeps what it gets, and answers as it was told. */
import type { GatewayAnswer, GatewayUnderTest } from "@twinloop/core/testing"
import { Effect, Queue } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:http"
import type { IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"

type Body = Effect.Success<GatewayUnderTest["next"]>

const readBody = async (request: IncomingMessage): Promise<Body> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString()) as Body
}

/** Ends with the scope, with all of its connections. */
export const testGateway: Effect.Effect<GatewayUnderTest, never, Scope.Scope> = Effect.gen(function* () {
  const received = yield* Queue.unbounded<Body>()
  let script: ReadonlyArray<GatewayAnswer> = []
  const server = createServer((request, response) => {
    void readBody(request).then((body) => {
      const [{ status, json } = { status: 200, json: { rejected: [] } }, ...rest] = script
      script = rest
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json))
      Queue.offerUnsafe(received, body)
    })
  })
  yield* Effect.acquireRelease(
    Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
    () =>
      Effect.promise(
        () =>
          new Promise((resolve) => {
            server.close(resolve)
            server.closeAllConnections()
          })
      )
  )
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/_matrix/push/v1/notify`,
    next: Queue.take(received),
    script: (...answers) =>
      Effect.sync(() => {
        script = answers
      })
  }
})
