/** The thread in which the inputs run; tells the other one, in shared memory, which of them it is at. */
import { parentPort, workerData } from "node:worker_threads"
import * as Run from "./Run.ts"

const { options, progress } = workerData as { readonly options: Run.Options; readonly progress: SharedArrayBuffer }
const current = new Int32Array(progress)

parentPort?.postMessage(await Run.run(options, (index) => Atomics.store(current, 0, index)), [])
