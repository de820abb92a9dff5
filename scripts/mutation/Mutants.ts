/**
 * The deliberate faults of the mutation check: each breaks a promise in one place, and some test must notice.
 *
 * Includes what the check needs to make each fault and to judge it. `find` stands exactly once in `file` (a test in
 * `test/repo` checks it), so that the list stays true as the code changes.
 *
 * Not here: how a fault is made and judged (`Trial.ts`), the command (`scripts/mutants.ts`).
 */

/** A numbered invariant, or that what is shown is what is stored (`view`). */
export type Promised = "I1" | "I2" | "I3" | "I4" | "I5" | "I6" | "I7" | "I8" | "I9" | "I10" | "view"

export interface Mutant {
  /** Says in words what is broken; unique. */
  readonly id: string
  /** From the root of the repository. */
  readonly file: string
  /** Stands exactly once in the file. */
  readonly find: string
  readonly replace: string
  readonly breaks: Promised
  /** Where it should be noticed: vitest project and test file, the surest and fastest first. */
  readonly tests: ReadonlyArray<string>
}

const actors = (...names: ReadonlyArray<string>) => names.map((name) => `actors packages/actors/test/${name}.test.ts`)
const core = (...names: ReadonlyArray<string>) => names.map((name) => `core packages/core/test/${name}.test.ts`)
const platform = (...names: ReadonlyArray<string>) =>
  names.map((name) => `platform packages/platform/test/${name}.test.ts`)

const LEASE = "packages/core/src/lease/Lease.ts"
const LEASE_MACHINE = "packages/core/src/lease/LeaseMachine.ts"
const SEMAPHORE = "packages/core/src/lease/DistributedSemaphore.ts"
const EXTENSION_MACHINE = "packages/core/src/sync/ExtensionLoopMachine.ts"
const MAIN_MACHINE = "packages/core/src/sync/MainLoopMachine.ts"
const POLICY = "packages/core/src/sync/SupervisionPolicy.ts"
const MEMORY = "packages/core/src/testing/SyncStoreMemory.ts"
const MEMORY_STATE = "packages/core/src/testing/SyncStoreMemoryState.ts"
const WIRE = "packages/core/src/matrix/SlidingSyncWireResponse.ts"
const TURN = "packages/actors/src/CryptoTurn.ts"
const BATCH = "packages/actors/src/ExtensionBatch.ts"
const RUNNER = "packages/actors/src/LoopRunner.ts"
const NOTIFICATIONS = "packages/actors/src/Notifications.ts"
const EXTENSION_TABLES = "packages/platform/src/sqlite/ExtensionTables.ts"
const LEASE_SQL = "packages/platform/src/sqlite/SqliteLeaseStore.ts"
const TWINLOOP = "packages/platform/src/Twinloop.ts"
const TOKENS = "packages/platform/src/http/SessionTokens.ts"
const PUSH_TABLES = "packages/platform/src/push/PushTables.ts"
const WORKER = "packages/platform/src/push/PushWorker.ts"
const OLM = "packages/platform/src/crypto/OlmCrypto.ts"

const ownership: ReadonlyArray<Mutant> = [
  {
    id: "sqlite-response-unfenced",
    file: EXTENSION_TABLES,
    find: "Fencing.check(transaction, fencing, fence) ?? checkSince(transaction, commit.sentSince)",
    replace: "checkSince(transaction, commit.sentSince)",
    breaks: "I1",
    tests: platform("SqliteStores")
  },
  {
    id: "sqlite-crypto-unfenced",
    file: EXTENSION_TABLES,
    find: `if (refusal !== undefined) return Result.fail(refusal)
  writeEngine(transaction, commit)
  return`,
    replace: `writeEngine(transaction, commit)
  return`,
    breaks: "I1",
    tests: platform("SqliteStores")
  },
  {
    id: "sqlite-expiry-unfenced",
    file: EXTENSION_TABLES,
    find: `if (refusal !== undefined) return Result.fail(refusal)
  transaction.run(clearPos)`,
    replace: "transaction.run(clearPos)",
    breaks: "I1",
    tests: platform("SqliteStores")
  },
  {
    id: "sqlite-fence-of-any-generation",
    file: LEASE_SQL,
    find: "SELECT 1 FROM lease WHERE name = ? AND holder = ? AND generation = ? LIMIT 1",
    replace: "SELECT 1 FROM lease WHERE name = ? AND holder = ? AND generation >= ? LIMIT 1",
    breaks: "I1",
    tests: platform("SqliteStores")
  },
  {
    id: "sqlite-renews-another's",
    file: LEASE_SQL,
    find: `lease_millis = ?
  WHERE name = ? AND holder = ? AND generation = ?`,
    replace: `lease_millis = ?
  WHERE name = ? AND (holder = ? OR 1) AND (generation = ? OR 1)`,
    breaks: "I1",
    tests: platform("SqliteStores")
  },
  {
    id: "memory-response-unfenced",
    file: MEMORY,
    find: "yield* checkFence(leases, fence)\n          return",
    replace: "return",
    breaks: "I1",
    tests: core("SyncStoreMemory")
  },
  {
    id: "memory-crypto-unfenced",
    file: MEMORY,
    find: `checkFence(leases, fence),
          Ref.update(database, (state) => State.commitCrypto(state, commit))`,
    replace: `Effect.void,
          Ref.update(database, (state) => State.commitCrypto(state, commit))`,
    breaks: "I1",
    tests: core("SyncStoreMemory")
  },
  {
    id: "push-worker-unfenced",
    file: PUSH_TABLES,
    find: "if (refusal !== undefined) return Result.fail(refusal)\n  transaction.run(sql",
    replace: "if (refusal === undefined || refusal) transaction.run(sql",
    breaks: "I1",
    tests: platform("push/PushQueue")
  },
  {
    id: "take-without-new-generation",
    file: LEASE,
    find: "first.generation : generationOf(table) + 1",
    replace: "first.generation : Math.max(1, generationOf(table))",
    breaks: "I1",
    tests: core("LeaseProperties")
  },
  {
    id: "take-unexpired",
    file: LEASE,
    find: "const takeable = rows.filter((row) => row.holder === holder || !isHeld(row, nowMillis) || isDead(request, row.holder))",
    replace: "const takeable = rows",
    breaks: "I1",
    tests: core("Lease")
  },
  {
    id: "part-of-a-grant-stands",
    file: LEASE,
    find: "rows: replaceRows(kept, granted), granted, generation",
    replace: "rows: replaceRows(table.rows, granted), granted, generation",
    breaks: "I1",
    tests: core("Lease")
  },
  {
    id: "one-holder-name-for-all",
    file: SEMAPHORE,
    find: "yield* makeLanes(`${config.role}#${yield* hex}${yield* hex}`, options.permits)",
    replace: "yield* makeLanes(config.role, options.permits)",
    breaks: "I1",
    tests: core("DistributedSemaphore")
  },
  {
    id: "renews-after-a-loss",
    file: LEASE_MACHINE,
    find: `? [{ _tag: "Lost", generation: state.generation, reason: "takenOver" }, []]`,
    replace: `? [state, [{ _tag: "RenewAfter", millis: config.renewMillis, asked: true }]]`,
    breaks: "I1",
    tests: core("LeaseMachine")
  },
  {
    id: "never-gives-up-unreachable",
    file: LEASE_MACHINE,
    find: "return isOver(config, state.expiresAtMillis, input.nowMillis)",
    replace: "return isOver(config, state.expiresAtMillis, 0)",
    breaks: "I1",
    tests: core("LeaseMachine")
  },
  {
    id: "work-goes-on-after-a-loss",
    file: SEMAPHORE,
    find: "Effect.raceFirst(self, Effect.flatMap(grant.lost, Effect.fail))",
    replace: "Effect.raceFirst(self, Effect.flatMap(Effect.andThen(Effect.never, grant.lost), Effect.fail))",
    breaks: "I1",
    tests: core("DistributedSemaphore")
  },
  {
    id: "loop-works-on-after-a-loss",
    file: EXTENSION_MACHINE,
    find: `return [next, [{ _tag: "AbortWork" }, { _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]`,
    replace: `return [next, [{ _tag: "DiscardMemory" }, { _tag: "ReleaseLock" }, ...commands]]`,
    breaks: "I1",
    tests: core("ExtensionLoopMachine")
  }
]

const queueing: ReadonlyArray<Mutant> = [
  {
    id: "clock-step-counts-as-a-lease",
    file: LEASE,
    find: "expiresAtMillis > nowMillis && expiresAtMillis <= nowMillis + lengthMillis + STALE_CLOCK_MILLIS",
    replace: "expiresAtMillis > nowMillis && lengthMillis >= 0",
    breaks: "I10",
    tests: core("Lease")
  },
  {
    id: "clock-step-keeps-a-lost-lease",
    file: LEASE_MACHINE,
    find: "nowMillis >= expiresAtMillis || expiresAtMillis - nowMillis > config.leaseMillis",
    replace: "nowMillis >= expiresAtMillis || config.leaseMillis < 0",
    breaks: "I1",
    tests: core("LeaseMachine")
  },
  {
    id: "hands-over-to-the-last",
    file: LEASE,
    find: "for (const waiter of current.waiters) {",
    replace: "for (const waiter of current.waiters.toReversed()) {",
    breaks: "I10",
    tests: core("Lease")
  },
  {
    id: "newcomer-passes-waiters",
    file: LEASE,
    find: "const mayPass = own.length >= count || aheadOf(live, holder) === undefined",
    replace: "const mayPass = own.length >= count || live.length >= 0",
    breaks: "I10",
    tests: core("Lease")
  },
  {
    id: "release-hands-nothing-over",
    file: LEASE,
    find: "const [next, handedTo] = handOver(freed, nowMillis, request.handoverMillis)",
    replace: "const [next, handedTo] = handOver({ ...freed, waiters: [] }, nowMillis, request.handoverMillis)",
    breaks: "I10",
    tests: core("Lease")
  },
  {
    id: "gives-up-without-leaving-the-queue",
    file: SEMAPHORE,
    find: "(Exit.isFailure(exit) ? leave(env, lane) : Effect.void)",
    replace: "(Exit.isFailure(exit) && lane.holder === `` ? leave(env, lane) : Effect.void)",
    breaks: "I4",
    tests: core("DistributedSemaphore")
  },
  {
    id: "no-signal-at-release",
    file: SEMAPHORE,
    find: `    yield* env.wake.notify(topic(fence.name))
  }).pipe(`,
    replace: "  }).pipe(",
    breaks: "I10",
    tests: core("DistributedSemaphore")
  },
  {
    id: "owner-never-yields",
    file: EXTENSION_MACHINE,
    find: "if (hold === undefined || hold.wanted || fenceOf(state)?.generation !== generation) return [state, []]",
    replace: "if (hold === undefined || hold.wanted || generation >= 0) return [state, []]",
    breaks: "I10",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "yields-in-the-middle-of-a-commit",
    file: EXTENSION_MACHINE,
    find: `    case "Resting":
    case "BackingOff":
      return true
    case "Sending":
      return before`,
    replace: `    case "Resting":
    case "BackingOff":
    case "Applying":
      return true
    case "Sending":
      return before`,
    breaks: "I2",
    tests: core("ExtensionLoopMachine")
  }
]

const exactlyOnce: ReadonlyArray<Mutant> = [
  {
    id: "sqlite-since-unchecked",
    file: EXTENSION_TABLES,
    find: "if (stored === sent) return undefined",
    replace: "if (stored === sent || stored !== undefined) return undefined",
    breaks: "I2",
    tests: platform("SqliteStores")
  },
  {
    id: "memory-since-unchecked",
    file: MEMORY_STATE,
    find: "if (state.position.since !== commit.sentSince) {",
    replace: "if (state.position.since === commit.sentSince && state.lastSequence < 0) {",
    breaks: "I2",
    tests: core("SyncStoreMemory")
  },
  {
    id: "sqlite-page-position-unchecked",
    file: "packages/platform/src/sqlite/RoomTables.ts",
    find: "if (stored !== sent)",
    replace: "if (stored !== sent && stored === undefined)",
    breaks: "I2",
    tests: platform("SqliteStores")
  },
  {
    id: "acknowledges-before-the-commit",
    file: BATCH,
    find: "const commit = store.commitExtension(fence, {",
    replace: `const inTwo = (whole: SyncStore.ExtensionCommit) => {
          const { since } = whole.position
          return Effect.andThen(
            store.commitExtension(fence, { ...whole, inbox: [], crypto: [], news: [], quarantined: [] }),
            store.commitExtension(fence, { ...whole, ...(since === undefined ? {} : { sentSince: since }) })
          )
        }
        const commit = inTwo({`,
    breaks: "I2",
    tests: actors("ExtensionSync")
  },
  {
    id: "acknowledges-what-was-sent-again",
    file: BATCH,
    find: "const since = toDevice?.nextBatch ?? sent.since",
    replace: "const since = sent.since",
    breaks: "I2",
    tests: actors("ExtensionSync")
  },
  {
    id: "late-answer-is-applied",
    file: EXTENSION_MACHINE,
    find: "return input.epoch === state.epoch ? polled(config, state, input) : [state, []]",
    replace: "return input.epoch <= state.epoch ? polled(config, state, input) : [state, []]",
    breaks: "I2",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "crypto-not-in-the-commit",
    file: OLM,
    find: "writes: loaded.machine.database.writes(),",
    replace: "writes: loaded.machine.database.writes().slice(1),",
    breaks: "I2",
    tests: platform("crypto/Conversation")
  },
  {
    id: "key-twice-in-a-batch-loses-the-better",
    file: OLM,
    find: "if (!hasTwins(processed)) return processed",
    replace: "if (!hasTwins(processed) || processed.length > 0) return processed",
    breaks: "I2",
    tests: platform("crypto/SameKeyTwice")
  },
  {
    id: "since-lost-at-expiry",
    file: EXTENSION_TABLES,
    find: "`UPDATE extension_position SET pos = NULL`",
    replace: "`UPDATE extension_position SET pos = NULL, since = NULL`",
    breaks: "I2",
    tests: platform("SqliteStores")
  },
  {
    id: "memory-since-lost-at-expiry",
    file: MEMORY_STATE,
    find: "return { ...state, position }",
    replace: "return { ...state, position: position.since === undefined ? position : {} }",
    breaks: "I2",
    tests: core("SyncStoreMemory")
  },
  {
    id: "inbox-passes-before-it-is-handled",
    file: "packages/actors/src/Inbox.ts",
    find: `yield* handler(entry)
              handled = entry.sequence`,
    replace: `handled = entry.sequence
              yield* handler(entry)`,
    breaks: "I2",
    tests: actors("Inbox")
  },
  {
    id: "inbox-deletes-what-is-unread",
    file: EXTENSION_TABLES,
    find: "sequence <= (SELECT MIN(sequence) FROM inbox_cursor) AND sequence <= ?",
    replace: "sequence <= (SELECT MAX(sequence) FROM inbox_cursor) AND sequence <= ?",
    breaks: "I2",
    tests: platform("SqliteStores")
  },
  {
    id: "one-time-keys-published-twice",
    file: "packages/actors/src/OutgoingRequests.ts",
    find: `yield* markSent(request, { one_time_key_counts: {} })
    if (deviceKeys === undefined)
      yield* homeserver.keys({ kind: "upload", body: { one_time_keys: oneTimeKeys } as MatrixEvent.JsonObject })`,
    replace: `if (deviceKeys === undefined)
      yield* homeserver.keys({ kind: "upload", body: { one_time_keys: oneTimeKeys } as MatrixEvent.JsonObject })
    yield* markSent(request, { one_time_key_counts: {} })`,
    breaks: "I2",
    tests: actors("CryptoTurn")
  },
  {
    id: "half-a-transaction-stays",
    file: "packages/platform/src/sqlite/SqliteClient.ts",
    find: `if (Result.isSuccess(result)) transaction.run("COMMIT")
    return result
  } finally {
    rollBack(db)
  }`,
    replace: `transaction.run("COMMIT")
    return result
  } finally {
    if (db.isTransaction) db.exec("COMMIT")
  }`,
    breaks: "I2",
    tests: platform("SqliteStores", "SqliteClient")
  },
  {
    id: "push-answered-before-it-is-durable",
    file: "packages/platform/src/push/PushGateway.ts",
    find: `const answers = yield* queue.accept([push]).pipe(
      Effect.catch((error) => Effect.flatMap(whyNot(error), Effect.fail)),
      Effect.timeoutOrElse({ duration: config.pushRequestMillis, orElse: () => Effect.fail(isSlow) })
    )`,
    replace: `const answers: ReadonlyArray<Answered> = push.devices.map((device) => ({ device, outcome: "accepted" }))
    yield* Effect.forkDetach(Effect.ignore(queue.accept([push])))`,
    breaks: "I2",
    tests: platform("push/PushGateway")
  },
  {
    id: "push-taken-twice",
    file: PUSH_TABLES,
    find: `if (rows.has(eventId) || isKnown(reader, eventId)) return "duplicate"`,
    replace: `if (rows.has(eventId)) return "duplicate"`,
    breaks: "I2",
    tests: platform("push/PushQueue")
  },
  {
    id: "push-removed-before-it-is-shown",
    file: WORKER,
    find: "yield* queue.begin(grant, [sequence])",
    replace: "yield* queue.done(grant, [sequence])",
    breaks: "I2",
    tests: platform("push/PushWorker")
  },
  {
    id: "push-shown-again-unasked",
    file: WORKER,
    find: "push.isRepeated && sink.isKnown !== undefined ?",
    replace: "push.attempts < 0 && sink.isKnown !== undefined ?",
    breaks: "I2",
    tests: platform("push/PushWorker")
  }
]

const loops: ReadonlyArray<Mutant> = [
  {
    id: "one-loop's-end-ends-the-other",
    file: RUNNER,
    find: "const isOver = (snapshot: Snapshot): boolean => !SyncServiceMachine.shouldRun(snapshot.intent)",
    replace: `const isOver = (snapshot: Snapshot): boolean =>
  !SyncServiceMachine.shouldRun(snapshot.intent) || snapshot.main._tag === "Failed" || snapshot.extension._tag === "Failed"`,
    breaks: "I3",
    tests: actors("SyncServiceFaults")
  },
  {
    id: "main-loop-waits-for-the-lock",
    file: RUNNER,
    find: "yield* Effect.forkIn(runMain(env), main)",
    replace: `const held = awaitSnapshot(env, ({ extension }) => extension._tag === "Syncing")
    yield* Effect.forkIn(Effect.andThen(held, runMain(env)), main)`,
    breaks: "I3",
    tests: actors("SyncServiceFaults")
  },
  {
    id: "network's-return-hurries-both-loops",
    file: RUNNER,
    find: "if (SyncServiceMachine.isOffline(extension)) yield*",
    replace: `if (extension._tag === "BackingOff") yield*`,
    breaks: "I3",
    tests: actors("SyncServiceFaults")
  },
  {
    id: "notifier-queues-for-the-lease",
    file: NOTIFICATIONS,
    find: "keeper.tryTake(dead).pipe(",
    replace: `Effect.map(
    dead.length < 0 ? keeper.tryTake(dead) : keeper.take(),
    (taken): DistributedSemaphore.TryTaken => ("_tag" in taken ? taken : { _tag: "Taken", grant: taken })
  ).pipe(`,
    breaks: "I3",
    tests: actors("NotificationKeys")
  },
  {
    id: "notifier-deaf-to-the-owner",
    file: NOTIFICATIONS,
    find: 'return sessions.length > 0 ? tell({ _tag: "KeysCommitted", sessions: new Set(sessions) }) : Effect.void',
    replace: "return Effect.void",
    breaks: "I3",
    tests: actors("NotificationKeys")
  }
]

const quiet: ReadonlyArray<Mutant> = [
  {
    id: "lease-kept-when-suspended",
    file: "packages/actors/src/LeaseKeeper.ts",
    find: "yield* Effect.addFinalizer(() => release)",
    replace: "yield* Effect.addFinalizer(() => (1 < 0 ? release : Effect.void))",
    breaks: "I4",
    tests: actors("SyncService")
  },
  {
    id: "lease-released-before-the-commit-ends",
    file: TURN,
    find: "return Effect.andThen(opened.close, semaphore.withPermit(Effect.void))",
    replace: "return Effect.asVoid(opened.close)",
    breaks: "I4",
    tests: actors("CryptoTurn")
  },
  {
    id: "key-of-another-unseen-while-the-lease-fails",
    file: "packages/actors/src/Notifications.ts",
    find: "Effect.forever(Effect.andThen(Effect.ignore(follow), rest))",
    replace: "Effect.never",
    breaks: "I7",
    tests: actors("NotificationFaults")
  },
  {
    id: "key-of-a-commit-that-seems-to-fail-unseen",
    file: "packages/core/src/notification/NotificationMachine.ts",
    find: 'return input.failure.class === "store"',
    replace: "return false",
    breaks: "I7",
    tests: core("NotificationMachine")
  },
  {
    id: "flush-goes-on-without-the-stream",
    file: "packages/actors/src/ExtensionSync.ts",
    find: 'const underGrant = ["lost", "wanted", "flush"] as const',
    replace: 'const underGrant = ["lost", "wanted"] as const',
    breaks: "I1",
    tests: actors("ExtensionSync")
  },
  {
    id: "nobody-flushes-for-who-is-shown",
    file: "packages/actors/src/ExtensionSync.ts",
    find: 'context.run("flush", env.requests.flushWanted)',
    replace: "Effect.void",
    breaks: "I9",
    tests: actors("ExtensionSync")
  },
  {
    id: "key-that-came-before-the-lease-unseen",
    file: "packages/core/src/notification/NotificationMachine.ts",
    find: 'case "LeaseTaken":\n    case "OwnerWatched"',
    replace: 'case "OwnerWatched"',
    breaks: "I7",
    tests: core("NotificationMachine")
  },
  {
    id: "dead-holder-forgotten-for-a-dead-waiter",
    file: "packages/core/src/notification/NotificationKeysMachine.ts",
    find: "[...dead, gone.dead].slice(-DEAD_KEPT)",
    replace: "[gone.dead]",
    breaks: "I10",
    tests: core("NotificationKeysMachine")
  },
  {
    id: "suspend-returns-at-once",
    file: "packages/actors/src/SyncService.ts",
    find: "LoopRunner.awaitSnapshot(env, ({ active }) => active.length === 0)",
    replace: "LoopRunner.awaitSnapshot(env, ({ active }) => active.length >= 0)",
    breaks: "I4",
    tests: actors("SyncService")
  },
  {
    id: "deadline-of-suspend-ignored",
    file: "packages/actors/src/SyncService.ts",
    find: "Effect.timeoutOption(Effect.andThen(awaitQuiet(env), again), deadline)",
    replace:
      "Effect.timeoutOption(Effect.andThen(awaitQuiet(env), again), `${Math.max(1, String(deadline).length)} hours`)",
    breaks: "I4",
    tests: actors("SyncServiceFaults")
  },
  {
    id: "store-polled-while-suspended",
    file: RUNNER,
    find: "yield* setActive(false)",
    replace: "yield* setActive(true)",
    breaks: "I4",
    tests: actors("TwoProcesses")
  },
  {
    id: "second-suspension-waits-for-nothing",
    file: "packages/actors/src/SyncService.ts",
    find: "const again = isInSession ? Effect.void : Effect.andThen(LoopRunner.quietAgain(env), awaitQuiet(env))",
    replace: "const again = Effect.void",
    breaks: "I4",
    tests: actors("SyncService", "SyncSim")
  },
  {
    id: "connections-stay-open",
    file: TWINLOOP,
    find: "suspend: http.quiet",
    replace: "suspend: Effect.void",
    breaks: "I4",
    tests: platform("TwinloopNotifications")
  },
  {
    id: "wake-up-socket-stays-open",
    file: TWINLOOP,
    find: "suspend: wake.close",
    replace: "suspend: Effect.void",
    breaks: "I4",
    tests: platform("TwinloopNotifications")
  },
  {
    id: "idle-connections-survive-the-closing",
    file: "packages/platform/src/http/HttpSockets.ts",
    find: "agents.http.destroy()",
    replace: "void agents.http",
    breaks: "I4",
    tests: platform("TwinloopNotifications")
  }
]

const dirtiness: ReadonlyArray<Mutant> = [
  {
    id: "no-reload-when-dirty",
    file: EXTENSION_MACHINE,
    find: "const [next, commands] = isDirty ? reload(fence, attempt, epoch)",
    replace: "const [next, commands] = isDirty && epoch < 0 ? reload(fence, attempt, epoch)",
    breaks: "I5",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "turn-trusts-dirty-memory",
    file: TURN,
    find: "owned = { grant, fence, loaded: !grant.isDirty }",
    replace: "owned = { grant, fence, loaded: true }",
    breaks: "I5",
    tests: actors("CryptoTurn")
  },
  {
    id: "turn-not-marked-dirty",
    file: TURN,
    find: "yield* current.grant.markDirty\n",
    replace: "\n",
    breaks: "I5",
    tests: actors("CryptoTurn")
  },
  {
    id: "failed-turn-leaves-memory-loaded",
    file: TURN,
    find: "current.loaded = false\n",
    replace: "\n",
    breaks: "I5",
    tests: actors("CryptoTurn")
  },
  {
    id: "dirty-only-once",
    file: SEMAPHORE,
    find: "(yield* Ref.get(lane.validGeneration)) !== held.generation",
    replace: "(yield* Ref.get(lane.validGeneration)) === undefined",
    breaks: "I5",
    tests: core("DistributedSemaphore")
  },
  {
    id: "memory-kept-after-a-failed-commit",
    file: EXTENSION_MACHINE,
    find: `return discards ? [next, commands] : [next, [{ _tag: "DiscardMemory" }, ...commands]]`,
    replace: `return discards ? [next, commands] : [next, commands]`,
    breaks: "I5",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "reader-shows-old-status",
    file: "packages/platform/src/crypto/OlmReader.ts",
    find: "status: usingFresh(",
    replace: "status: using(",
    breaks: "I5",
    tests: platform("crypto/OlmReader")
  }
]

const telling: ReadonlyArray<Mutant> = [
  {
    id: "keys-committed-without-news",
    file: BATCH,
    find: "          news,\n          quarantined",
    replace: "          quarantined",
    breaks: "I6",
    tests: actors("Timelines", "SyncSim")
  },
  {
    id: "rooms-published-before-the-commit",
    file: "packages/actors/src/MainSync.ts",
    find: `yield* env.store.commitMain(ingested.commit)
  yield* letOthers(response)
  yield* env.rooms.publish({
    changed: [...ingested.changed, ...ingested.ephemeral],
    lists: ingested.lists
  })`,
    replace: `yield* env.rooms.publish({
    changed: [...ingested.changed, ...ingested.ephemeral],
    lists: ingested.lists
  })
  yield* letOthers(response)
  yield* env.store.commitMain(ingested.commit)`,
    breaks: "I6",
    tests: actors("MainSync")
  },
  {
    id: "news-told-before-the-commit",
    file: TURN,
    find: `const result = yield* commit(current.fence, changed)
        yield* engine.committed
        if (changed.news.length > 0) yield* news.committed`,
    replace: `if (changed.news.length > 0) yield* news.committed
        const result = yield* commit(current.fence, changed)
        yield* engine.committed`,
    breaks: "I6",
    tests: actors("CryptoTurn")
  },
  {
    id: "push-told-as-done-while-it-waits",
    file: WORKER,
    find: `if (isWorthAnotherTry(resolved) && push.attempts + 1 < ATTEMPTS) {
    yield* putOff(env, push)
    return false`,
    replace: `if (isWorthAnotherTry(resolved) && push.attempts + 1 < ATTEMPTS) {
    yield* putOff(env, push)
    return true`,
    breaks: "I6",
    tests: platform("push/PushWorker")
  }
]

const input: ReadonlyArray<Mutant> = [
  {
    id: "malformed-event-dropped",
    file: WIRE,
    find: 'report(`an event of "${name}" can\'t be used: ${reason}`, event)\n    return false',
    replace: "return false",
    breaks: "I7",
    tests: core("SlidingSyncWire")
  },
  {
    id: "malformed-event-used",
    file: WIRE,
    find: "if (reason === undefined) return true\n",
    replace: "if (reason === undefined || name !== ``) return true\n",
    breaks: "I7",
    tests: core("SlidingSyncWire")
  },
  {
    id: "unknown-members-dropped",
    file: WIRE,
    find: "Object.fromEntries(Object.entries(object).filter(([key]) => !known.has(key)))",
    replace: "Object.fromEntries(Object.entries(object).filter(([key]) => known.has(key)))",
    breaks: "I7",
    tests: core("SlidingSyncWire")
  },
  {
    id: "to-device-quarantine-dropped",
    file: BATCH,
    find: "const quarantined = [...response.quarantined, ...value.quarantined]",
    replace: "const quarantined = [...value.quarantined]",
    breaks: "I7",
    tests: actors("ExtensionSync")
  },
  {
    id: "room-quarantine-dropped",
    file: "packages/core/src/sync/MainIngest.ts",
    find: "quarantined: [...response.quarantined] }",
    replace: "quarantined: [] }",
    breaks: "I7",
    tests: core("MainIngest")
  },
  {
    id: "poisonous-event-stops-the-stream",
    file: OLM,
    find: "(error) => batch.toDevice.length > 0 && mayBePoison(error),",
    replace: "(error) => batch.toDevice.length < 0 && mayBePoison(error),",
    breaks: "I7",
    tests: platform("crypto/Hostile")
  }
]

const recovery: ReadonlyArray<Mutant> = [
  {
    id: "chance-without-a-seed",
    file: SEMAPHORE,
    find: "const hex = Effect.map(Random.nextIntBetween(0, 2 ** 32), (n) =>",
    replace: "const hex = Effect.map(Effect.sync(() => Math.floor(Math.random() * 2 ** 32)), (n) =>",
    breaks: "I8",
    tests: core("DistributedSemaphore")
  },
  {
    id: "no-backoff",
    file: POLICY,
    find: "return Math.round(doubled / 2 + (doubled / 2) * random)",
    replace: "return Math.round(doubled * random * 0)",
    breaks: "I9",
    tests: core("SupervisionPolicy")
  },
  {
    id: "backoff-without-chance",
    file: POLICY,
    find: "return Math.round(doubled / 2 + (doubled / 2) * random)",
    replace: "return Math.round(random >= 0 ? doubled : 0)",
    breaks: "I9",
    tests: core("SupervisionPolicy")
  },
  {
    id: "retry-after-ignored",
    file: POLICY,
    find: "if (failure.retryAfterMillis === undefined) return",
    replace: "if (failure.retryAfterMillis === undefined || attempt >= 0) return",
    breaks: "I9",
    tests: core("SupervisionPolicy")
  },
  {
    id: "retry-after-not-read",
    file: "packages/platform/src/http/MatrixError.ts",
    find: "const wait = retryAfterMillis(refusal)",
    replace: "const wait = retryAfterMillis({ ...refusal, headers: {}, json: {} })",
    breaks: "I9",
    tests: platform("HttpHomeserver")
  },
  {
    id: "busy-store-is-the-end",
    file: POLICY,
    find: `StoreBusy: "store",`,
    replace: `StoreBusy: "storeTerminal",`,
    breaks: "I9",
    tests: core("SupervisionPolicy")
  },
  {
    id: "unknown-position-kept",
    file: MAIN_MACHINE,
    find: `        pos: undefined,
        count: undefined,`,
    replace: "        count: undefined,",
    breaks: "I9",
    tests: core("MainLoopMachine")
  },
  {
    id: "unknown-position-kept-in-the-store",
    file: EXTENSION_TABLES,
    find: "transaction.run(clearPos)",
    replace: "void clearPos",
    breaks: "I9",
    tests: platform("SqliteStores")
  },
  {
    id: "extension-position-not-expired",
    file: EXTENSION_MACHINE,
    find: `if (decision._tag === "Restart" && fence !== undefined && at.resume === "read") {`,
    replace: `if (decision._tag === "Restart" && fence !== undefined && at.resume === "lock") {`,
    breaks: "I9",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "position-moves-on-after-a-failed-page",
    file: MAIN_MACHINE,
    find: "return failed(config, { ...state.before, view: state.loop.view }, input)",
    replace: "return failed(config, state.loop, input)",
    breaks: "I9",
    tests: core("MainLoopMachine")
  },
  {
    id: "short-poll-aborted-by-the-window",
    file: MAIN_MACHINE,
    find: "const held = state.request.timeoutMillis > 0 && !state.aborting",
    replace: "const held = !state.aborting",
    breaks: "I9",
    tests: core("MainLoopMachine")
  },
  {
    id: "window-waits-for-the-long-poll",
    file: MAIN_MACHINE,
    find: `return held ? [{ ...next, aborting: true }, [{ _tag: "AbortPoll", epoch: state.loop.epoch }]] : [next, []]`,
    replace: "return held ? [{ ...next, aborting: true }, []] : [next, []]",
    breaks: "I10",
    tests: core("MainLoopMachine")
  },
  {
    id: "tokens-refreshed-without-the-lock",
    file: TOKENS,
    find: "yield* env.lock.serialize(refresh(env, failed, cause))",
    replace: "yield* refresh(env, failed, cause)",
    breaks: "I9",
    tests: platform("Refresh")
  },
  {
    id: "another's-new-token-ignored",
    file: TOKENS,
    find: "  if (!sameToken(stored.session, failed.session)) return yield* goOnWith(env, stored)",
    replace: "",
    breaks: "I9",
    tests: platform("Refresh")
  },
  {
    id: "crashed-loop-stays-down",
    file: "packages/actors/src/Supervised.ts",
    find: "yield* Effect.sleep(delayMillis)",
    replace: "yield* Effect.sleep(delayMillis * 1_000)",
    breaks: "I9",
    tests: actors("Supervised")
  }
]

const bounds: ReadonlyArray<Mutant> = [
  {
    id: "quarantine-without-end",
    file: "packages/platform/src/sqlite/QuarantineTable.ts",
    find: "if (things.length > 0) transaction.run(deleteOldest, kept)",
    replace: "if (things.length < 0) transaction.run(deleteOldest, kept)",
    breaks: "I10",
    tests: platform("SqliteStores")
  },
  {
    id: "inbox-without-end",
    file: EXTENSION_TABLES,
    find: "transaction.run(deleteRead, last - request.keep)",
    replace: "void [deleteRead, last - request.keep]",
    breaks: "I10",
    tests: platform("SqliteStores")
  },
  {
    id: "push-queue-without-end",
    file: PUSH_TABLES,
    find: "if (rows.size > 0 && waiting + rows.size > limit) return",
    replace: "if (rows.size < 0 && waiting + rows.size > limit) return",
    breaks: "I10",
    tests: platform("push/PushQueue")
  },
  {
    id: "mailbox-without-end",
    file: "packages/actors/src/Actor.ts",
    find: "Queue.bounded<Input>(options.mailboxCapacity)",
    replace: "Queue.unbounded<Input>()",
    breaks: "I10",
    tests: actors("Actor")
  },
  {
    id: "hot-loop-of-empty-answers",
    file: POLICY,
    find: "hastyAnswers <= HASTY_ANSWERS ? undefined :",
    replace: "hastyAnswers <= HASTY_ANSWERS * 1_000 ? undefined :",
    breaks: "I10",
    tests: core("ExtensionLoopMachine")
  },
  {
    id: "notification-without-a-deadline",
    file: NOTIFICATIONS,
    find: "yield* Effect.sleep(Math.max(0, deadlineMillis - (yield* Clock.currentTimeMillis)))",
    replace: "yield* Effect.sleep(60_000 + Math.max(0, deadlineMillis - (yield* Clock.currentTimeMillis)))",
    breaks: "I10",
    tests: actors("NotificationFaults")
  }
]

const showing: ReadonlyArray<Mutant> = [
  {
    id: "open-timeline-keeps-an-old-gap",
    file: "packages/actors/src/Rooms.ts",
    find: '`gap ${stored.prevBatch ?? ""}`',
    replace: '"gap"',
    breaks: "view",
    tests: actors("Timelines", "SyncSim")
  },
  {
    id: "moved-room-at-the-wrong-place",
    file: "packages/core/src/rooms/ListDiff.ts",
    find: "to: from < to ? to - 1 : to",
    replace: "to",
    breaks: "view",
    tests: core("ListDiff")
  },
  {
    id: "changed-room-not-told",
    file: "packages/core/src/rooms/ListDiff.ts",
    find: "return origin === -1 || survivors[origin] === entry",
    replace: "return origin === -1 || survivors[origin] !== undefined",
    breaks: "view",
    tests: core("ListDiff")
  },
  {
    id: "room-taken-from-its-new-place",
    file: "packages/core/src/rooms/RoomListMachine.ts",
    find: "const lookup = lookupIn(view.rooms)\n  const places",
    replace:
      "const lookup = (roomId: RoomId) => view.matching.findLast((room) => room.roomId < roomId)\n  const places",
    breaks: "view",
    tests: core("RoomListMachine")
  },
  {
    id: "indicator-hidden-while-it-fails",
    file: "packages/core/src/sync/SyncServiceMachine.ts",
    find: `state.main._tag === "Loading" || state.main._tag === "BackingOff" ? "Show" : "Hide"`,
    replace: `state.main._tag === "Loading" ? "Show" : "Hide"`,
    breaks: "view",
    tests: actors("SyncIndicator")
  },
  {
    id: "indicator-blinks",
    file: "packages/actors/src/SyncIndicator.ts",
    find: `indicator === "Show" ? showAfter : hideAfter`,
    replace: `indicator === "Show" ? 0 : hideAfter`,
    breaks: "view",
    tests: actors("SyncIndicator")
  }
]

/** Every fault. */
export const mutants: ReadonlyArray<Mutant> = [
  ...ownership,
  ...queueing,
  ...exactlyOnce,
  ...loops,
  ...quiet,
  ...dirtiness,
  ...telling,
  ...input,
  ...recovery,
  ...bounds,
  ...showing
]
