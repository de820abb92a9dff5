/**
 * The thread that copies write-ahead logs into their databases, one for all databases of the process.
 *
 * SQLite does that in the COMMIT that makes the log longer than 1000 pages: about 10 ms of disk, during which nothing else
 * of the process runs, in one commit of twenty. Another connection can do the same while the first one goes on writing.
 *
 * Invariants: I4 (a checkpoint that runs is waited for by whoever closes the database), I10 (one thread, one checkpoint at a
 * time).
 *
 * Gotchas: the thread starts with the first checkpoint, so a process that writes little has none; and it keeps no process
 * alive unless it copies. Its code is a function that is turned into text, because a bundled program is one file: it can use nothing of
 * this module.
 *
 * Not here: when a log is long enough (`Checkpoints.ts`).
 */
import { Context, Effect } from "effect"
import type { MessagePort, Worker } from "node:worker_threads"

interface Job {
  readonly id: number
  /** `file:` URI of the database. */
  readonly database: string
}

/** Runs in the thread: copies what it is asked to, as far as nobody is in the way, and says when it is done. */
const thread = (): void => {
  const { DatabaseSync } = process.getBuiltinModule("node:sqlite")
  const port: MessagePort = process.getBuiltinModule("node:worker_threads").parentPort!
  port.on("message", ({ database, id }: Job) => {
    let problem: string | undefined
    try {
      const db = new DatabaseSync(database, { timeout: 0 })
      try {
        db.exec("PRAGMA wal_checkpoint(PASSIVE)")
      } finally {
        db.close()
      }
    } catch (error) {
      // A database that is locked or gone: the log stays as it is, and the next commit asks again.
      problem = String(error)
    }
    port.postMessage({ id, problem })
  })
}

interface Done {
  readonly id: number
  readonly problem: string | undefined
}

class Copier {
  private worker: Worker | undefined
  private nextId = 0
  private readonly waiting = new Map<number, (problem: string | undefined) => void>()

  private start(): Worker {
    // Loaded here, since most processes never need it.
    const { Worker: NodeWorker } = process.getBuiltinModule("node:worker_threads")
    const worker = new NodeWorker(`(${thread.toString()})()`, { eval: true, execArgv: [] })
    worker.on("message", ({ id, problem }: Done) => {
      this.waiting.get(id)?.(problem)
      this.waiting.delete(id)
      if (this.waiting.size === 0) worker.unref()
    })
    worker.once("error", (error) => this.give(error.message))
    worker.once("exit", () => this.give("the thread has ended"))
    return worker
  }

  /** The thread is gone: whoever waits learns it, and the next one gets another thread. */
  private give(problem: string): void {
    this.worker = undefined
    for (const done of this.waiting.values()) done(problem)
    this.waiting.clear()
  }

  copy(database: string, done: (problem: string | undefined) => void): void {
    this.worker ??= this.start()
    const job: Job = { id: this.nextId++, database }
    this.waiting.set(job.id, done)
    this.worker.ref()
    this.worker.postMessage(job, [])
  }
}

/** Copies the log of a database, named by its `file:` URI, in another thread; done when it is over, and fails never. */
export const CheckpointThread = Context.Reference<{ checkpoint(database: string): Effect.Effect<void> }>(
  "@twinloop/platform/CheckpointThread",
  {
    defaultValue: () => {
      const copier = new Copier()
      return {
        checkpoint: (database) =>
          Effect.callback<string | undefined>((resume) =>
            copier.copy(database, (problem) => resume(Effect.succeed(problem)))
          ).pipe(
            Effect.flatMap((problem) =>
              problem === undefined ? Effect.void : Effect.logDebug(`A checkpoint was put off: ${problem}`)
            ),
            Effect.uninterruptible
          )
      }
    }
  }
)
