/** End-to-end encryption over the account's database. */
export * as OlmCrypto from "./OlmCrypto.ts"
export * as OlmReader from "./OlmReader.ts"
export * as StoreKey from "./StoreKey.ts"
