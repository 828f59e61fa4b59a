import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyTypeProvider,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { FastifyRouteSchemaDef } from 'fastify/types/schema.js'
import Type, { type Static, type TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { Fault } from '../../contracts/problems.ts'
import { lowerUuids } from '../../contracts/uuid.ts'
import { expectedText, fromText, type PlainSchema } from '../process/schema-text.ts'

interface TypeBoxProvider extends FastifyTypeProvider {
  validator: this['schema'] extends TSchema ? Static<this['schema']> : unknown
  serializer: this['schema'] extends TSchema ? Static<this['schema']> : unknown
}

/** Fastify, with the types of requests and responses derived from the TypeBox schemas of a route. */
export type HttpServer = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxProvider
>

type Values = Readonly<Record<string, unknown>>
type Verdict = { value: unknown } | { error: Fault }

/** The deepest nesting of a body that is accepted. No schema of ours is nearly as deep. */
const MAX_BODY_DEPTH = 16

/**
 * A validator compiler for Fastify that uses TypeBox. Values in a body are not coerced, and unknown fields
 * are rejected if the schema is closed. In path parameters, the query and headers, numbers and booleans are
 * parsed from text. Query parameters that the schema does not name are ignored, because proxies and clients
 * may add some. UUIDs are converted to lower case everywhere.
 */
export function compileValidator(route: FastifyRouteSchemaDef<TSchema>) {
  const schema = route.schema as PlainSchema
  const part = route.httpPart === 'querystring' ? 'query' : (route.httpPart ?? 'body')
  const validator = validatorOf(route.schema)

  return (input: unknown): Verdict => {
    const repeated = part === 'query' ? firstRepeated(input as Values) : undefined
    if (repeated !== undefined) {
      return rejected(`query/${repeated}`, `${repeated} occurs more than once`)
    }
    const value = part === 'body' ? lowerUuids(input) : readNamed(schema, input as Values)
    if (validator.Check(value)) {
      // Routes and hooks also use headers that no schema names.
      return { value: part === 'headers' ? { ...(input as Values), ...(value as Values) } : value }
    }
    if (part === 'body' && input === null) {
      if (Type.IsOptional(route.schema)) return { value: undefined }
      return rejected('body', 'the request must have a JSON body')
    }
    const [field, detail] = firstProblem(schema, validator.Errors(value))
    return rejected(`${part}${field}`, `${part}${field} ${detail}`)
  }
}

const validators = new WeakMap<TSchema, Validator>()

/** The validator of a schema. Each schema is compiled only once for all servers in this process. */
function validatorOf(schema: TSchema): Validator {
  const validator = validators.get(schema) ?? Compile(schema)
  validators.set(schema, validator)
  return validator
}

/** Parses a JSON body. An empty body is undefined. Throws a Fault if the body is invalid. */
export function parseJsonBody(bytes: Uint8Array): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw new Fault('MALFORMED_JSON', {}, error)
  }
  if (text.trim() === '') return undefined
  if (isNestedDeeper(text, MAX_BODY_DEPTH)) {
    const detail = `the body is nested deeper than ${MAX_BODY_DEPTH} levels`
    throw new Fault('VALIDATION_FAILED', { field: 'body', detail })
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Fault('MALFORMED_JSON', {}, error)
  }
}

/**
 * Checks the depth before the text is parsed, because JSON.parse takes milliseconds for a few kilobytes of
 * open brackets.
 */
function isNestedDeeper(json: string, levels: number): boolean {
  let depth = 0
  let inString = false
  for (let at = 0; at < json.length; at += 1) {
    const character = json[at]
    if (inString) {
      if (character === '\\') at += 1
      else if (character === '"') inString = false
    } else if (character === '"') inString = true
    else if (character === '[' || character === '{') depth += 1
    else if (character === ']' || character === '}') depth -= 1
    if (depth > levels) return true
  }
  return false
}

function rejected(field: string, detail: string): Verdict {
  return { error: new Fault('VALIDATION_FAILED', { field, detail }) }
}

function firstRepeated(query: Values): string | undefined {
  return Object.keys(query).find((name) => Array.isArray(query[name]))
}

/** Reads the values that the schema names from text. Missing values get their defaults. */
function readNamed({ properties }: PlainSchema, input: Values): unknown {
  if (properties === undefined) return input
  const values: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(properties)) {
    const text = Object.hasOwn(input, name) ? input[name] : undefined
    if (typeof text === 'string') values[name] = fromText(schema, lowerUuids(text))
    else if (text !== undefined) values[name] = text
    else if (schema.default !== undefined) values[name] = schema.default
  }
  return values
}

interface ValidationError {
  readonly keyword: string
  readonly instancePath: string
  readonly params: object
  readonly message: string
}

/**
 * The path of an invalid field and what is wrong with it. Unknown and missing fields are reported before
 * others.
 */
function firstProblem(schema: PlainSchema, errors: ValidationError[]): [string, string] {
  for (const { keyword, instancePath, params } of errors) {
    const names = params as { additionalProperties?: string[]; requiredProperties?: string[] }
    const unknown = keyword === 'additionalProperties' ? names.additionalProperties?.[0] : undefined
    if (unknown !== undefined) return [`${instancePath}/${unknown}`, 'is not a known field']
    const missing = keyword === 'required' ? names.requiredProperties?.[0] : undefined
    if (missing !== undefined) return [`${instancePath}/${missing}`, 'is required']
  }
  const error = errors[0]
  if (error === undefined) return ['', 'does not match its schema']
  const inner = schemaAt(schema, error.instancePath)
  return [error.instancePath, inner ? `must be ${expectedText(inner)}` : error.message]
}

/** The part of a schema that describes the value at a JSON pointer. Works through objects and lists. */
function schemaAt(schema: PlainSchema, pointer: string): PlainSchema | undefined {
  const steps = pointer.split('/').slice(1)
  return steps.reduce<PlainSchema | undefined>((at, step) => {
    const properties = at?.properties
    return properties && Object.hasOwn(properties, step) ? properties[step] : at?.items
  }, schema)
}
