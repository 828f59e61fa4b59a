import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import {
  Fault,
  PROBLEMS,
  type ProblemCode,
  type ProblemDetails,
  problemBody,
} from '../../contracts/problems.ts'
import { DatabaseError } from '../database/database.ts'
import { redact } from '../telemetry/redact.ts'

export const PROBLEM_TYPE = 'application/problem+json'

/** The body of every error response, as it appears in the OpenAPI documents. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: 'urn:trifold:problem:CODE' }),
    title: Type.String(),
    status: Type.Integer({ minimum: 400, maximum: 599 }),
    code: Type.Enum(Object.keys(PROBLEMS) as ProblemCode[]),
    retryable: Type.Boolean({ description: 'whether the same request may succeed later' }),
    detail: Type.Optional(Type.String()),
    field: Type.Optional(
      Type.String({ description: 'the invalid field, such as body/productQuantity' }),
    ),
    orderId: Type.Optional(Type.String({ format: 'uuid' })),
    reason: Type.Optional(Type.String()),
    instance: Type.Optional(Type.String({ description: 'the id of the request' })),
  },
  { title: 'Problem', description: 'an error, RFC 9457' },
)

export const RETRY_AFTER_SECONDS = '1'

/** Responds with the problem for an error. Errors that the caller cannot fix are logged at warn or error. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  const fault = toFault(error)
  const { status, retryable } = PROBLEMS[fault.code]
  if (fault.code === 'INTERNAL') request.log.error({ err: error }, 'request failed')
  else if (status >= 500) request.log.warn({ err: error, code: fault.code }, 'request failed')
  else request.log.debug({ code: fault.code, ...fault.details }, 'request rejected')
  // A rate limit has already set the header. An internal error gets none, because it may well last longer
  // than RETRY_AFTER_SECONDS.
  if (retryable && status !== 500 && !reply.hasHeader('retry-after')) {
    reply.header('retry-after', RETRY_AFTER_SECONDS)
  }
  if (fault.code === 'BODY_TOO_LARGE') readRest(request, reply)
  const body = { ...problemBody(fault.code, fault.details), instance: request.id }
  // Sent as bytes, because Fastify would add a charset to a string, and this content type allows none.
  return reply
    .code(status)
    .type(PROBLEM_TYPE)
    .send(new TextEncoder().encode(redact(JSON.stringify(body))))
}

/** How long the rest of a body may take to arrive after the body was rejected as too large. */
const REST_MS = 2_000

/**
 * Fastify closes the connection when it rejects a body. If unread bytes are left at that time, the kernel
 * resets the connection, and a client or proxy that is still sending gets an error instead of the response.
 * The rest of the body is therefore read and discarded. The connection stays open, because a proxy may
 * already have sent its next request on it. If the rest of the body does not arrive in time, the connection
 * is closed.
 */
function readRest(request: FastifyRequest, reply: FastifyReply): void {
  const { raw } = request
  reply.removeHeader('connection')
  raw.resume()
  // An injected request has no real socket to destroy.
  const { socket }: { socket: Partial<Socket> } = raw
  const timer = setTimeout(() => raw.complete || socket.destroy?.(), REST_MS)
  raw.once('close', () => clearTimeout(timer))
}

const FRAMEWORK_CODES = new Map<unknown, [ProblemCode, ProblemDetails]>([
  ['FST_ERR_NOT_FOUND', ['ROUTE_NOT_FOUND', {}]],
  ['FST_ERR_CTP_BODY_TOO_LARGE', ['BODY_TOO_LARGE', {}]],
  ['FST_ERR_CTP_INVALID_MEDIA_TYPE', ['UNSUPPORTED_MEDIA_TYPE', {}]],
  [
    'FST_ERR_BAD_URL',
    ['VALIDATION_FAILED', { field: 'path', detail: 'the percent-encoding of the path is invalid' }],
  ],
  [
    'FST_ERR_MAX_PARAM_LENGTH',
    ['VALIDATION_FAILED', { field: 'path', detail: 'a segment of the path is too long' }],
  ],
  [
    'FST_ERR_HANDLER_TIMEOUT',
    [
      'SERVICE_UNAVAILABLE',
      { detail: 'the response took too long; the request may still take effect' },
    ],
  ],
])

function toFault(error: unknown): Fault {
  if (error instanceof Fault) return error
  if (error instanceof DatabaseError && error.kind !== 'invalid') {
    return new Fault('DATABASE_UNAVAILABLE', {}, error)
  }
  const { code, statusCode } = error as { code?: unknown; statusCode?: number }
  const known = FRAMEWORK_CODES.get(code)
  if (known) return new Fault(...known, error)
  // Other errors that the framework reports and the client caused, such as an incomplete body or a wrong
  // length.
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new Fault('VALIDATION_FAILED', { detail: 'the request could not be read' }, error)
  }
  return new Fault('INTERNAL', {}, error)
}
