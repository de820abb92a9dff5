/** A real Synapse for as long as a scope lasts. */
export { Synapse, type SynapseOptions } from "./Synapse.ts"
export * as SynapseApi from "./SynapseApi.ts"
export * as SynapseEnvironment from "./SynapseEnvironment.ts"
export * as SynapseError from "./SynapseError.ts"
