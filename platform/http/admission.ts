import type { IncomingMessage, ServerResponse } from 'node:http'
import { problemBody } from '../../contracts/problems.ts'
import { STYLE_HEADER, STYLES } from '../../contracts/style.ts'
import type { Runtime } from '../async/runtime.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import { TIMEOUT_HEADER } from './client.ts'
import { requestId } from './hooks.ts'
import { PROBLEM_TYPE } from './problems.ts'
import type { HttpServer } from './validation.ts'
import { createWorkload, type Work, type Workload } from './workload.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns false if the service is overloaded. The request has then been rejected with 429. */
    admit(request: IncomingMessage, response: ServerResponse): boolean
  }
  interface FastifyRequest {
    work: Work | undefined
    /** When the caller stops waiting, by the runtime's monotonic clock. Infinity if the caller did not say. */
    deadlineMs: number
    /** The time after which work on the request no longer starts, by the same clock. */
    startByMs: number
    /** How many more milliseconds the caller will wait. Infinity if the caller did not say. */
    remainingMs(): number
    /**
     * Whether it is too late to start work on the request, because the caller has hung up or has waited too
     * long.
     */
    isExpired(): boolean
  }
}

export interface AdmissionOptions {
  readonly service: string
  readonly basePath: string
  readonly telemetry: Telemetry
  readonly runtime: Runtime
}

/** Calls between services belong to work that was already admitted, so only their number is limited. */
const MAX_SERVICE_CALLS = 2_000
/** A read with `Prefer: wait` costs memory and little else. */
const MAX_WAITING_READS = 1_000
const RETRY_AFTER_SECONDS = '1'
/** How long a customer's command may wait in the queue before its transaction starts. */
const MAX_QUEUED_MS = 1_000
/** The placeholder for the request id in the body of a rejection. The body is built only once. */
const ID = '{id}'

/**
 * Rejects new work while a service has more work than it can finish in time. The front door calls `admit`
 * before routing and body parsing, because a rejection must cost far less than the work that it saves. A
 * request counts from the start of its handler to its response, so the time to receive a body or to read a
 * response does not count. Each kind of work has its own limit, because orders that wait for a frozen billing
 * service must not shut out orders in styles that do not wait.
 */
export function addAdmission(app: HttpServer, options: AdmissionOptions): void {
  const workloadOf = createWorkloads(options.runtime.monotonic)
  const operations = operationsOf(options)

  app.decorate('admit', (request: IncomingMessage, response: ServerResponse) => {
    if (workloadOf(request).hasRoom()) return true
    if (operations.has(request.url?.split('?', 1)[0])) return true
    options.telemetry.count('trifold_requests_refused_total')
    reject(request, response)
    return false
  })
  addDeadlines(app, options.runtime.monotonic)
  app.decorateRequest('work')
  app.addHook('preHandler', (request, reply, done) => {
    if (!request.routeOptions.config.quiet) {
      const work = workloadOf(request.raw).begin()
      request.work = work
      // If a client hangs up, its work is dropped from the queue, and Fastify does not call onSend for the
      // request.
      reply.raw.once('close', () => work.end('abandoned'))
    }
    done()
  })
  app.addHook('onSend', (request, _reply, payload, done) => {
    request.work?.end('done')
    done(null, payload)
  })
}

/**
 * A call between services says how long its caller will wait. No work starts after that time, or for a client
 * that has hung up. The response would be of no use, and a caller that gave up may already have acted on the
 * failure.
 */
function addDeadlines(app: HttpServer, clock: () => number): void {
  app.decorateRequest('deadlineMs', Number.POSITIVE_INFINITY)
  app.decorateRequest('startByMs', 0)
  app.decorateRequest('remainingMs', function () {
    return this.deadlineMs - clock()
  })
  app.decorateRequest('isExpired', function () {
    return this.raw.socket.destroyed || clock() >= this.startByMs
  })
  app.addHook('onRequest', (request, _reply, done) => {
    const nowMs = clock()
    const timeoutMs = Number(request.headers[TIMEOUT_HEADER])
    const isTimed = timeoutMs >= 0
    if (isTimed) request.deadlineMs = nowMs + timeoutMs
    request.startByMs = isTimed ? request.deadlineMs : nowMs + MAX_QUEUED_MS
    done()
  })
}

type Head = Pick<IncomingMessage, 'method' | 'headers'>

function createWorkloads(clock: () => number): (request: Head) => Workload {
  const calls = createWorkload(clock, MAX_SERVICE_CALLS)
  const waitingReads = createWorkload(clock, MAX_WAITING_READS)
  const reads = createWorkload(clock)
  const commands = createWorkload(clock)
  const byStyle = new Map<unknown, Workload>(STYLES.map((style) => [style, createWorkload(clock)]))
  return ({ method, headers }) => {
    if (headers[TIMEOUT_HEADER] !== undefined) return calls
    if (method === 'GET') return headers.prefer === undefined ? reads : waitingReads
    return byStyle.get(headers[STYLE_HEADER]) ?? commands
  }
}

/** The paths of probes and scrapes, which get a response however busy the service is. */
function operationsOf({ service, basePath }: AdmissionOptions): ReadonlySet<string | undefined> {
  const paths = [
    'health',
    'actuator/health',
    'actuator/health/liveness',
    'actuator/health/readiness',
  ]
  const own = [...paths, 'actuator/prometheus'].map((path) => `/${service}/${path}`)
  return new Set([...own, ...own.map((path) => `${basePath}${path}`)])
}

const [BEFORE_ID, AFTER_ID] = JSON.stringify({
  ...problemBody('TOO_MANY_REQUESTS', { detail: 'the service is busy; the request had no effect' }),
  instance: ID,
}).split(ID) as [string, string]

function reject({ headers }: IncomingMessage, response: ServerResponse): void {
  const id = requestId(headers['x-request-id'])
  const body = `${BEFORE_ID}${id}${AFTER_ID}`
  response.writeHead(429, {
    'content-type': PROBLEM_TYPE,
    'content-length': String(body.length),
    'retry-after': RETRY_AFTER_SECONDS,
    'x-content-type-options': 'nosniff',
    'x-request-id': id,
  })
  response.end(body)
}
