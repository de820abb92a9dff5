/** Asking running processes how they are, and telling them to suspend, resume and stop. */
export * as ControlClient from "./ControlClient.ts"
export * as ControlProtocol from "./ControlProtocol.ts"
export * as ControlServer from "./ControlServer.ts"
