/** What each part of the proof found: bugs that are fixed, below its figures on the page. */
import type { Notes } from "./Document.ts"

export const notes: Notes = {
  simulation: `Found and fixed (I4): a suspended service called itself quiet while a full disk had kept it from releasing its lease; a full disk kept a place in the queue of the
lease; a second suspension called itself quiet while a push was still being resolved. Found and fixed (I6): an open timeline kept the old token of a gap that had
moved. The schedules that showed them are in \`packages/actors/test/sim\`, and are played by \`npm test\`.`,
  mutants: `Of the first hundred faults seven were noticed by nothing, and got a test each.`,
  model: `Found nothing in the product, and by the same search a good twenty wrong rules that were put in on purpose: a push that queues, a lease that is let go
before the commit, memory that is taken for loaded. \`test/repo/model.test.ts\` holds the model against the real actors, step by step.`,
  chaos: `Found and fixed: a full disk while a lease was released held a process for minutes; a worker that was killed was said not to have been run. Four faults that were planted
in turn (no fence and no \`since\`, a worker that doesn't ask what was shown, a gateway that takes a push twice, a key that is sent before it is committed) are noticed
within three minutes, and the fence alone is not: \`since\` refuses the same commits.`,
  schemas: `Found and fixed in the dev homeserver: a new profile was told to no room, a path that is asked by another method was answered 404 and not 405, and an
unknown field of a profile 200. In our client nothing.`,
  rust: `Found nothing in the dev homeserver. matrix-rust-sdk isn't told of a device that an invited user adds before he joins, on Synapse either.`,
  fuzz: `Found and fixed: one ciphertext could be shown as two messages, by whoever can send an event again under another id.`,
  soak: `Found nothing that grows. A thread that copies the log starts with the first 4 MB, which is a step and no slope: samples are compared among those with as many threads.`
}
