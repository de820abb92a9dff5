/** IndexedDB over the account's database, for the crypto engine. */
export * as IndexedDb from "./IndexedDb.ts"
export type { RangeOptions, RecordReader, Row } from "./RecordReader.ts"
