import { assert, describe, it } from "@effect/vitest"
import { queueTask } from "../../src/crypto/indexeddb/TaskQueue.ts"

describe("TaskQueue", () => {
  it("runs a task once all promises that the one before settled have been heard", async () => {
    const log: Array<string> = []
    const deep = async (depth: number): Promise<void> => {
      if (depth > 0) await deep(depth - 1)
    }
    await new Promise<void>((resolve) => {
      queueTask(() => {
        log.push("first")
        void deep(20).then(() => log.push("heard"))
        queueTask(() => {
          log.push("third")
          resolve()
        })
      })
      queueTask(() => void log.push("second"))
    })
    assert.deepStrictEqual(log, ["first", "heard", "second", "third"])
  })

  it("lets the event loop turn, however long tasks follow one another", async () => {
    let turned = false
    setImmediate(() => {
      turned = true
    })
    const until = (resolve: () => void) => () => (turned ? resolve() : queueTask(until(resolve)))
    await new Promise<void>((resolve) => queueTask(until(resolve)))
    assert.isTrue(turned)
  })

  it("goes on after a task that throws", async () => {
    const uncaught = process.listeners("uncaughtException")
    process.removeAllListeners("uncaughtException")
    const thrown = new Promise<Error>((resolve) => process.once("uncaughtException", resolve))
    const next = new Promise<string>((resolve) => {
      queueTask(() => {
        throw new Error("the first fails")
      })
      queueTask(() => resolve("the second runs"))
    })
    assert.strictEqual((await thrown).message, "the first fails")
    assert.strictEqual(await next, "the second runs")
    for (const listener of uncaught) process.on("uncaughtException", listener)
  })
})
