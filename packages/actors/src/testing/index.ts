/** The test kit of the actors: simulated processes of one account on one host, in virtual time, and stories that are drawn from a seed. */
export { type Gate, makeGate } from "./Gate.ts"
export * as NotifierProcess from "./NotifierProcess.ts"
export * as ScriptedEngine from "./ScriptedEngine.ts"
export * as SimCheckers from "./SimCheckers.ts"
export * as Simulation from "./Simulation.ts"
export * as SyncSim from "./SyncSim.ts"
export { advance, settle } from "./Time.ts"
