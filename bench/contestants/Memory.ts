/** How much memory a process has had. */
import { readFileSync } from "node:fs"

/**
 * The most memory that this process has had, in megabytes.
 *
 * Gotchas: on Linux a child begins as a copy of its parent, and its `maxRSS` never forgets how large that was; `VmHWM`
 * begins with the program.
 */
export const peakMegabytes = (): number => {
  const status = process.platform === "linux" ? readFileSync("/proc/self/status", "utf8") : ""
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? process.resourceUsage().maxRSS
  return (Number(kilobytes) * 1_024) / 1e6
}
