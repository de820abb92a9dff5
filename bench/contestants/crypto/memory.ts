/**
 * Many accounts' end-to-end encryption in one process: `node --expose-gc memory.ts <MemoryTask>`. Each account has a database
 * of its own.
 */
import { SqliteStores } from "@twinloop/platform"
import { Effect, Layer, Scope } from "effect"
import { join } from "node:path"
import { finish, task } from "../Figures.ts"
import * as Account from "./Account.ts"
import type { MemoryTask } from "./MemoryTask.ts"
import * as PerAccount from "./PerAccount.ts"

const { accounts, directory, parts } = task<MemoryTask>()

const engine = (filename: string) =>
  Effect.gen(function* () {
    const account = yield* Account.open(filename)
    yield* account.engine.reload(account.fence)
    // Durable, so that the reader finds them.
    yield* Account.change(account, account.engine.outgoing(account.fence))
    if (parts === "whole") yield* account.reader.devices(Account.ME.userId)
  })

const open = (filename: string): Effect.Effect<unknown, unknown, Scope.Scope> =>
  parts === "stores" ? Layer.build(SqliteStores.layer({ filename })) : engine(filename)

const scope = Scope.makeUnsafe()

void PerAccount.measure(accounts, async (number) => {
  await Effect.runPromise(Scope.provide(open(join(directory, `${number}.db`)), scope))
}).then(finish)
