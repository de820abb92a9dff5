import { peakMegabytes } from "../Memory.ts"

/** What a process that is measured from its start says when it has done its work: one line of JSON. */
export interface StartLine {
  readonly done: "synced" | "busy" | "shown"
  /** Rooms that it knows. */
  readonly rooms?: number
  /** To-device messages that it was given. */
  readonly messages?: number
  /** The most memory that it has had until then. */
  readonly peakMegabytes: number
}

/** Says it. Nothing is measured or formatted with more than Node has at its start. */
export const say = (line: Omit<StartLine, "peakMegabytes">): void => {
  const whole: StartLine = { ...line, peakMegabytes: peakMegabytes() }
  process.stdout.write(`${JSON.stringify(whole)}\n`)
}
