/**
 * Who writes to the account: devices of other users that make a key for a room, send it to the account's device, and say
 * something in the room.
 */
import type { MatrixEvent } from "@twinloop/core"
import type { Device, KeyDirectory, ToDeviceEvent } from "./KeyDirectory.ts"
import * as MemoryMachine from "./MemoryMachine.ts"

export interface RoomEvent {
  readonly roomId: string
  readonly event: MatrixEvent.TimelineEvent
}

/** To-device messages, each with the key of a room, and an event of each room. */
export interface Batch {
  readonly toDevice: ReadonlyArray<ToDeviceEvent>
  readonly events: ReadonlyArray<RoomEvent>
}

export class Senders {
  readonly #directory: KeyDirectory
  readonly #to: Device
  readonly #machines: ReadonlyArray<MemoryMachine.MemoryMachine>
  #rooms = 0

  private constructor(directory: KeyDirectory, to: Device, machines: ReadonlyArray<MemoryMachine.MemoryMachine>) {
    this.#directory = directory
    this.#to = to
    this.#machines = machines
  }

  /** So many devices of as many users, which know a device whose keys are published, and have a session with it. */
  static async open(directory: KeyDirectory, to: Device, count: number): Promise<Senders> {
    const machines: Array<MemoryMachine.MemoryMachine> = []
    for (let number = 0; number < count; number++) {
      const device = { userId: `@sender${number}:bench`, deviceId: `SENDER${number}` }
      const machine = await MemoryMachine.open(directory, device)
      const { UserId } = MemoryMachine.sdk()
      await machine.olm.updateTrackedUsers([new UserId(to.userId)])
      await MemoryMachine.flush(directory, machine)
      const claim = await machine.olm.getMissingSessions([new UserId(to.userId)])
      if (claim !== null) await MemoryMachine.send(directory, machine, claim)
      machines.push(machine)
    }
    return new Senders(directory, to, machines)
  }

  /** Whose devices the account has to know. */
  get userIds(): ReadonlyArray<string> {
    return this.#machines.map(({ userId }) => userId)
  }

  async #room(machine: MemoryMachine.MemoryMachine): Promise<RoomEvent> {
    const { EncryptionSettings, RoomId, UserId } = MemoryMachine.sdk()
    const number = this.#rooms++
    const roomId = `!room${number}:bench`
    const recipients = [new UserId(this.#to.userId)]
    for (const request of await machine.olm.shareRoomKey(new RoomId(roomId), recipients, new EncryptionSettings())) {
      await MemoryMachine.send(this.#directory, machine, request)
    }
    const clear = JSON.stringify({ msgtype: "m.text", body: `Message ${number} of somebody who has something to say` })
    const content = JSON.parse(
      await machine.olm.encryptRoomEvent(new RoomId(roomId), "m.room.message", clear)
    ) as object
    const event: MatrixEvent.TimelineEvent = {
      type: "m.room.encrypted",
      event_id: `$event${number}`,
      sender: machine.userId,
      origin_server_ts: 1_760_000_000_000,
      content: { ...content }
    }
    return { roomId, event }
  }

  /** Keys of so many new rooms, from each sender in turn. */
  async batch(size: number): Promise<Batch> {
    const events: Array<RoomEvent> = []
    for (let index = 0; index < size; index++) {
      events.push(await this.#room(this.#machines[index % this.#machines.length]!))
    }
    return { toDevice: this.#directory.take(this.#to), events }
  }

  /** All keys that the senders have made, as the specification exports them. */
  async exported(): Promise<ReadonlyArray<object>> {
    const all = await Promise.all(this.#machines.map(({ olm }) => olm.exportRoomKeys(() => true)))
    return all.flatMap((json) => JSON.parse(json) as ReadonlyArray<object>)
  }
}
