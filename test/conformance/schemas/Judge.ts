/**
 * A judge of what goes over the wire between a Matrix client and a homeserver: holds each request and each answer, as bytes,
 * against what the specification says of that endpoint, and keeps count of what it has judged.
 *
 * Of a request: the names and the values of its query, its content type, its JSON. Of an answer: its content type, whether its
 * status is documented, and its JSON. A status that isn't documented is right only by the rules for all endpoints: the standard
 * error response with one of the common error codes under its status ("Standard error response").
 *
 * Gotchas: an exchange is judged when its answer is there, so a request that is given up isn't. What a client asks to see it
 * refused is a tester's, whose requests are not judged.
 *
 * Not here: sliding sync (`SlidingSyncJudge.ts`), which findings are known and why (`Deviations.ts`).
 */
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js"
import type { Message } from "../../synapse/Wire.ts"
import type { JsonSchema } from "./JsonSchemas.ts"
import { fitting, type Operation } from "./Specification.ts"

/** Something that is not as the specification says. */
export interface Finding {
  readonly of: "request" | "answer"
  readonly client: string
  /** `GET /_matrix/client/versions` */
  readonly endpoint: string
  /** Of the answer. */
  readonly status: number
  readonly what: string
}

/** An exchange that was judged. */
export interface Judged {
  readonly client: string
  readonly method: string
  readonly path: string
  readonly endpoint: string
  readonly status: number
}

/** Endpoints beside the specification's: how they answer well is judged otherwise, and how they refuse by the common rules. */
export interface Other {
  readonly isAt: (method: string, path: string) => boolean
  /** Error codes of its own, each with its status. */
  readonly errors: { readonly [errcode: string]: number }
  /** What is wrong with the JSON of an answer with status 200. */
  readonly judge: (json: unknown) => ReadonlyArray<string>
}

export interface Options {
  readonly operations: ReadonlyArray<Operation>
  readonly others: ReadonlyArray<Other>
  /** Whether a path is served by some method: another one is answered otherwise than a path that isn't there. */
  readonly isServed: (path: string) => boolean
}

export interface Judge {
  /** Judges an exchange of a client. */
  readonly note: (client: string, message: Message) => void
  /** Each finding once, with how often it was made. */
  readonly findings: () => ReadonlyArray<Finding & { readonly times: number }>
  readonly judged: () => ReadonlyArray<Judged>
  /** How many requests were judged, of this client. */
  readonly requestsOf: (client: string) => number
}

/** Whoever asks badly on purpose. */
export const TESTER = "tester"

const STANDARD_ERROR: JsonSchema = {
  type: "object",
  properties: { errcode: { type: "string" }, error: { type: "string" } },
  required: ["errcode"]
}

/**
 * "These error codes can be returned by any API endpoint", with the statuses that the specification names them with; and the two
 * about parameters, which it defines without saying whose.
 */
const COMMON_ERRORS: { readonly [errcode: string]: ReadonlyArray<number> } = {
  M_INVALID_PARAM: [400],
  M_MISSING_PARAM: [400],
  M_BAD_JSON: [400],
  M_FORBIDDEN: [403],
  M_LIMIT_EXCEEDED: [429],
  M_MISSING_TOKEN: [401],
  M_NOT_FOUND: [404],
  M_NOT_JSON: [400],
  M_UNKNOWN: [400, 403, 500],
  M_UNKNOWN_TOKEN: [401],
  M_UNRECOGNIZED: [404, 405]
}

const OK = 200
const METHOD_NOT_ALLOWED = 405

const formats = { uri: (text: string) => URL.canParse(text) }
const bodies = new Ajv2020({ allErrors: true, formats })
const queries = new Ajv2020({ allErrors: true, formats, coerceTypes: "array" })

const compiled = new WeakMap<JsonSchema, ValidateFunction>()

const validatorOf = (ajv: Ajv2020, schema: JsonSchema): ValidateFunction => {
  const known = compiled.get(schema)
  if (known !== undefined) return known
  const validator = ajv.compile(schema)
  compiled.set(schema, validator)
  return validator
}

/** Where something is, without what differs from one answer to the next: ids, and places in arrays. */
const placeOf = ({ instancePath }: ErrorObject): string =>
  instancePath
    .split("/")
    .map((segment) => (/^\d+$|[@!$:]/.test(segment) ? "*" : segment))
    .join("/")

const words = (errors: ReadonlyArray<ErrorObject>): ReadonlyArray<string> => [
  ...new Set(errors.map((error) => `${placeOf(error) || "it"} ${error.message}${detailOf(error)}`))
]

const detailOf = ({ keyword, params }: ErrorObject): string =>
  keyword === "enum" ? `: ${JSON.stringify(params.allowedValues)}` : ""

/** What is wrong with a value, by a schema. */
export const whatIsWrong = (schema: JsonSchema, value: unknown): ReadonlyArray<string> => {
  const validator = validatorOf(bodies, schema)
  return validator(value) ? [] : words(validator.errors ?? [])
}

interface Json {
  readonly problems: ReadonlyArray<string>
  readonly value: unknown
}

const jsonOf = (bytes: Buffer, contentType: string | undefined): Json => {
  const mime = /^application\/json\s*(;|$)/.test(contentType ?? "")
    ? []
    : [`its content type is ${contentType ?? "not said"}`]
  try {
    return { problems: mime, value: JSON.parse(bytes.toString("utf8")) as unknown }
  } catch {
    return { problems: [...mime, "it is not JSON"], value: undefined }
  }
}

const queryOf = (url: string): { readonly [name: string]: unknown } => {
  const { searchParams } = new URL(url, "http://localhost")
  const names = [...new Set(searchParams.keys())]
  return Object.fromEntries(
    names.map((name) => {
      const values = searchParams.getAll(name)
      return [name, values.length === 1 ? values[0] : values]
    })
  )
}

const querySchemas = new WeakMap<Operation, JsonSchema>()

const querySchemaOf = (operation: Operation): JsonSchema => {
  const { query } = operation
  const schema = querySchemas.get(operation) ?? {
    type: "object",
    properties: Object.fromEntries(query.map((parameter) => [parameter.name, parameter.schema])),
    required: query.flatMap(({ name, required }) => (required ? [name] : []))
  }
  querySchemas.set(operation, schema)
  return schema
}

const wrongInQuery = (operation: Operation, url: string): ReadonlyArray<string> => {
  const given = queryOf(url)
  const unknown = Object.keys(given).filter((name) => operation.query.every((parameter) => parameter.name !== name))
  // It turns texts into what they stand for, in place.
  const validator = validatorOf(queries, querySchemaOf(operation))
  const wrong = validator({ ...given }) ? [] : words(validator.errors ?? [])
  return [...unknown.map((name) => `its query has "${name}"`), ...wrong.map((text) => `query: ${text}`)]
}

const wrongInBody = ({ body, bodyRequired }: Operation, { asked, headers }: Message): ReadonlyArray<string> => {
  if (asked.length === 0) return bodyRequired && body !== undefined ? ["it has no body"] : []
  const { problems, value } = jsonOf(asked, headers["content-type"])
  const isEmpty = JSON.stringify(value) === "{}"
  if (body === undefined) return isEmpty ? [] : [...problems, "it has a body"]
  return problems.length > 0 ? problems : whatIsWrong(body, value)
}

/** What is wrong with an answer whose status is documented nowhere. */
const wrongByCommonRules = (status: number, value: unknown): ReadonlyArray<string> => {
  const wrong = whatIsWrong(STANDARD_ERROR, value)
  if (wrong.length > 0) return [`the status ${status} is not documented`, ...wrong]
  const { errcode } = value as { readonly errcode: string }
  return COMMON_ERRORS[errcode]?.includes(status) === true
    ? []
    : [`the status ${status} is not documented for ${errcode}`]
}

const wrongInAnswer = ({ answers }: Operation, { answered, answerHeaders, status }: Message): ReadonlyArray<string> => {
  const { problems, value } = jsonOf(answered, answerHeaders["content-type"])
  if (problems.length > 0) return problems
  if (!answers.has(status)) return wrongByCommonRules(status, value)
  const wrong = whatIsWrong(answers.get(status) ?? STANDARD_ERROR, value)
  // A documented 401 asks for interactive authentication; a token that isn't known is refused by the same status.
  return wrong.length > 0 && wrongByCommonRules(status, value).length === 0 ? [] : wrong
}

/** The least that is wrong by any of the ways in which an endpoint is documented. */
const least = (
  operations: ReadonlyArray<Operation>,
  wrong: (operation: Operation) => ReadonlyArray<string>
): ReadonlyArray<string> => operations.map(wrong).toSorted((one, two) => one.length - two.length)[0] ?? []

const wrongWithOther = (
  { errors, judge }: Other,
  { answered, answerHeaders, status }: Message
): ReadonlyArray<string> => {
  const { problems, value } = jsonOf(answered, answerHeaders["content-type"])
  if (problems.length > 0 || status === OK) return [...problems, ...judge(value)]
  const { errcode = "" } = value as { readonly errcode?: string }
  return errors[errcode] === status ? [] : wrongByCommonRules(status, value)
}

/** What is wrong with the answer to a request that nothing is documented of. */
const wrongWithUnknown = ({ answered, answerHeaders, status }: Message, isServed: boolean): ReadonlyArray<string> => {
  const { problems, value } = jsonOf(answered, answerHeaders["content-type"])
  const expected = isServed ? METHOD_NOT_ALLOWED : 404
  const { errcode } = (value ?? {}) as { readonly errcode?: unknown }
  return status === expected && errcode === "M_UNRECOGNIZED"
    ? problems
    : [...problems, `it is answered by ${status} ${String(errcode)}, and not by ${expected} M_UNRECOGNIZED`]
}

/** A judge who has judged nothing yet. */
export const make = ({ isServed, operations, others }: Options): Judge => {
  const found = new Map<string, Finding & { readonly times: number }>()
  const judged: Array<Judged> = []
  const requests = new Map<string, number>()

  const report = (finding: Finding) => {
    const key = JSON.stringify(finding)
    found.set(key, { ...finding, times: (found.get(key)?.times ?? 0) + 1 })
  }

  const note: Judge["note"] = (client, message) => {
    const { method, status, url } = message
    const path = url.split("?")[0] ?? url
    const fits = fitting(
      operations.filter((operation) => operation.method === method),
      ({ template }) => template,
      path
    )
    const other = others.find(({ isAt }) => isAt(method, path))
    const endpoint = `${method} ${fits[0]?.template ?? path}`
    const tell = (of: Finding["of"], problems: ReadonlyArray<string>) => {
      for (const what of problems) report({ of, client, endpoint, status, what })
    }
    judged.push({ client, method, path, endpoint, status })
    if (other !== undefined) tell("answer", wrongWithOther(other, message))
    else if (fits.length === 0) tell("answer", wrongWithUnknown(message, isServed(path)))
    else {
      tell(
        "answer",
        least(fits, (operation) => wrongInAnswer(operation, message))
      )
      if (client === TESTER) return
      requests.set(client, (requests.get(client) ?? 0) + 1)
      tell(
        "request",
        least(fits, (operation) => [...wrongInQuery(operation, url), ...wrongInBody(operation, message)])
      )
    }
  }

  return {
    note,
    findings: () => [...found.values()],
    judged: () => judged,
    requestsOf: (client) => requests.get(client) ?? 0
  }
}
