/**
 * JSON schemas from TypeScript declarations: the types of the specification's own package, which are made from its OpenAPI
 * documents, turned back into what a validator understands.
 *
 * Understands exactly what openapi-typescript writes; anything else is an error, so that nothing is silently let through.
 *
 * Gotchas: an object may have members that its type doesn't name, as in OpenAPI. `Record<string, never>` stands for an object
 * of which nothing more is known. A number is an integer only where the comment before its member says so; patterns and bounds
 * are lost on the way to TypeScript.
 *
 * Not here: which types there are (`Specification.ts`).
 */
import { parseAst } from "rolldown/parseAst"

/** A schema of JSON Schema 2020-12. */
export interface JsonSchema {
  readonly [keyword: string]: unknown
}

type Program = ReturnType<typeof parseAst>
type Declared = Extract<NonNullable<Declaration>, { readonly type: "TSInterfaceDeclaration" }>
type Declaration = Extract<Program["body"][number], { readonly type: "ExportNamedDeclaration" }>["declaration"]
type Signature = Declared["body"]["body"][number]

/** A type as it is written. */
export type Type = NonNullable<
  Extract<Signature, { readonly type: "TSPropertySignature" }>["typeAnnotation"]
>["typeAnnotation"]

/** A member of an object type. */
export interface Member {
  readonly name: string
  readonly type: Type
  readonly optional: boolean
  /** The text before it, which is its comment. */
  readonly comment: string
}

/** Declarations of one file. */
export interface Declarations {
  /** The members of an exported interface. */
  readonly interfaceOf: (name: string) => ReadonlyArray<Member>
  /** The members of an object type; none of any other. */
  readonly membersOf: (type: Type | undefined) => ReadonlyArray<Member>
  /** The schema that a type stands for. */
  readonly schemaOf: (type: Type) => JsonSchema
}

/** What stands in the brackets of `operations["name"]`; nothing for any other type. */
export const indexOf = (type: Type): string | undefined =>
  type.type === "TSIndexedAccessType" &&
  type.indexType.type === "TSLiteralType" &&
  type.indexType.literal.type === "Literal"
    ? String(type.indexType.literal.value)
    : undefined

const isUndefined = (type: Type): boolean => type.type === "TSUndefinedKeyword"

const cannot = (what: string): never => {
  throw new Error(`the declarations have what is not understood: ${what}`)
}

/** The literal that a type consists of, in an array; none if it is something else. */
const literalOf = (type: Type): ReadonlyArray<unknown> =>
  type.type === "TSLiteralType" && type.literal.type === "Literal" ? [type.literal.value] : []

const keyOf = (signature: Extract<Signature, { readonly type: "TSPropertySignature" }>): string => {
  const { key } = signature
  if (key.type === "Identifier") return key.name
  return key.type === "Literal" ? String(key.value) : cannot(`a key that is a ${key.type}`)
}

const membersIn = (source: string, signatures: ReadonlyArray<Signature>, start: number): ReadonlyArray<Member> => {
  let end = start
  return signatures.flatMap((signature): ReadonlyArray<Member> => {
    const comment = source.slice(end, signature.start)
    end = signature.end
    if (signature.type !== "TSPropertySignature") return []
    const { optional, typeAnnotation } = signature
    if (typeAnnotation === null) return cannot(`a member without a type: ${keyOf(signature)}`)
    return [{ name: keyOf(signature), type: typeAnnotation.typeAnnotation, optional, comment }]
  })
}

const annotated = (schema: JsonSchema, comment: string): JsonSchema => {
  if (schema.type === "number" && /Format: int(32|64)/.test(comment)) return { type: "integer" }
  if (schema.type === "string" && comment.includes("Format: uri")) return { type: "string", format: "uri" }
  return schema
}

const unionOf = (types: ReadonlyArray<Type>, schemaOf: (type: Type) => JsonSchema): JsonSchema => {
  const literals = types.flatMap(literalOf)
  if (literals.length === types.length) return { enum: literals }
  return { anyOf: types.filter((type) => !isUndefined(type)).map(schemaOf) }
}

/** Reads declarations. Fails, by throwing, on what can't be understood. */
export const read = (source: string, filename: string): Declarations => {
  const { body } = parseAst(source, { lang: "dts" }, filename)
  const interfaces = new Map(
    body.flatMap((statement): ReadonlyArray<readonly [string, Declared]> =>
      statement.type === "ExportNamedDeclaration" && statement.declaration?.type === "TSInterfaceDeclaration"
        ? [[statement.declaration.id.name, statement.declaration]]
        : []
    )
  )

  const membersOf: Declarations["membersOf"] = (type) =>
    type?.type === "TSTypeLiteral" ? membersIn(source, type.members, type.start) : []

  const objectOf = (type: Extract<Type, { readonly type: "TSTypeLiteral" }>): JsonSchema => {
    const members = membersOf(type)
    const others = type.members.find((signature) => signature.type === "TSIndexSignature")
    return {
      type: "object",
      properties: Object.fromEntries(
        members.map(({ comment, name, type: member }) => [name, annotated(schemaOf(member), comment)])
      ),
      required: members.flatMap(({ name, optional }) => (optional ? [] : [name])),
      ...(others !== undefined && { additionalProperties: schemaOf(others.typeAnnotation.typeAnnotation) })
    }
  }

  const schemaOf: Declarations["schemaOf"] = (type) => {
    switch (type.type) {
      case "TSStringKeyword":
        return { type: "string" }
      case "TSNumberKeyword":
        return { type: "number" }
      case "TSBooleanKeyword":
        return { type: "boolean" }
      case "TSNullKeyword":
        return { type: "null" }
      case "TSUnknownKeyword":
        return {}
      case "TSLiteralType":
        return { enum: literalOf(type) }
      case "TSArrayType":
        return { type: "array", items: schemaOf(type.elementType) }
      case "TSParenthesizedType":
        return schemaOf(type.typeAnnotation)
      case "TSUnionType":
        return unionOf(type.types, schemaOf)
      case "TSIntersectionType":
        return { allOf: type.types.map(schemaOf) }
      case "TSTypeLiteral":
        return objectOf(type)
      case "TSTypeReference":
        return type.typeName.type === "Identifier" && type.typeName.name === "Record"
          ? { type: "object" }
          : cannot(source.slice(type.start, type.end))
      default:
        return cannot(`${type.type}: ${source.slice(type.start, type.end)}`)
    }
  }

  return {
    interfaceOf: (name) => {
      const declared = interfaces.get(name)
      return declared === undefined
        ? cannot(`no interface ${name}`)
        : membersIn(source, declared.body.body, declared.body.start)
    },
    membersOf,
    schemaOf
  }
}
