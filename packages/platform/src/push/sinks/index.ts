/** Where notifications are shown: adapters of core's port `NotificationSink`. */
export * as DesktopSink from "./DesktopSink.ts"
export * as JsonLinesSink from "./JsonLinesSink.ts"
export * as ManySinks from "./ManySinks.ts"
export * as SinkChoice from "./SinkChoice.ts"
export * as SinkRecord from "./SinkRecord.ts"
export * as TerminalSink from "./TerminalSink.ts"
export * as WebhookSink from "./WebhookSink.ts"
