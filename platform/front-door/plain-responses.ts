import type { IncomingMessage, ServerResponse } from 'node:http'
import { asyncApiDocument } from '../../contracts/asyncapi.ts'
import {
  PROBLEMS,
  type ProblemCode,
  type ProblemDetails,
  problemBody,
} from '../../contracts/problems.ts'
import { requestId } from '../http/hooks.ts'
import { PROBLEM_TYPE, RETRY_AFTER_SECONDS } from '../http/problems.ts'
import { redact } from '../telemetry/redact.ts'
import { asyncApiPage } from './asyncapi-page.ts'

/** Responses that the front door itself sends, to requests that reach no service. */

const SECURITY = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
}

export const READ_ONLY = ['GET', 'HEAD'] as const

export function sendJson(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  body: unknown,
): void {
  send(response, idOf(request), status, 'application/json', JSON.stringify(body))
}

export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  code: ProblemCode,
  details: ProblemDetails = {},
): void {
  const { status, retryable } = PROBLEMS[code]
  if (retryable) response.setHeader('retry-after', RETRY_AFTER_SECONDS)
  const instance = idOf(request)
  const body = redact(JSON.stringify({ ...problemBody(code, details), instance }))
  send(response, instance, status, PROBLEM_TYPE, body)
}

/**
 * Whether the method of the request is one of these. If not, responds with 405 and lists the allowed methods.
 */
export function allows(
  request: IncomingMessage,
  response: ServerResponse,
  methods: readonly string[],
): boolean {
  if (methods.includes(request.method ?? '')) return true
  response.setHeader('allow', methods.join(', '))
  sendProblem(request, response, 'METHOD_NOT_ALLOWED')
  return false
}

/** Serves the AsyncAPI document and its page. Returns false, without a response, for any other path. */
export function sendAsyncApi(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  basePath: string,
): boolean {
  if (path !== '/asyncapi.json' && path !== '/asyncapi') return false
  if (!allows(request, response, READ_ONLY)) return true
  if (path === '/asyncapi.json') sendJson(request, response, 200, asyncApiDocument())
  else {
    const page = asyncApiPage(`${basePath}/asyncapi.json`)
    send(response, idOf(request), 200, 'text/html; charset=utf-8', page)
  }
  return true
}

/** A complete problem response as text, for a socket from which no request could be read. */
export function rawProblem(code: ProblemCode, detail: string, headers: object = {}): string {
  const { status, title, retryable } = PROBLEMS[code]
  const instance = crypto.randomUUID()
  const body = JSON.stringify({ ...problemBody(code, { detail }), instance })
  const head = {
    'content-type': PROBLEM_TYPE,
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    'x-request-id': instance,
    ...(retryable && { 'retry-after': RETRY_AFTER_SECONDS }),
    ...SECURITY,
    ...headers,
  }
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${status} ${title}`, ...lines, '', body].join('\r\n')
}

function send(
  response: ServerResponse,
  requestId: string,
  status: number,
  type: string,
  body: string,
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'x-request-id': requestId,
    ...SECURITY,
  })
  response.end(body)
}

const idOf = (request: IncomingMessage) => requestId(request.headers['x-request-id'])
