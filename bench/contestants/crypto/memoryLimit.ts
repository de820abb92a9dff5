/**
 * Machines of many accounts in one WebAssembly instance, with their stores in memory: `node --expose-gc memoryLimit.ts
 * <MemoryTask>`. The least, and one account's fault would be everybody's.
 */
import { finish, task } from "../Figures.ts"
import { ME } from "./Account.ts"
import * as MemoryMachine from "./MemoryMachine.ts"
import type { MemoryTask } from "./MemoryTask.ts"
import * as PerAccount from "./PerAccount.ts"

const { accounts } = task<MemoryTask>()

/** Or the machines would be collected. */
const machines: Array<MemoryMachine.MemoryMachine> = []

void PerAccount.measure(accounts, async (number) => {
  const machine = await MemoryMachine.create({ ...ME, deviceId: `MINE${number}` })
  await machine.olm.outgoingRequests()
  machines.push(machine)
}).then(finish)
