/**
 * Notifications appended to a file, one JSON object a line, for other programs to follow. `SinkRecord.ts` has its shape.
 *
 * Invariants: I7 (nothing is lost: a notification is shown when its line is on the disk), I10 (`MAX_LOOK_BACK`).
 *
 * Gotchas: several processes may append at the same time; each line is one write at the end of the file. A write that a kill
 * or a full disk cut short leaves a torn line. It counts as not shown, and the next write ends it before it begins its own.
 * Another process's write may look torn while it is under way, which leaves an empty line. So a reader skips what isn't JSON,
 * and empty lines.
 */
import { NotificationSink } from "@twinloop/core"
import type { NotificationItem } from "@twinloop/core"
import { Clock, Console, Effect, Layer, Predicate, Result, Schema, Semaphore } from "effect"
import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { resolve } from "node:path"
import * as Planted from "../../Planted.ts"
import * as Printable from "../../Printable.ts"
import { cut, jsonOf } from "./SinkRecord.ts"

const name = "jsonl"

/** Bytes at the end of the file in which an event is looked for: some thousand notifications. */
const MAX_LOOK_BACK = 1_048_576

/** Others' messages: for the user alone. */
const FILE_MODE = 0o600

const NEWLINE = 10

/** A pipe that nobody writes to is no reason to wait. */
const READ = constants.O_RDONLY | constants.O_NONBLOCK

export interface JsonLinesOptions {
  /** Path of the file, made if it isn't there; `-` is standard output, which remembers nothing. */
  readonly file: string
  /** Bytes at the end of the file in which `isKnown` looks; 1 MiB if not given. */
  readonly lookBack?: number
}

const failed =
  (file: string, what: string) =>
  (cause: unknown): NotificationSink.SinkError => {
    const why = cause instanceof Error ? cause.message : String(cause)
    const message = `The notification could not be ${what} ${file}: ${why}. Make it a file that this user may write, on a disk with room.`
    return new NotificationSink.SinkError({ sink: name, message: Printable.line(message), cause })
  }

/** Opens a file that nobody else has put there. */
const openOwn = async (file: string, flags: "a+" | typeof READ): Promise<FileHandle> => {
  Planted.targetOf(resolve(file))
  return await open(file, flags, FILE_MODE)
}

const withFile = <A>(
  file: string,
  flags: "a+" | typeof READ,
  what: string,
  use: (handle: FileHandle) => Promise<A>
) => {
  const attempt = <B>(promise: () => Promise<B>) => Effect.tryPromise({ try: promise, catch: failed(file, what) })
  return Effect.acquireUseRelease(
    attempt(() => openOwn(file, flags)),
    (handle) => attempt(() => use(handle)),
    (handle) => Effect.promise(() => handle.close())
  )
}

/** The bytes from `start` on; fewer than `length` where the file ends before. */
const readFrom = async (handle: FileHandle, start: number, length: number): Promise<Buffer> => {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, start)
  return buffer.subarray(0, bytesRead)
}

/** Whether the last line has no end. What is no regular file, such as a pipe, has no last line to be read. */
const endsTorn = async (handle: FileHandle): Promise<boolean> => {
  const stat = await handle.stat()
  return stat.isFile() && stat.size > 0 && (await readFrom(handle, stat.size - 1, 1))[0] !== NEWLINE
}

const append = async (handle: FileHandle, line: string): Promise<void> => {
  const bytes = Buffer.from(`${(await endsTorn(handle)) ? "\n" : ""}${line}\n`)
  const { bytesWritten } = await handle.write(bytes)
  if (bytesWritten < bytes.length) throw new Error(`only ${bytesWritten} of ${bytes.length} bytes fit`)
  if ((await handle.stat()).isFile()) await handle.sync()
}

const decode = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

const isLineOf = (line: string, { eventId, roomId }: NotificationItem.NotificationRequest): boolean => {
  const record = Result.getOrUndefined(decode(line))
  return Predicate.isObject(record) && record.eventId === cut(eventId) && record.roomId === cut(roomId)
}

/** Whether one of the last lines is of this event. What is torn is no JSON object, at the end of the file and at `start`. */
const knows = async (
  handle: FileHandle,
  request: NotificationItem.NotificationRequest,
  lookBack: number
): Promise<boolean> => {
  const stat = await handle.stat()
  if (!stat.isFile()) return false
  const { size } = stat
  const start = Math.max(0, size - lookBack)
  const tail = (await readFrom(handle, start, size - start)).toString()
  const id = Printable.json(cut(request.eventId))
  return tail.split("\n").some((line) => line.includes(id) && isLineOf(line, request))
}

const isMissing = ({ cause }: NotificationSink.SinkError): boolean =>
  (cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT"

const onStandardOutput: NotificationSink.NotificationSink["Service"] = {
  name,
  show: (resolved) => Effect.flatMap(Clock.currentTimeMillis, (now) => Console.log(jsonOf(resolved, now)))
}

const onFile = (file: string, lookBack: number) =>
  Effect.map(Semaphore.make(1), (turn): NotificationSink.NotificationSink["Service"] => ({
    name,
    show: (resolved) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        withFile(file, "a+", "appended to", (handle) => append(handle, jsonOf(resolved, now)))
      ).pipe(turn.withPermits(1)),
    isKnown: (request) =>
      withFile(file, READ, "looked for in", (handle) => knows(handle, request, lookBack)).pipe(
        Effect.catchIf(isMissing, () => Effect.succeed(false))
      )
  }))

/** Appends to a file, which only this user may read if it is made here, or to standard output. */
export const layer = ({
  file,
  lookBack = MAX_LOOK_BACK
}: JsonLinesOptions): Layer.Layer<NotificationSink.NotificationSink> =>
  Layer.effect(
    NotificationSink.NotificationSink,
    file === "-" ? Effect.succeed(onStandardOutput) : onFile(file, lookBack)
  )
