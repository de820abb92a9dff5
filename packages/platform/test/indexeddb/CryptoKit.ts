/** The real crypto engine over our IndexedDB, and a homeserver of a few lines for two devices. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { directoryOf, loadPrivately } from "../../src/crypto/PrivateModules.ts"
import type { IndexedDb } from "../../src/crypto/indexeddb/index.ts"

type Json = { readonly [name: string]: unknown }

interface OutgoingRequest {
  readonly id?: string
  readonly type: number
  readonly body: string
  readonly event_type?: string
}

export interface Machine {
  readonly identityKeys: { readonly curve25519: { toBase64(): string } }
  outgoingRequests(): Promise<ReadonlyArray<OutgoingRequest>>
  markRequestAsSent(id: string, type: number, response: string): Promise<unknown>
  updateTrackedUsers(users: ReadonlyArray<unknown>): Promise<void>
  getMissingSessions(users: ReadonlyArray<unknown>): Promise<OutgoingRequest | null>
  shareRoomKey(room: unknown, users: ReadonlyArray<unknown>, settings: unknown): Promise<ReadonlyArray<OutgoingRequest>>
  encryptRoomEvent(room: unknown, type: string, content: string): Promise<string>
  decryptRoomEvent(event: string, room: unknown, settings: unknown): Promise<{ readonly event: string }>
  receiveSyncChanges(
    events: string,
    lists: unknown,
    counts: Map<string, number>,
    fallbacks: Set<string>,
    settings: unknown
  ): Promise<ReadonlyArray<{ readonly type: number }>>
  close(): void
}

type Class = new (...args: ReadonlyArray<unknown>) => unknown

/** What we use of the package's exports. */
export interface Sdk {
  readonly OlmMachine: {
    initialize(user: unknown, device: unknown): Promise<Machine>
    initFromStore(user: unknown, device: unknown, store: unknown): Promise<Machine>
  }
  readonly StoreHandle: { openWithKey(name: string, key: Uint8Array): Promise<{ free(): void }> }
  readonly UserId: Class
  readonly DeviceId: Class
  readonly RoomId: Class
  readonly DeviceLists: Class
  readonly EncryptionSettings: Class
  readonly DecryptionSettings: Class
  readonly TrustRequirement: { readonly Untrusted: number }
}

interface Glue extends Sdk {
  __wbg_set_wasm(exports: unknown): void
}

/** The parts of `WebAssembly`, which only a browser's types have. */
interface WebAssemblyNamespace {
  readonly Module: new (bytes: Uint8Array) => unknown
  readonly Instance: new (
    module: unknown,
    imports: object
  ) => { readonly exports: { readonly __wbindgen_start: () => void } }
}

export const packageDirectory = directoryOf("@matrix-org/matrix-sdk-crypto-wasm")
export const gluePath = "pkg/matrix_sdk_crypto_wasm_bg.cjs"
const wasm = (globalThis as unknown as { readonly WebAssembly: WebAssemblyNamespace }).WebAssembly
let compiled: unknown

/** An instance of the engine; its `indexedDB` is ours, or missing. */
export const instantiate = (database: IndexedDb.IndexedDb | undefined): Sdk => {
  const { crypto, performance, console, queueMicrotask, setTimeout } = globalThis
  const global: { [name: string]: unknown } = { crypto, performance, console, queueMicrotask, setTimeout }
  // The engine asks for `global` to find out that it runs in Node.
  global["global"] = global
  if (database !== undefined) global["indexedDB"] = database.factory
  const load = loadPrivately(packageDirectory, {
    parameters: { ...database?.globals, globalThis: global, self: undefined, window: undefined, global: undefined }
  })
  const glue = load(gluePath) as Glue
  compiled ??= new wasm.Module(readFileSync(join(packageDirectory, "pkg/matrix_sdk_crypto_wasm_bg.wasm")))
  const { exports } = new wasm.Instance(compiled, { "./matrix_sdk_crypto_wasm_bg.js": glue })
  glue.__wbg_set_wasm(exports)
  exports.__wbindgen_start()
  return glue
}

/** Keys and to-device messages of all devices. */
export class KeyServer {
  private readonly devices: { [user: string]: { [device: string]: unknown } } = {}
  private readonly oneTimeKeys: { [device: string]: { [id: string]: unknown } } = {}
  private readonly inboxes: { [device: string]: Array<Json> } = {}

  take(user: string, device: string): ReadonlyArray<Json> {
    const inbox = this.inboxes[`${user}/${device}`] ?? []
    delete this.inboxes[`${user}/${device}`]
    return inbox
  }

  /** Puts messages back that were taken: nobody has acknowledged them. */
  give(user: string, device: string, messages: ReadonlyArray<Json>): void {
    this.inboxes[`${user}/${device}`] = [...messages]
  }

  private upload(user: string, device: string, body: Json): Json {
    if (body["device_keys"] !== undefined) (this.devices[user] ??= {})[device] = body["device_keys"]
    const keys = Object.assign((this.oneTimeKeys[`${user}/${device}`] ??= {}), body["one_time_keys"])
    return { one_time_key_counts: { signed_curve25519: Object.keys(keys).length } }
  }

  private query(body: Json): Json {
    const users = Object.keys(body["device_keys"] as object)
    return { device_keys: Object.fromEntries(users.map((user) => [user, this.devices[user] ?? {}])), failures: {} }
  }

  private claim(body: Json): Json {
    const claimed: { [user: string]: { [device: string]: unknown } } = {}
    for (const [user, devices] of Object.entries(body["one_time_keys"] as Json)) {
      for (const device of Object.keys(devices as object)) {
        const keys = this.oneTimeKeys[`${user}/${device}`] ?? {}
        const id = Object.keys(keys)[0]!
        ;(claimed[user] ??= {})[device] = { [id]: keys[id] }
        delete keys[id]
      }
    }
    return { one_time_keys: claimed, failures: {} }
  }

  private send(sender: string, type: string, body: Json): Json {
    for (const [user, devices] of Object.entries(body["messages"] as Json)) {
      for (const [device, content] of Object.entries(devices as Json)) {
        ;(this.inboxes[`${user}/${device}`] ??= []).push({ sender, type, content })
      }
    }
    return {}
  }

  answer(user: string, device: string, request: OutgoingRequest): Json {
    const body = JSON.parse(request.body) as Json
    if (request.type === 0) return this.upload(user, device, body)
    if (request.type === 1) return this.query(body)
    if (request.type === 2) return this.claim(body)
    if (request.type === 3) return this.send(user, request.event_type!, body)
    throw new Error(`no answer to requests of type ${request.type}`)
  }
}

/** A device: a machine and what it needs to be used. */
export class Device {
  readonly sdk: Sdk
  readonly machine: Machine
  private readonly server: KeyServer
  private readonly user: string
  private readonly id: string

  private constructor(sdk: Sdk, machine: Machine, server: KeyServer, user: string, id: string) {
    this.sdk = sdk
    this.machine = machine
    this.server = server
    this.user = user
    this.id = id
  }

  /** In memory without a database, else in it. */
  static async open(server: KeyServer, user: string, id: string, database?: IndexedDb.IndexedDb): Promise<Device> {
    const sdk = instantiate(database)
    const [userId, deviceId] = [new sdk.UserId(user), new sdk.DeviceId(id)]
    if (database === undefined) {
      return new Device(sdk, await sdk.OlmMachine.initialize(userId, deviceId), server, user, id)
    }
    const store = await sdk.StoreHandle.openWithKey(user, new Uint8Array(32).fill(7))
    const machine = await sdk.OlmMachine.initFromStore(userId, deviceId, store)
    store.free()
    return new Device(sdk, machine, server, user, id)
  }

  private async deliver(request: OutgoingRequest): Promise<void> {
    const response = JSON.stringify(this.server.answer(this.user, this.id, request))
    if (request.id !== undefined) await this.machine.markRequestAsSent(request.id, request.type, response)
  }

  async pump(): Promise<void> {
    for (const request of await this.machine.outgoingRequests()) await this.deliver(request)
  }

  async track(user: string): Promise<void> {
    await this.machine.updateTrackedUsers([new this.sdk.UserId(user)])
    await this.pump()
  }

  /** Shares a new room key with a user, and gives an event that it encrypts. */
  async say(room: string, to: string, body: string): Promise<Json> {
    const { sdk } = this
    const claim = await this.machine.getMissingSessions([new sdk.UserId(to)])
    if (claim !== null) await this.deliver(claim)
    const settings = new sdk.EncryptionSettings()
    const requests = await this.machine.shareRoomKey(new sdk.RoomId(room), [new sdk.UserId(to)], settings)
    for (const request of requests) await this.deliver(request)
    const plain = JSON.stringify({ msgtype: "m.text", body })
    const content = await this.machine.encryptRoomEvent(new sdk.RoomId(room), "m.room.message", plain)
    const event = { type: "m.room.encrypted", event_id: `$${body}`, sender: this.user, origin_server_ts: 1 }
    return { ...event, room_id: room, content: JSON.parse(content) as Json }
  }

  /** Receives what has been sent to it, and says of each what became of it: 0 is "decrypted". */
  async receive(): Promise<ReadonlyArray<number>> {
    const { sdk } = this
    const outcomes = await this.machine.receiveSyncChanges(
      JSON.stringify(this.server.take(this.user, this.id)),
      new sdk.DeviceLists([], []),
      new Map(),
      new Set(["signed_curve25519"]),
      new sdk.DecryptionSettings(sdk.TrustRequirement.Untrusted)
    )
    return outcomes.map(({ type }) => type)
  }

  async read(event: Json): Promise<unknown> {
    const { sdk } = this
    const decrypted = await this.machine.decryptRoomEvent(
      JSON.stringify(event),
      new sdk.RoomId(event["room_id"]),
      new sdk.DecryptionSettings(sdk.TrustRequirement.Untrusted)
    )
    return (JSON.parse(decrypted.event) as { readonly content: { readonly body: unknown } }).content.body
  }
}
