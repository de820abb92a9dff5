/** The `twinloop` command. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Logger } from "effect"
import { CliOutput, Command } from "effect/cli"
import * as BrokenPipe from "./BrokenPipe.ts"
import { devCommand } from "./DevCommand.ts"
import { homeserverCommand } from "./HomeserverCommand.ts"
import { loginCommand } from "./LoginCommand.ts"
import { notifyCommand } from "./NotifyCommand.ts"
import { leaseCommand, resumeCommand, statusCommand, stopCommand, suspendCommand } from "./ProcessCommands.ts"
import { pushCommand } from "./PushCommands.ts"
import { pushDaemonCommand } from "./PushDaemonCommand.ts"
import { runCommand } from "./RunCommand.ts"
import * as UsageReport from "./UsageReport.ts"

const exitCodes = [
  "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not logged in or login refused; 4 the database can't be used;",
  "5 the homeserver can't be reached, lacks sliding sync, or its port is taken; 6 no process runs on the database;",
  "7 the story found a loss, a duplicate, a delay or an unreadable message; 8 a notification could not be shown",
  "whole; 130 and 143 ended at once by a second SIGINT or SIGTERM."
].join("\n")

const twinloop = Command.make("twinloop").pipe(
  Command.withDescription(
    `Keeps a Matrix account in sync from several processes: rooms on one loop, to-device messages on another.\n\n${exitCodes}`
  ),
  Command.withExamples([
    { command: "twinloop dev", description: "Play the whole story against an embedded homeserver" },
    { command: "twinloop login https://matrix.example.org --user alice", description: "Log in" },
    { command: "twinloop run", description: "Follow the account" },
    { command: "twinloop status", description: "Ask how it is, from another terminal" }
  ]),
  Command.withSubcommands([
    devCommand,
    homeserverCommand,
    loginCommand,
    runCommand,
    statusCommand,
    leaseCommand,
    suspendCommand,
    resumeCommand,
    stopCommand,
    notifyCommand,
    pushDaemonCommand,
    pushCommand
  ])
)

BrokenPipe.watch()

const json = process.argv.includes("--json")

Command.run(twinloop, { version: "0.1.0" }).pipe(
  Effect.catch(UsageReport.report(json)),
  Effect.provide(NodeServices.layer),
  Effect.provideService(CliOutput.Presenter, UsageReport.presenter),
  // Standard output belongs to the result, above all to JSON.
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
