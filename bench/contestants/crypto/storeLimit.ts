/**
 * What a machine with its store in memory has to do with many room keys at each start: `node storeLimit.ts <StoreTask>`. It
 * imports them all from a file, then decrypts.
 */
import { readFileSync } from "node:fs"
import { finish, nowMillis, quantile, task } from "../Figures.ts"
import { ME } from "./Account.ts"
import * as MemoryMachine from "./MemoryMachine.ts"
import * as StoreTask from "./StoreTask.ts"

const { directory } = task<StoreTask.StoreTask>()

const program = async () => {
  const machine = await MemoryMachine.create(ME)
  await machine.olm.importExportedRoomKeys(readFileSync(StoreTask.exportIn(directory), "utf8"), () => {})
  const openMillis = process.uptime() * 1_000
  const decrypts: Array<number> = []
  for (const { event, roomId } of StoreTask.events(directory)) {
    const from = nowMillis()
    await MemoryMachine.decrypt(machine, roomId, event)
    decrypts.push(nowMillis() - from)
  }
  const [firstDecryptMillis = Number.NaN, ...others] = decrypts
  return {
    openMillis,
    firstDecryptMillis,
    nextDecryptMillis: quantile(others, 0.5),
    residentMegabytes: process.memoryUsage.rss() / 1e6
  }
}

void program().then(finish)
