/**
 * A real Synapse pushes to the push daemon on this host: what it pushes is shown once, whoever of the daemon and its worker is
 * killed when.
 *
 * Gotchas: Synapse pushes again after 1 s, and after twice as long each time that nobody is there, so nobody is away for long.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import { Synapse } from "../../packages/platform/src/synapse/Synapse.ts"
import * as KilledDaemons from "../processes/fixtures/KilledDaemons.ts"
import * as Pushed from "../processes/fixtures/PushedAccount.ts"
import * as TemporaryDatabase from "../processes/TemporaryDatabase.ts"
import * as Kit from "./ServiceKit.ts"

interface Scene {
  readonly account: Pushed.Owned
  readonly me: Kit.Person
  /** Says something to me; its event id. */
  readonly says: (body: string) => ReturnType<typeof Kit.say>
}

/** Anna's database, and Bert, who talks to her. */
const make = Effect.gen(function* () {
  const [me, bert] = [yield* Kit.newPerson("Anna"), yield* Kit.newPerson("Bert")]
  const roomId = yield* Kit.createJoined(bert, [me], { name: "Kitchen" })
  const database = yield* TemporaryDatabase.make
  yield* Kit.logIn(database, me.session)
  const account: Pushed.Owned = { database, program: yield* Pushed.bundled }
  const scene: Scene = { account, me, says: (body) => Kit.say(bert, roomId, body) }
  return scene
})

const push = ({ account }: Scene, command: string, ...args: ReadonlyArray<string>) =>
  Pushed.twinloop(["push", command, "--json", "--database", account.database, ...args])

const enable = (scene: Scene, url: string) => push(scene, "enable", "--url", url)

interface Pusher {
  readonly app_id: string
  readonly pushkey: string
  readonly data: { readonly url: string; readonly format?: string }
}

/** What Synapse has. */
const pushersOf = ({ me }: Scene) =>
  Effect.map(
    Kit.call(me, "GET", "/_matrix/client/v3/pushers"),
    ({ pushers }) => pushers as unknown as ReadonlyArray<Pusher>
  )

const setPusher = ({ me }: Scene, pusher: Pick<Pusher, "app_id" | "data">) =>
  Kit.ask(me, "POST", "/_matrix/client/v3/pushers/set", {
    kind: "http",
    pushkey: "a key that nobody knows",
    app_display_name: "Other",
    device_display_name: "Other",
    lang: "en",
    append: true,
    ...pusher
  })

/** Waits for something that Synapse does after it has been answered. */
const untilPushers = (scene: Scene, appIds: ReadonlyArray<string>) =>
  Effect.repeat(pushersOf(scene), {
    until: (pushers) => pushers.length === appIds.length && pushers.every(({ app_id }) => appIds.includes(app_id)),
    schedule: Schedule.spaced("20 millis")
  }).pipe(
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.flatMap(pushersOf(scene), (last) => Effect.die(`pushers: ${JSON.stringify(last)}`))
    })
  )

/** Daemons that are killed, each with two of its workers where it comes to that; every other one may kill itself first. */
const LIVES = 14
const EVENTS = 100
const NOTIFY = "/_matrix/push/v1/notify"

describe("the push daemon on Synapse", () => {
  const synapse = Layer.provideMerge(Synapse.layer({ config: { bcrypt_rounds: 4 } }), NodeServices.layer)

  layer(synapse, { excludeTestServices: true, timeout: "10 minutes" })((it) => {
    it.effect("is given what Synapse pushes from enable to disable", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const { account, says } = scene
        yield* says("too early")
        const { daemon, url } = yield* Pushed.startDaemon(account)
        assert.deepInclude(yield* enable(scene, url), { exitCode: 0, errors: "" })
        const [pusher] = yield* pushersOf(scene)
        assert.deepInclude(pusher, { app_id: "org.twinloop", data: { url, format: "event_id_only" } })

        const eventId = yield* says("dinner is ready")
        const { line } = yield* daemon.until("tell of it", (said) => "eventId" in said)
        assert.deepInclude(line, { eventId, result: "Event", title: "Kitchen", body: "Bert: dinner is ready" })
        assert.strictEqual(yield* KilledDaemons.untilShown(account, 1), 1)
        const [list] = (yield* push(scene, "list")).lines
        assert.deepInclude(list, { missing: [] })
        assert.deepInclude((list as { pushers: ReadonlyArray<object> }).pushers[0], { url, isOurs: true })

        assert.deepInclude(yield* push(scene, "disable"), { exitCode: 0, errors: "" })
        assert.deepStrictEqual(yield* pushersOf(scene), [])
        yield* says("nobody hears it")
        // From here on again: what was said between is none of this pusher's.
        yield* enable(scene, url)
        const last = yield* says("heard again")
        yield* KilledDaemons.untilShown(account, 2)
        assert.deepStrictEqual(
          (yield* Pushed.shown(account)).map((shown) => shown.eventId),
          [eventId, last]
        )
        yield* daemon.signal("SIGTERM")
        assert.strictEqual(yield* daemon.ended, 0, yield* daemon.errors)
      })
    )

    it.effect("refuses the paths that Synapse refuses, and says which one it takes", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const url = "http://127.0.0.1:9/push"
        const refused = yield* enable(scene, url)
        assert.strictEqual(refused.exitCode, 2)
        assert.include(refused.errors, NOTIFY)
        const { json, status } = yield* setPusher(scene, { app_id: "org.example.other", data: { url } })
        assert.strictEqual(status, 400)
        assert.match(JSON.stringify(json), /Config Error.*\/_matrix\/push\/v1\/notify/)
        assert.deepStrictEqual(yield* pushersOf(scene), [])
        // What the command makes of an address without a path is what Synapse takes.
        assert.strictEqual((yield* enable(scene, "http://127.0.0.1:9")).exitCode, 0)
        assert.strictEqual((yield* pushersOf(scene))[0]?.data.url, `http://127.0.0.1:9${NOTIFY}`)
      })
    )

    it.effect("has Synapse delete the pusher whose push key it rejects, and says so", () =>
      Effect.gen(function* () {
        const scene = yield* make
        const { account, says } = scene
        const file = yield* KilledDaemons.daemonFile
        const { url } = yield* KilledDaemons.start(file, account, { port: 0, worker: KilledDaemons.workerOf(account) })
        yield* enable(scene, url)
        yield* setPusher(scene, { app_id: "org.example.other", data: { url } })
        assert.strictEqual((yield* pushersOf(scene)).length, 2)
        const eventId = yield* says("dinner is ready")
        yield* untilPushers(scene, ["org.twinloop"])
        yield* KilledDaemons.untilShown(account, 1)

        // Its own pusher is set with a key that the daemon doesn't know any more.
        const forgotten = "DELETE FROM push_registration"
        const [before] = yield* pushersOf(scene)
        yield* TemporaryDatabase.run(account.database, forgotten)
        yield* says("is anybody there?")
        yield* untilPushers(scene, [])
        yield* enable(scene, url)
        const [after] = yield* pushersOf(scene)
        assert.notStrictEqual(after?.pushkey, before?.pushkey)
        const last = yield* says("dinner is cold")
        yield* KilledDaemons.untilShown(account, 2)
        assert.deepStrictEqual(
          (yield* Pushed.shown(account)).map((shown) => shown.eventId),
          [eventId, last]
        )
      })
    )

    it.effect(
      "I2, I6: shows each event once, whichever of the daemon and its worker is killed at whatever moment",
      () =>
        Effect.gen(function* () {
          const scene = yield* make
          const { account, says } = scene
          const file = yield* KilledDaemons.daemonFile
          const worker = KilledDaemons.workerOf(account)
          const dyingWorker = KilledDaemons.workerOf(account, KilledDaemons.dyingAsItWrites)
          const { daemon: first, port, url } = yield* KilledDaemons.start(file, account, { port: 0, worker })
          assert.strictEqual((yield* enable(scene, url)).exitCode, 0)
          yield* first.signal("SIGKILL")
          yield* first.ended

          const sent: Array<string> = []
          const kills: { [whom in KilledDaemons.Kill]: number } = {
            daemon: 0,
            worker: 0,
            "worker at a notification": 0
          }
          const say = Effect.suspend(() => Effect.map(says(`event ${sent.length}`), (eventId) => sent.push(eventId)))
          const order: ReadonlyArray<KilledDaemons.Kill> = ["worker at a notification", "worker", "daemon"]
          for (let life = 0; life < LIVES; life++) {
            const { daemon } = yield* KilledDaemons.start(
              file,
              account,
              { port, worker: dyingWorker },
              life % 2 === 0 ? KilledDaemons.dyingAsItAnswers : []
            )
            const before = yield* KilledDaemons.taken(account)
            yield* say
            // Once it is reached, Synapse waits for 1 s again.
            const reached = TemporaryDatabase.until("a push", KilledDaemons.taken(account), (count) => count > before)
            yield* Effect.raceFirst(reached, daemon.ended)
            for (const whom of order) {
              yield* Effect.replicateEffect(say, 2)
              if (!KilledDaemons.isAlive(daemon.pid)) break
              if (yield* KilledDaemons.kill(daemon, account, whom)) kills[whom]++
            }
          }
          while (sent.length < EVENTS) yield* say
          yield* KilledDaemons.start(file, account, { port, worker })
          // Synapse waits before it pushes again.
          yield* Effect.retry(KilledDaemons.untilShown(account, EVENTS).pipe(Effect.catchDefect(Effect.fail)), {
            times: 3
          })
          yield* KilledDaemons.untilEmpty(account)
          const shown = (yield* Pushed.shown(account)).map(({ eventId }) => eventId)
          const { daemon, worker: random, "worker at a notification": writing } = kills
          const answering = LIVES - daemon
          console.log(
            `killed: ${daemon} daemons, ${answering} as they answered, ${random} workers, ${writing} as they wrote; ${shown.length} events shown`
          )
          assert.isAtLeast(LIVES + random + writing, 20)
          // Sequences aren't used twice: each event was in the queue once, however often it was pushed.
          const sequences = "SELECT seq FROM sqlite_sequence WHERE name = 'push_queue'"
          assert.deepEqual(yield* TemporaryDatabase.all(account.database, sequences), [{ seq: EVENTS }])
          assert.isAbove(writing, 0)
          assert.sameMembers(shown, sent)
          assert.strictEqual(new Set(shown).size, shown.length)
        })
    )
  })
})
