/**
 * matrix-js-sdk as a process that asks for to-device messages once: `node oneShotJsSdk.cjs <address>`. No crypto is started,
 * nothing is persisted, and no lock is taken.
 */
import { silent } from "./silence.ts"
import { createClient } from "matrix-js-sdk"
import { DEVICE, ME } from "../../data/SyntheticAccount.ts"
import { say } from "./StartLine.ts"

const [baseUrl = ""] = process.argv.slice(2)

const client = createClient({ baseUrl, accessToken: "bench-token", userId: ME, deviceId: DEVICE, logger: silent })

/** The types of matrix-js-sdk name the extensions `object`. */
interface ToDevice {
  readonly to_device?: { readonly events: ReadonlyArray<object> }
}

const asked = client.slidingSync({
  // A position, so that it is answered with messages and not with the start of a connection.
  pos: "0",
  timeout: 0,
  lists: {},
  extensions: { e2ee: { enabled: true }, to_device: { enabled: true, limit: 100 } }
})
void asked.then(({ extensions }) => {
  say({ done: "synced", messages: (extensions as ToDevice).to_device?.events.length ?? 0 })
  // It leaves timers behind, which would keep the process for half a minute.
  process.exit(0)
})
