/**
 * matrix-js-sdk's end-to-end encryption, of the same WebAssembly with its store in memory, since there is no other in Node:
 * `node jsSdk.ts <CryptoTask>`. It is given the messages as its sync loop gives them to it, and each event as a new
 * `MatrixEvent`.
 *
 * Gotchas: not bundled, since the package looks for its WebAssembly beside itself; nothing of its start is measured.
 */
import { silent } from "../start/silence.ts"
import { createClient, MatrixEvent } from "matrix-js-sdk"
import type { CryptoBackend } from "matrix-js-sdk/lib/common-crypto/CryptoBackend.js"
import type { IToDeviceEvent } from "matrix-js-sdk/lib/sync-accumulator.js"
import { setTimeout as sleep } from "node:timers/promises"
import { finish, nowMillis, peakMegabytes, task } from "../Figures.ts"
import { ME } from "./Account.ts"
import { BATCH, type CryptoTask, SENDERS, WARM_UP } from "./CryptoTask.ts"
import { type JsonObject, KeyDirectory, type Kind } from "./KeyDirectory.ts"
import { type RoomEvent, Senders } from "./Senders.ts"

const { batches, passes } = task<CryptoTask>()

const directory = new KeyDirectory()

/** Answers requests for keys, and nothing else. */
const answer = async (url: string | URL | Request, init?: RequestInit): Promise<Response> => {
  const kind = /\/keys\/(\w+)/.exec(String(url))?.[1] as Kind | undefined
  if (kind === undefined) return Response.json({ errcode: "M_NOT_FOUND", error: "nothing here" }, { status: 404 })
  return Response.json(directory.answer(ME, kind, JSON.parse(String(init?.body)) as JsonObject))
}

/** Whether anybody who asks is told of the account's device. */
const isPublished = (): boolean => {
  const { device_keys: users } = directory.answer(ME, "query", { device_keys: { [ME.userId]: [] } })
  return Object.keys((users as { readonly [userId: string]: object })[ME.userId]!).length > 0
}

const program = async () => {
  const client = createClient({
    ...ME,
    baseUrl: "http://bench",
    accessToken: "bench-token",
    logger: silent,
    fetchFn: answer
  })
  await client.initRustCrypto({ useIndexedDB: false })
  // What the sync loop of the package is given; applications see a part of it.
  const crypto = client.getCrypto() as CryptoBackend
  crypto.onSyncCompleted({})
  while (!isPublished()) await sleep(10)
  const senders = await Senders.open(directory, ME, SENDERS)
  await crypto.getUserDeviceInfo([...senders.userIds], true)

  const events: Array<RoomEvent> = []
  let took = 0
  for (let turn = 0; turn < WARM_UP + batches; turn++) {
    const batch = await senders.batch(BATCH)
    events.push(...batch.events)
    const toDeviceEvents = batch.toDevice as unknown as Array<IToDeviceEvent>
    const from = nowMillis()
    const processed = await crypto.processSyncChanges({ toDeviceEvents, useMsc4186: true })
    if (turn >= WARM_UP) took += nowMillis() - from
    const decrypted = processed.filter(({ encryptionInfo }) => encryptionInfo !== null).length
    if (decrypted !== BATCH) throw new Error(`${decrypted} of ${BATCH} messages were decrypted`)
  }
  const decryptAll = async () => {
    for (const { event, roomId } of events) {
      const { clearEvent } = await crypto.decryptEvent(new MatrixEvent({ ...event, room_id: roomId }))
      if (clearEvent.type !== "m.room.message") throw new Error("an event wasn't decrypted")
    }
  }
  const figures: Record<string, number> = {}
  if (passes === 0) figures["messagesPerSecond"] = (batches * BATCH * 1_000) / took
  if (passes > 0) {
    await decryptAll()
    const from = nowMillis()
    for (let pass = 0; pass < passes; pass++) await decryptAll()
    figures["eventsPerSecond"] = (passes * events.length * 1_000) / (nowMillis() - from)
  }
  return { ...figures, peakMegabytes: peakMegabytes() }
}

void program().then(finish)
