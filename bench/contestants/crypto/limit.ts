/**
 * The least that anybody has to do who decrypts with matrix-rust-sdk's WebAssembly: `node limit.ts <CryptoTask>`. The same
 * work by the machine of its package with its store in memory; nothing is kept.
 */
import { finish, nowMillis, peakMegabytes, task } from "../Figures.ts"
import { ME } from "./Account.ts"
import { BATCH, type CryptoTask, SENDERS, WARM_UP } from "./CryptoTask.ts"
import { KeyDirectory } from "./KeyDirectory.ts"
import * as MemoryMachine from "./MemoryMachine.ts"
import { type RoomEvent, Senders } from "./Senders.ts"

const { batches, passes } = task<CryptoTask>()

const decryptAll = async (machine: MemoryMachine.MemoryMachine, events: ReadonlyArray<RoomEvent>): Promise<void> => {
  for (const { event, roomId } of events) await MemoryMachine.decrypt(machine, roomId, event)
}

const program = async () => {
  const directory = new KeyDirectory()
  const machine = await MemoryMachine.open(directory, ME)
  const senders = await Senders.open(directory, ME, SENDERS)
  const { UserId } = MemoryMachine.sdk()
  await machine.olm.updateTrackedUsers(senders.userIds.map((userId) => new UserId(userId)))
  await MemoryMachine.flush(directory, machine)

  const events: Array<RoomEvent> = []
  let took = 0
  for (let turn = 0; turn < WARM_UP + batches; turn++) {
    const batch = await senders.batch(BATCH)
    events.push(...batch.events)
    const from = nowMillis()
    const decrypted = await MemoryMachine.receive(machine, batch.toDevice)
    if (turn >= WARM_UP) took += nowMillis() - from
    if (decrypted !== BATCH) throw new Error(`${decrypted} of ${BATCH} messages were decrypted`)
  }
  const figures: Record<string, number> = {}
  if (passes === 0) figures["messagesPerSecond"] = (batches * BATCH * 1_000) / took
  if (passes > 0) {
    await decryptAll(machine, events)
    const from = nowMillis()
    for (let pass = 0; pass < passes; pass++) await decryptAll(machine, events)
    figures["eventsPerSecond"] = (passes * events.length * 1_000) / (nowMillis() - from)
  }
  return { ...figures, peakMegabytes: peakMegabytes() }
}

void program().then(finish)
