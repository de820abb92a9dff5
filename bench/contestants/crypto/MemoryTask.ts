/** What contestants with the encryption of many accounts are given. */
export interface MemoryTask {
  readonly accounts: number
  /** An empty directory for the databases. */
  readonly directory: string
  /** The tables alone; with the owner's machine; with the reader's machine too. */
  readonly parts: "stores" | "engine" | "whole"
}
