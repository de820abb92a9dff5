/** Makes an account and the messages that it will get, and is not measured: `node handoverPrepare.ts <HandoverTask>`. */
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { finish, task } from "../Figures.ts"
import * as Account from "./Account.ts"
import { batchesIn, type HandoverTask } from "./HandoverLine.ts"
import { KeyDirectory, type ToDeviceEvent } from "./KeyDirectory.ts"
import { Senders } from "./Senders.ts"
import { databaseIn } from "./StoreTask.ts"

const { batches, directory, size } = task<HandoverTask>()

const program = Effect.gen(function* () {
  const keys = new KeyDirectory()
  const account = yield* Account.open(databaseIn(directory))
  yield* account.engine.reload(account.fence)
  yield* Account.flush(account, keys)
  const senders = yield* Effect.promise(() => Senders.open(keys, Account.ME, 1))
  const made: Array<ReadonlyArray<ToDeviceEvent>> = []
  for (let number = 0; number < batches; number++) {
    made.push((yield* Effect.promise(() => senders.batch(size))).toDevice)
  }
  writeFileSync(batchesIn(directory), JSON.stringify(made))
}).pipe(Effect.scoped)

void Effect.runPromise(program).then(() => finish({}))
