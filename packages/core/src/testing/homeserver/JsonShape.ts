/** Looking into JSON whose shape nobody vouches for. */
import { Predicate } from "effect"
import type { JsonObject } from "../../matrix/MatrixEvent.ts"

/** The object under a member, or an empty one. */
export const objectAt = (json: JsonObject, member: string): JsonObject => {
  const value = json[member]
  return Predicate.isObject(value) ? (value as JsonObject) : {}
}

/** The members that are objects. */
export const objects = (json: JsonObject): ReadonlyArray<readonly [string, JsonObject]> =>
  Object.entries(json).flatMap(([key, value]) =>
    Predicate.isObject(value) ? [[key, value as JsonObject] as const] : []
  )

/** Whether a value is an object whose members all are something. */
export const isRecordOf = (value: unknown, is: (member: unknown) => boolean): value is JsonObject =>
  Predicate.isObject(value) && Object.values(value).every(is)
