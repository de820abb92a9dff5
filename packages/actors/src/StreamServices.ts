/**
 * What a process has that reads the extension stream, with loops or without: its lease, the turns at its end-to-end machine,
 * what that wants sent, and its news. Whoever reads, sends or shows in a process shares them.
 *
 * Not here: the loops (`SyncService.ts`), notifications (`Notifications.ts`).
 */
import type { CryptoEngine, Homeserver, LeaseStore, SyncStore, Wake } from "@twinloop/core"
import { Layer } from "effect"
import { CryptoTurn } from "./CryptoTurn.ts"
import { EncryptionNews } from "./EncryptionNews.ts"
import { ExtensionLease } from "./ExtensionLease.ts"
import { OutgoingRequests } from "./OutgoingRequests.ts"

export type StreamServices = CryptoTurn | OutgoingRequests | EncryptionNews | ExtensionLease

/** The services over a process's ports. Nothing is taken or read until somebody wants it. */
export const layer: Layer.Layer<
  StreamServices,
  never,
  CryptoEngine.CryptoEngine | Homeserver.Homeserver | LeaseStore | SyncStore.SyncStore | Wake
> = OutgoingRequests.layer.pipe(
  Layer.provideMerge(CryptoTurn.layer),
  Layer.provideMerge(EncryptionNews.layer),
  Layer.provideMerge(ExtensionLease.layer)
)
