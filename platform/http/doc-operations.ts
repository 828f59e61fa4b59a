import type { FastifySchema } from 'fastify'
import Type from 'typebox'
import { PROBLEMS, type ProblemCode } from '../../contracts/problems.ts'
import { PROBLEM_TYPE } from './problems.ts'

declare module 'fastify' {
  interface FastifySchema {
    /** Problems of this route, besides those that any request with the same method can get. */
    problems?: readonly ProblemCode[]
    /**
     * The headers of a successful response, as a schema for each name. `x-next-cursor` is added
     * automatically.
     */
    responseHeaders?: Readonly<Record<string, object>>
  }
}

/** The members of an OpenAPI operation that are completed here. */
export interface Operation {
  operationId?: string
  tags?: string[]
  parameters?: object[]
  requestBody?: { required: boolean }
  responses: Record<string, Response>
}

interface Response {
  description: string
  headers?: Record<string, object>
  content?: Record<string, { schema: object }>
}

const PROBLEMS_OF_ANY_REQUEST: readonly ProblemCode[] = [
  'VALIDATION_FAILED',
  'REQUEST_TIMEOUT',
  'URI_TOO_LONG',
  'MISDIRECTED_REQUEST',
  'TOO_MANY_REQUESTS',
  'HEADERS_TOO_LARGE',
  'INTERNAL',
  'SERVICE_UNAVAILABLE',
]

/** The problems of all methods except GET. They read a request's body even if the route does not use it. */
const PROBLEMS_OF_CHANGES: readonly ProblemCode[] = [
  'CROSS_SITE_REQUEST',
  'MALFORMED_JSON',
  'BODY_TOO_LARGE',
  'UNSUPPORTED_MEDIA_TYPE',
]

/** The `components` of the OpenAPI document that operations refer to. */
export const SHARED_COMPONENTS = {
  parameters: {
    traceparent: {
      name: 'traceparent',
      in: 'header',
      description: 'W3C trace context; continued for trusted callers, and linked for others',
      schema: { type: 'string' },
    },
    'x-request-id': {
      name: 'x-request-id',
      in: 'header',
      description:
        'the id of the request in logs; it is replaced unless it is 1 to 128 letters, digits, or any of _ . -',
      schema: { type: 'string' },
    },
  },
  headers: {
    'x-request-id': { description: 'the id of the request', schema: { type: 'string' } },
    'x-next-cursor': {
      description: 'the cursor of the next page; absent on the last one',
      schema: { type: 'string' },
    },
    'retry-after': {
      description: 'seconds to wait before a retry; absent if a retry cannot help',
      schema: { type: 'string', pattern: '^[0-9]+$' },
    },
  },
} as const

const REQUEST_ID = { 'x-request-id': { $ref: '#/components/headers/x-request-id' } }
const NEXT_CURSOR = { 'x-next-cursor': { $ref: '#/components/headers/x-next-cursor' } }
const RETRY_AFTER = { 'retry-after': { $ref: '#/components/headers/retry-after' } }

/**
 * Adds the details to an operation that follow from the schema of its route: optional bodies, headers, and
 * problems.
 */
export function completeOperation(
  method: string,
  operation: Operation,
  schema: FastifySchema,
): Operation {
  const { requestBody, responses, parameters = [] } = operation
  const shared = Object.keys(SHARED_COMPONENTS.parameters)
  return {
    ...operation,
    parameters: [
      ...parameters,
      ...shared.map((name) => ({ $ref: `#/components/parameters/${name}` })),
    ],
    ...(requestBody && {
      requestBody: { ...requestBody, required: !Type.IsOptional(schema.body) },
    }),
    responses: { ...successes(responses, schema), ...failures(problemsOf(method, schema)) },
  }
}

function successes(
  responses: Operation['responses'],
  { querystring, responseHeaders = {} }: FastifySchema,
): Operation['responses'] {
  const query = querystring as { readonly properties?: object } | undefined
  const own = Object.entries(responseHeaders).map(([name, schema]) => [name, { schema }])
  const headers = {
    ...REQUEST_ID,
    ...('cursor' in (query?.properties ?? {}) && NEXT_CURSOR),
    ...Object.fromEntries(own),
  }
  const described = Object.entries(responses).map(([status, { description, ...response }]) => {
    const isBare = description === 'Default Response'
    return [status, { description: isBare ? 'Success' : description, headers, ...response }]
  })
  return Object.fromEntries(described)
}

function problemsOf(method: string, { problems = [], tags }: FastifySchema): ProblemCode[] {
  const codes = new Set<ProblemCode>([...PROBLEMS_OF_ANY_REQUEST, ...problems])
  const isRead = method === 'get'
  if (!isRead) for (const code of PROBLEMS_OF_CHANGES) codes.add(code)
  if (!tags?.includes('health')) codes.add('DATABASE_UNAVAILABLE')
  return (Object.keys(PROBLEMS) as ProblemCode[]).filter((code) => codes.has(code))
}

function failures(codes: readonly ProblemCode[]): Operation['responses'] {
  const byStatus = Map.groupBy(codes, (code) => PROBLEMS[code].status)
  return Object.fromEntries(
    [...byStatus].map(([status, group]) => [String(status), failure(status, group)]),
  )
}

function failure(status: number, codes: readonly ProblemCode[]): Response {
  const mayRetry = status !== 500 && codes.some((code) => PROBLEMS[code].retryable)
  const schema = {
    allOf: [{ $ref: '#/components/schemas/Problem' }],
    type: 'object',
    properties: {
      status: { type: 'integer', enum: [status] },
      code: { type: 'string', enum: [...codes] },
    },
  }
  return {
    description: codes.map((code) => `${code}: ${PROBLEMS[code].title}`).join('. '),
    headers: { ...REQUEST_ID, ...(mayRetry && RETRY_AFTER) },
    content: { [PROBLEM_TYPE]: { schema } },
  }
}
