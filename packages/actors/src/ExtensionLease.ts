/**
 * The lease of the extension stream, once per process: whoever in a process reads the stream takes this one, since it knows
 * under which generation the process's memory is valid (invariant I5).
 *
 * Not here: keeping a grant (`LeaseKeeper.ts`), the semaphore itself (core's `DistributedSemaphore`).
 */
import { DistributedSemaphore, ExtensionLoopMachine, type LeaseStore, type Wake } from "@twinloop/core"
import { Context, Layer } from "effect"

export class ExtensionLease extends Context.Service<ExtensionLease, DistributedSemaphore.DistributedSemaphore>()(
  "@twinloop/actors/ExtensionLease"
) {
  static readonly layer: Layer.Layer<ExtensionLease, never, LeaseStore | Wake> = Layer.effect(
    ExtensionLease,
    DistributedSemaphore.make({ name: ExtensionLoopMachine.EXTENSION_LEASE, permits: 1 })
  )
}
