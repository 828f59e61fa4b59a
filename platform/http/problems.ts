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

/** The body of every answer that is an error, as the documents show it. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: 'urn:trifold:problem:CODE' }),
    title: Type.String(),
    status: Type.Integer({ minimum: 400, maximum: 599 }),
    code: Type.Enum(Object.keys(PROBLEMS) as ProblemCode[]),
    retryable: Type.Boolean({ description: 'whether the same call may succeed later' }),
    detail: Type.Optional(Type.String()),
    field: Type.Optional(
      Type.String({ description: 'what was refused, such as body/productQuantity' }),
    ),
    orderId: Type.Optional(Type.String({ format: 'uuid' })),
    reason: Type.Optional(Type.String()),
    instance: Type.Optional(Type.String({ description: 'the id of the request' })),
  },
  { title: 'Problem', description: 'an error, RFC 9457' },
)

export const RETRY_AFTER_SECONDS = '1'

/** Answers with the problem that an error stands for, and logs what nobody but us can repair. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  const fault = toFault(error)
  const { status, retryable } = PROBLEMS[fault.code]
  if (fault.code === 'INTERNAL') request.log.error({ err: error }, 'a request failed')
  else if (status >= 500) request.log.warn({ err: error, code: fault.code }, 'a request failed')
  else request.log.debug({ code: fault.code, ...fault.details }, 'a request was refused')
  // A rate limit has already said when; what went wrong inside us need not be better in a second.
  if (retryable && status !== 500 && !reply.hasHeader('retry-after')) {
    reply.header('retry-after', RETRY_AFTER_SECONDS)
  }
  if (fault.code === 'BODY_TOO_LARGE') readRest(request, reply)
  const body = { ...problemBody(fault.code, fault.details), instance: request.id }
  // As bytes: to text Fastify would add a charset, which this media type does not have.
  return reply
    .code(status)
    .type(PROBLEM_TYPE)
    .send(new TextEncoder().encode(redact(JSON.stringify(body))))
}

/** So long may the rest of a body that was refused take to arrive. */
const REST_MS = 2_000

/**
 * Fastify closes a connection whose body it refuses. Closed with bytes that nobody has read, the kernel
 * resets it; who is still sending, as a proxy may be, then meets an error in place of the answer. So the
 * rest is read, and dropped, and the connection stays: a proxy may have the next request on it already.
 * It is closed when the rest does not come, as no other request can be on it then.
 */
function readRest(request: FastifyRequest, reply: FastifyReply): void {
  const { raw } = request
  reply.removeHeader('connection')
  raw.resume()
  // A request that was injected has no socket that could be closed.
  const { socket }: { socket: Partial<Socket> } = raw
  const giveUp = setTimeout(() => raw.complete || socket.destroy?.(), REST_MS)
  raw.once('close', () => clearTimeout(giveUp))
}

const FRAMEWORK_CODES = new Map<unknown, [ProblemCode, ProblemDetails]>([
  ['FST_ERR_NOT_FOUND', ['ROUTE_NOT_FOUND', {}]],
  ['FST_ERR_CTP_BODY_TOO_LARGE', ['BODY_TOO_LARGE', {}]],
  ['FST_ERR_CTP_INVALID_MEDIA_TYPE', ['UNSUPPORTED_MEDIA_TYPE', {}]],
  [
    'FST_ERR_BAD_URL',
    [
      'VALIDATION_FAILED',
      { field: 'path', detail: 'the path is not percent-encoded as it must be' },
    ],
  ],
  [
    'FST_ERR_MAX_PARAM_LENGTH',
    ['VALIDATION_FAILED', { field: 'path', detail: 'a part of the path is too long' }],
  ],
  [
    'FST_ERR_HANDLER_TIMEOUT',
    [
      'SERVICE_UNAVAILABLE',
      { detail: 'no answer was ready in time; the request may still take effect' },
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
  // What else the framework blames on the client: a body that broke off, a length that is not true.
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new Fault('VALIDATION_FAILED', { detail: 'the request could not be read' }, error)
  }
  return new Fault('INTERNAL', {}, error)
}
