/** What contestants with many accounts are given to do. */
export interface AccountsTask {
  readonly baseUrl: string
  /** An empty directory for the databases. */
  readonly directory: string
  readonly accounts: number
  /**
   * How much of an account there is: the two actors over ports in memory; these over SQLite; everything, over HTTP; the
   * same when the database is this process's alone.
   */
  readonly parts: "actors" | "sqlite" | "whole" | "single"
}

/** Rooms of each account: few, so that it is the account that is measured. */
export const ROOMS = 5
