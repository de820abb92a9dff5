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
  /** More than most machines have time for; visited with `--heavy` alone. */
  readonly isHeavy?: true
}

const pushed = { processes: 1, notifications: 1, pushes: 1 }

/** Figures of one core of a machine of which others used the rest; one that is idle takes about half as long. */
export const configurations: ReadonlyArray<Configuration> = [
  { name: "two", bounds: {}, costs: "300 thousand states, 9 s, 0.2 GB" },
  { name: "two, one killed", bounds: { crashes: 1 }, costs: "1.3 million states, 46 s, 0.5 GB" },
  { name: "two, one suspended", bounds: { suspends: 1 }, costs: "1 million states, 31 s, 0.4 GB" },
  { name: "two, a call fails", bounds: { faults: 1 }, costs: "3.4 million states, about 2 minutes, 1 GB" },
  { name: "two, one in a hurry", bounds: { wishes: 1 }, costs: "7.8 million states, 3 minutes, 1.2 GB", isHeavy: true },
  {
    name: "two, one killed, one suspended",
    bounds: { crashes: 1, suspends: 1 },
    costs: "4.7 million states, 3.5 minutes, 1.2 GB",
    isHeavy: true
  },
  {
    name: "two, one killed, a call fails",
    bounds: { crashes: 1, faults: 1 },
    costs: "14.7 million states, 9 minutes, 2 GB",
    isHeavy: true
  },
  { name: "pushed", bounds: { ...pushed, events: 1 }, costs: "300 thousand states, 7 s, 0.2 GB" },
  { name: "pushed, two events", bounds: { ...pushed, events: 2 }, costs: "1.7 million states, 30 s, 0.4 GB" },
  { name: "pushed, one killed", bounds: { ...pushed, events: 1, crashes: 1 }, costs: "1 million states, 24 s, 0.4 GB" },
  {
    name: "pushed, one suspended",
    bounds: { ...pushed, events: 1, suspends: 1 },
    costs: "800 thousand states, 18 s, 0.4 GB"
  },
  {
    name: "pushed, one in a hurry",
    bounds: { ...pushed, events: 1, wishes: 1 },
    costs: "2 million states, 37 s, 0.5 GB"
  },
  {
    name: "pushed, a call fails",
    bounds: { ...pushed, events: 1, faults: 1 },
    costs: "about 4 million states, 90 s, 1 GB"
  },
  {
    name: "pushed, three events",
    bounds: { ...pushed, events: 3 },
    costs: "about 5 million states, 2 minutes, 1 GB",
    isHeavy: true
  }
]
