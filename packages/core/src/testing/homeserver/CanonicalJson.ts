/** JSON in which equal values have equal texts. Spec: appendices, "Canonical JSON". */
import { Predicate } from "effect"

const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1)

/** The text of a JSON value with its keys in order and no spaces: what signatures are made over, too. */
export const canonicalJson = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`
  if (!Predicate.isObject(value)) return JSON.stringify(value) ?? "null"
  const members = Object.entries(value).sort(byKey)
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(",")}}`
}
