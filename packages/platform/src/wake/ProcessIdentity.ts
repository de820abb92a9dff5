/**
 * Names a process of this host for good, and tells whether it lives.
 *
 * A pid alone is reused; a pid with its start time is not. `startedAt` is `<place>.<start>`: the place stands for what the
 * start time counts from (on Linux the boot and the pid namespace), so that a process in another container or another boot
 * is never mistaken for a dead one here.
 *
 * Gotchas: a zombie is dead (it runs no code), although `kill(pid, 0)` still finds it. While a process is torn down, its
 * sockets close slightly before its state changes: `confirmDead` looks several times.
 *
 * Not here: watching a process (`WakeSocket.ts`). Death is a reason to take a lease early, never a proof of ownership: that
 * is the fence's work (invariant I1).
 */
import type { Lease } from "@twinloop/core"
import { Effect, Schedule } from "effect"
import { readFileSync, readlinkSync } from "node:fs"
import { sha256 } from "./Digest.ts"

/** `Unknown`: nothing can be said from here, since the process has no pid, or its pid counts in another place. */
export type Liveness = "Alive" | "Dead" | "Unknown"

/** A place and a start time within it. */
interface Moment {
  readonly place: string
  readonly start: string
}

/** What `read` gives, or `undefined` when the file or its process is absent or may not be read. */
const readOrUndefined = (read: () => string): string | undefined => {
  try {
    return read()
  } catch {
    // Absence is an answer here: the process is gone, or the platform has no /proc.
    return undefined
  }
}

const isLinux = process.platform === "linux"

/** 32 random bits of this boot, by the kernel's UUID for it. */
const bootBits = (): number =>
  Number.parseInt(
    readOrUndefined(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8"))?.slice(0, 8) ?? "0",
    16
  )

/** The number of the pid namespace, from a link such as `pid:[4026531836]`; namespaces of one boot differ in it. */
const namespaceBits = (): number =>
  Number(/\d+/.exec(readOrUndefined(() => readlinkSync("/proc/self/ns/pid")) ?? "")?.[0] ?? 0)

/**
 * Where pids and start times of this process count: one boot and one pid namespace on Linux, the host elsewhere. At most 8
 * characters, the same in all processes of the place.
 */
const place = isLinux ? ((bootBits() ^ namespaceBits()) >>> 0).toString(16) : process.platform

const parse = (startedAt: string): Moment => {
  const dot = startedAt.indexOf(".")
  return { place: startedAt.slice(0, dot), start: startedAt.slice(dot + 1) }
}

/** State and start time, by proc(5): fields 3 and 22; the command in field 2 may contain spaces and brackets. */
const readProc = (pid: number): { readonly start: string; readonly isZombie: boolean } | undefined => {
  const stat = readOrUndefined(() => readFileSync(`/proc/${pid}/stat`, "utf8"))
  if (stat === undefined) return undefined
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return { start: fields[19] ?? "", isZombie: fields[0] === "Z" || fields[0] === "X" }
}

/** The same from ps(1), in a fixed language and time zone, where there is no /proc; a start time has whole seconds there. */
const readPs = (pid: number): Effect.Effect<{ readonly start: string; readonly isZombie: boolean } | undefined> =>
  Effect.callback((resume) => {
    const env = { ...process.env, LC_ALL: "C", TZ: "UTC" }
    // Loaded here, since it takes 2 ms and Linux needs none of it.
    const { execFile } = process.getBuiltinModule("node:child_process")
    const child = execFile("ps", ["-o", "stat=,lstart=", "-p", `${pid}`], { env, timeout: 2_000 }, (error, stdout) => {
      const [stat, ...start] = stdout.trim().split(/\s+/)
      const found = error === null && stat !== undefined && start.length > 0
      resume(
        Effect.succeed(
          found ? { start: sha256(start.join(" ")).slice(0, 8), isZombie: stat.startsWith("Z") } : undefined
        )
      )
    })
    return Effect.sync(() => child.kill())
  })

const readProcess = (pid: number) => {
  if (isLinux) return Effect.sync(() => readProc(pid))
  return process.platform === "win32" ? Effect.undefined : readPs(pid)
}

/** Whether a pid is in use. A process of another user (`EPERM`) exists as well. */
const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/**
 * How others name a process of this place: its pid, and `startedAt` where the platform tells it (not on Windows).
 *
 * A process that doesn't exist has no `startedAt` either.
 */
export const of = (pid: number): Effect.Effect<Lease.Peer & { readonly pid: number }> =>
  Effect.map(readProcess(pid), (found) =>
    found === undefined ? { pid } : { pid, startedAt: `${place}.${found.start}` }
  )

/** How others name this process. */
export const self: Effect.Effect<Lease.Peer & { readonly pid: number }> = Effect.suspend(() => of(process.pid))

/** Whether a peer lives at this moment. */
export const check = Effect.fnUntraced(function* (peer: Lease.Peer): Effect.fn.Return<Liveness> {
  if (peer.pid === undefined) return "Unknown"
  const claimed = peer.startedAt === undefined ? undefined : parse(peer.startedAt)
  if (claimed !== undefined && claimed.place !== place) return "Unknown"
  if (!exists(peer.pid)) return "Dead"
  const found = yield* readProcess(peer.pid)
  // It existed a moment ago: either it ended in between, or the platform doesn't say more than that it exists.
  if (found === undefined) return exists(peer.pid) ? "Alive" : "Dead"
  if (found.isZombie) return "Dead"
  return claimed === undefined || claimed.start === found.start ? "Alive" : "Dead"
})

/** 1, 2, 4, 8, 16, 32 ms: a killed process is a zombie within 1–3 ms of the end of its streams, on a busy machine within 20. */
const teardown = Schedule.exponential("1 millis").pipe(Schedule.upTo({ times: 6 }))

/**
 * Whether a peer whose stream has ended is dead, giving a process that is being torn down about 60 ms to be so.
 *
 * `false` means that it lives, or that it can't be known.
 */
export const confirmDead = (peer: Lease.Peer): Effect.Effect<boolean> =>
  check(peer).pipe(
    Effect.repeat({ while: (liveness) => liveness === "Alive", schedule: teardown }),
    Effect.map((liveness) => liveness === "Dead")
  )
