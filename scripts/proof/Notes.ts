/** What each part of the proof found, below its figures on the page: bugs that are fixed, and what it does not notice. */
import type { Notes } from "./Document.ts"

export const notes: Notes = {
  simulation: `Found and fixed (I4): a suspended service called itself quiet while a full disk had kept it from releasing its lease; a full disk kept a place in the queue of the
lease; a second suspension called itself quiet while a push was still being resolved. (I6) An open timeline kept the old token of a gap that had
moved. (I7) A process that had to wait to try the lease again did not look meanwhile for the key that another one had
brought; nor did one whose commit had seemed to fail look for what it had brought. (I4) A stopped service let a request for somebody's keys go on; one that was suspended while it was frozen said
a moment too early that it was quiet. (I10) A push
that met a dead owner and a dead process in the queue remembered one of them at a time, and tried the lease in a hot loop until one of their leases ran out. One checker did not
know of an outage that had begun before a process did. The schedules that showed them are in \`packages/actors/test/sim\`, and are played by \`npm test\`.`,
  mutants: `Of the first 98 faults seven were noticed by nothing, and got a test each.`,
  model: `Found nothing in the product, and the same search finds 19 wrong rules that are put in on purpose: a push that queues, a lease that is let go before the commit, memory
that is taken for loaded. \`test/repo/model.test.ts\` holds the model against the real actors, step by step. With \`--heavy\` come three configurations with up to 14.7 million
states each, in which nothing was found either, and a fourth that was never visited to its end.`,
  chaos: `Found and fixed: of a worker that was killed the daemon said that it could not be run. Found in Synapse, and written down in
[Troubleshooting notifications](../guides/notification-troubleshooting.md): after failures it waits for up to an hour, and then pushes twenty at a time. Planted on purpose, a
database without fence and \`since\` and a gateway that takes a push twice are noticed within three minutes. Not noticed are the missing fence alone, since \`since\` refuses
the same commits, and a worker that doesn't ask whether a push was shown; the deliberate faults above and \`test/processes/PushDaemon.test.ts\` are for these.`,
  schemas: `Found and fixed in the dev homeserver: a new profile was told to no room, a path that is asked by another method was answered 404 and not 405, and an
unknown field of a profile 200. In our client nothing.`,
  rust: `Found nothing in the dev homeserver. On Synapse as well, matrix-rust-sdk isn't told of a device that an invited user adds before joining.`,
  fuzz: `Found and fixed: an object as the version of a room ended the judging of a notification; one ciphertext was shown as two messages to whoever was sent it twice. The test of secrets
(\`test/processes/Secrets.test.ts\`) found a password in the words of a refusal that escaped it, and push keys in \`push list --json\`.`,
  soak: `Found nothing that grows. A thread that copies the log starts with the first 4 MB, which is a step and no slope: samples are compared among those with as many threads.`
}
