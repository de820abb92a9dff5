/**
 * `notify`: the program that a push starts. The same as `twinloop notify`, with nothing loaded that it doesn't need.
 *
 * Gotchas: neither `effect/cli` nor the index of `@effect/platform-node` may come in by an import: each costs more time than
 * the program itself (`docs/guides/bundling.md`).
 *
 * Not here: what it does (`NotifyProcess.ts`).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import { Effect, Logger, Result } from "effect"
import * as BrokenPipe from "./BrokenPipe.ts"
import * as ExitCode from "./ExitCode.ts"
import * as NotifyInput from "./NotifyInput.ts"
import * as NotifyProcess from "./NotifyProcess.ts"

const args = process.argv.slice(2)

const misused = (message: string) =>
  new ExitCode.CommandFailed({
    message: `${message} See twinloop notify --help.`,
    exitCode: ExitCode.exitCodes.usage
  })

BrokenPipe.watch()

Effect.fromResult(Result.mapError(NotifyInput.parse(args), misused)).pipe(
  Effect.flatMap(NotifyProcess.run),
  Effect.catch(ExitCode.report(args.includes("--json"))),
  Effect.provide(NodeStdio.layer),
  // Standard output belongs to the result, above all to JSON.
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
