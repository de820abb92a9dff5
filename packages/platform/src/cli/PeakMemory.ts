/**
 * How much memory this process has had at most.
 *
 * Gotchas: on Linux `getrusage` counts the memory of the process that started this one, until that had become this program;
 * the kernel's own account of this program (`VmHWM`) doesn't.
 */
import { readFileSync } from "node:fs"

const fromKernel = (): number | undefined => {
  try {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1024
  } catch {
    // Not Linux.
    return undefined
  }
}

/** Bytes of resident memory, at its peak until now. */
export const peakRssBytes = (): number => fromKernel() ?? process.resourceUsage().maxRSS * 1024
