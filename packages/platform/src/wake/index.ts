/** Wake-ups between the processes of one database, and who those processes are. */
export * as ProcessIdentity from "./ProcessIdentity.ts"
export * as SocketDirectory from "./SocketDirectory.ts"
export * as WakeSocket from "./WakeSocket.ts"
