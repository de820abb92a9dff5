/**
 * What `npm run model -- --all` visits, and what each costs.
 */
import type { Bounds } from "./Explore.ts"

export interface Configuration {
  readonly name: string
  /** What isn't named is as in two applications without trouble, over three to-device events. */
  readonly bounds: Partial<Bounds>
  readonly fine?: boolean
  /** In words. */
  readonly costs: string
}

const pushed = { processes: 1, notifications: 1, pushes: 1 }

export const configurations: ReadonlyArray<Configuration> = [
  { name: "two", bounds: {}, costs: "" },
  { name: "two, one killed", bounds: { crashes: 1 }, costs: "" },
  { name: "two, one suspended", bounds: { suspends: 1 }, costs: "" },
  { name: "two, a call fails", bounds: { faults: 1 }, costs: "" },
  { name: "two, one in a hurry", bounds: { wishes: 1 }, costs: "" },
  { name: "two, one killed, one suspended", bounds: { crashes: 1, suspends: 1 }, costs: "" },
  { name: "two, one killed, a call fails", bounds: { crashes: 1, faults: 1 }, costs: "" },
  { name: "pushed, three events", bounds: { ...pushed, events: 3 }, costs: "" },
  { name: "pushed, one killed", bounds: { ...pushed, events: 2, crashes: 1 }, costs: "" },
  { name: "pushed, one suspended", bounds: { ...pushed, events: 2, suspends: 1 }, costs: "" },
  { name: "pushed, one in a hurry", bounds: { ...pushed, events: 2, wishes: 1 }, costs: "" },
  { name: "pushed, a call fails", bounds: { ...pushed, events: 1, faults: 1 }, costs: "" },
  { name: "pushed, all of it", bounds: { ...pushed, events: 1, crashes: 1, suspends: 1, wishes: 1 }, costs: "" },
  { name: "two and pushed", bounds: { ...pushed, processes: 2, events: 1 }, costs: "" }
]
