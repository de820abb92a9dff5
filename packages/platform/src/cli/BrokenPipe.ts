/**
 * What a command does when nobody reads what it prints any more (`twinloop run | head -1`): it stops in order, as at SIGTERM.
 *
 * Node ignores SIGPIPE, and a stream's `error` that nobody listens to ends the process at once, with the lease still taken.
 */

/** Whoever listens to SIGTERM stops the process; nobody else has to know why. */
const stopInOrder = (): void => void process.emit("SIGTERM", "SIGTERM")

/**
 * Watches the standard streams for as long as the process lives. The end of standard output stops the process, once; without
 * standard error it goes on, and says nothing there.
 */
export const watch = (): void => {
  process.stdout.once("error", stopInOrder).on("error", () => {})
  process.stderr.on("error", () => {})
}
