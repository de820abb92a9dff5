/**
 * matrix-js-sdk, as an application that starts a client with its sliding sync: `node jsSdk.ts <SyncTask>`.
 *
 * It has no store in Node but memory, so nothing is persisted; its crypto isn't started. It asks for all rooms at once, as
 * its users do.
 */
import { silent } from "./start/silence.ts"
import { ClientEvent, createClient } from "matrix-js-sdk"
import { SlidingSync, SlidingSyncEvent, SlidingSyncState } from "matrix-js-sdk/lib/sliding-sync.js"
import {
  answered,
  type Figures,
  finish,
  nowMillis,
  peakMegabytes,
  plan,
  quantile,
  task,
  watchStalls
} from "./Figures.ts"
import { DEVICE, ME } from "../data/SyntheticAccount.ts"
import { BATCH } from "../homeserver/CannedHomeserver.ts"
import { PAUSE_MILLIS, type SyncTask } from "./SyncTask.ts"

const { baseUrl, latencies, news, rooms, timeline, toDevice } = task<SyncTask>()

const client = createClient({ baseUrl, accessToken: "bench-token", userId: ME, deviceId: DEVICE, logger: silent })
const list = { ranges: [[0, rooms - 1]], timeline_limit: timeline, required_state: [["*", "*"]] }
const subscription = { timeline_limit: 20, required_state: [] }
const slidingSync = new SlidingSync(baseUrl, new Map([["rooms", list]]), subscription, client, 30_000)

let responses = 0
let messages = 0
/** For each response that is over: when its first event was published. */
const firstEvents: Array<number | undefined> = []
let firstEvent: number | undefined
let look = (): void => {}

client.on(ClientEvent.Event, () => {
  firstEvent ??= nowMillis()
})
client.on(ClientEvent.ToDeviceEvent, () => {
  messages += 1
})
slidingSync.on(SlidingSyncEvent.Lifecycle, (state) => {
  if (state === SlidingSyncState.RequestFinished) firstEvent = undefined
  if (state !== SlidingSyncState.Complete) return
  responses += 1
  firstEvents.push(firstEvent)
  look()
})

/** Waits until so many more responses have been processed. */
const until = (more: number): Promise<void> =>
  new Promise((resolve) => {
    const wanted = responses + more
    look = () => {
      if (responses >= wanted) resolve()
    }
    look()
  })

const work = async (): Promise<Figures> => {
  const figures: Record<string, number> = {}
  const stalls = watchStalls()
  const loaded = until(1)
  const startedAt = nowMillis()
  void client.startClient({ slidingSync, disablePresence: true })
  await loaded
  figures["ingestMillis"] = nowMillis() - startedAt
  figures["stallMillis"] = await stalls()
  figures["peakMegabytes"] = peakMegabytes()
  const known = client.getRooms().length
  if (known !== rooms) throw new Error(`${known} of ${rooms} rooms are known`)

  if (news > 0) {
    const from = nowMillis()
    const processed = until(news)
    await plan(baseUrl, { kind: "news", count: news })
    await processed
    figures["responsesPerSecond"] = (news * 1_000) / (nowMillis() - from)
  }
  if (latencies > 0) {
    firstEvents.length = 0
    const processed = until(latencies)
    await plan(baseUrl, { kind: "news", count: latencies, delayMillis: PAUSE_MILLIS })
    await processed
    const sent = (await answered(baseUrl)).filter((line) => line.planned)
    // A response of which no event is published (all redundant) has no latency.
    const took = sent.flatMap(({ answeredAtMillis }, index) => {
      const at = firstEvents[index]
      return at === undefined ? [] : [at - answeredAtMillis]
    })
    figures["latencyP50Millis"] = quantile(took, 0.5)
    figures["latencyP99Millis"] = quantile(took, 0.99)
  }
  if (toDevice > 0) {
    const before = messages
    const from = nowMillis()
    const processed = until(toDevice)
    await plan(baseUrl, { kind: "toDevice", count: toDevice })
    await processed
    if (messages - before !== toDevice * BATCH) throw new Error(`${messages - before} messages came`)
    figures["toDevicePerSecond"] = (toDevice * BATCH * 1_000) / (nowMillis() - from)
  }
  return figures
}

void work().then(finish)
