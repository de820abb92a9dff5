/** Databases of many accounts that have just logged in, each with a token of its own. */
import { copyFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { AccountsTask } from "./AccountsTask.ts"
import * as ManyAccounts from "./ManyAccounts.ts"
import * as TwinloopAccount from "./TwinloopAccount.ts"

/** The token of an account. */
export const tokenOf = (number: number): string => `bench-token-${number}`

/** The database of an account. */
export const fileOf = (directory: string, number: number): string => join(directory, `${number}.db`)

/** Logs in once, and copies the database for every account that is needed. */
export const prepare = async ({ accounts, baseUrl, directory }: AccountsTask): Promise<void> => {
  const first = join(directory, "first.db")
  await TwinloopAccount.prepare(first, baseUrl)
  for (let number = 0; number < ManyAccounts.needed(accounts); number++) {
    const file = fileOf(directory, number)
    copyFileSync(first, file)
    const db = new DatabaseSync(file)
    db.prepare("UPDATE account_session SET access_token = ?").run(tokenOf(number))
    db.close()
  }
}
