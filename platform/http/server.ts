import { type BlockList, isIP } from 'node:net'
import rateLimit from '@fastify/rate-limit'
import { type FastifyBaseLogger, type FastifyRequest, fastify, LogController } from 'fastify'
import { Fault } from '../../contracts/problems.ts'
import type { Log, Runtime } from '../async/runtime.ts'
import type { Auth } from '../auth/auth.ts'
import { prefixOf } from '../process/config.ts'
import { networksOf } from '../process/config-formats.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import { noTracing, type Tracer } from '../telemetry/tracing.ts'
import { addAccess } from './access.ts'
import { addAdmission } from './admission.ts'
import { addDocs } from './docs.ts'
import { addRequestHooks, requestId } from './hooks.ts'
import { addMethodChecks } from './methods.ts'
import { addOperations } from './operations.ts'
import { sendProblem } from './problems.ts'
import { withoutPrefix } from './request-target.ts'
import { compileValidator, type HttpServer, parseJsonBody } from './validation.ts'

export interface HttpServerOptions {
  /** The first segment of every path of the service. */
  readonly service: 'orders' | 'billing' | 'notification'
  /** The title of the service's OpenAPI document. */
  readonly title: string
  /** Every path is served with and without this prefix; '' or '/' means no prefix. */
  readonly basePath: string
  readonly bodyLimitBytes: number
  /**
   * How many requests a minute each client address outside the trusted networks may send; 0 means no limit.
   */
  readonly rateLimitPerMinute: number
  /** Networks whose X-Forwarded-For and traceparent are trusted; loopback by default. */
  readonly trustedNetworks?: BlockList
  /** How callers are authenticated; undefined if they are not. */
  readonly auth?: Auth | undefined
  /**
   * False leaves out the OpenAPI document. The simulator does so, because it starts services all the time.
   */
  readonly documented?: boolean
  readonly log: Log | FastifyBaseLogger
  readonly telemetry: Telemetry
  readonly tracer?: Tracer | undefined
  readonly readiness: Readonly<Record<string, () => Promise<void>>>
  readonly runtime: Runtime
}

export type { HttpServer } from './validation.ts'

const MAX_PARAM_CHARACTERS = 128
const MAX_RATE_LIMITED_ADDRESSES = 10_000
const LOOPBACK = networksOf('127.0.0.0/8,::1')

/**
 * Creates the HTTP server of a service, without its routes. The server does not listen: it is mounted in a
 * front door, which owns connections and timeouts. Add the routes, await `ready()`, then pass requests to
 * `routing`. Header names in schemas are lower case. A string is sent as JSON if the route's schema says so.
 * Every error response is a problem from contracts/problems.ts.
 */
export async function createHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const basePath = prefixOf(options.basePath)
  const networks = options.trustedNetworks ?? LOOPBACK
  const app: HttpServer = fastify({
    loggerInstance: asFastifyLogger(options.log),
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'requestId',
    }),
    genReqId: ({ headers }) => requestId(headers['x-request-id']),
    rewriteUrl: ({ url = '/' }) => withoutPrefix(url, basePath),
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: MAX_PARAM_CHARACTERS },
    trustProxy: (address) => isWithin(networks, address),
    bodyLimit: options.bodyLimitBytes,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => {
      reply.header('x-request-id', request.id)
      sendProblem(error, request, reply)
    },
  })
  app.setValidatorCompiler(compileValidator)
  // Fastify's own serializer fails if a named schema occurs twice. It is not needed, because the types
  // already check the responses.
  app.setSerializerCompiler(() => JSON.stringify)
  app.setErrorHandler(sendProblem)
  readJsonOnly(app)
  const isTrusted = (request: FastifyRequest) => isWithin(networks, request.ip)
  const isLimited = await limitRate(app, options.rateLimitPerMinute, isTrusted)
  addRequestHooks(app, options.telemetry, options.tracer ?? noTracing, isTrusted)
  addAccess(app, { auth: options.auth, telemetry: options.telemetry })
  addAdmission(app, { ...options, basePath })
  const { faultOf } = addMethodChecks(app)
  app.setNotFoundHandler(isLimited ? { preHandler: app.rateLimit() } : {}, (request, reply) => {
    const { fault, allowed } = faultOf(request)
    if (allowed.length > 0) reply.header('allow', allowed.join(', '))
    return sendProblem(fault, request, reply)
  })
  if (options.documented ?? true) {
    const isAuthenticated = options.auth !== undefined
    await addDocs(app, {
      service: options.service,
      title: options.title,
      basePath,
      isAuthenticated,
    })
  }
  addOperations(app, {
    ...options,
    log: app.log,
    isTrusted,
    areDetailsPublic: options.auth === undefined,
  })
  return app
}

/**
 * Limits the rate of each client. A request that a trusted proxy forwards counts for the proxy's client. A
 * trusted caller that forwards nothing is one of our services and has no limit.
 */
async function limitRate(
  app: HttpServer,
  rateLimitPerMinute: number,
  isTrusted: (request: FastifyRequest) => boolean,
): Promise<boolean> {
  if (rateLimitPerMinute === 0) return false
  await app.register(rateLimit, {
    max: rateLimitPerMinute,
    timeWindow: 60_000,
    cache: MAX_RATE_LIMITED_ADDRESSES,
    allowList: isTrusted,
    errorResponseBuilder: (_request, { after }) => {
      return new Fault('TOO_MANY_REQUESTS', { detail: `retry in ${after}` })
    },
  })
  return true
}

function isWithin(networks: BlockList, address: string): boolean {
  const version = isIP(address)
  return version !== 0 && networks.check(address, version === 4 ? 'ipv4' : 'ipv6')
}

/** Whether the caller is on this machine and is not a proxy that forwards a request of another client. */
export function isLoopback(request: {
  readonly socket: { readonly remoteAddress?: string | undefined }
  readonly headers: Readonly<Record<string, unknown>>
}): boolean {
  const address = request.socket.remoteAddress ?? ''
  const isForwarded = 'x-forwarded-for' in request.headers || 'forwarded' in request.headers
  return !isForwarded && /^(::1|(::ffff:)?127\.\d+\.\d+\.\d+)$/.test(address)
}

/** Accepts JSON as the only content type. An empty body counts as no body, whatever its content type is. */
function readJsonOnly(app: HttpServer): void {
  app.removeAllContentTypeParsers()
  const asBytes = { parseAs: 'buffer' } as const
  app.addContentTypeParser<Buffer>(
    'application/json',
    asBytes,
    async (request: FastifyRequest, bytes: Uint8Array) => {
      const body = parseJsonBody(bytes)
      // A body of `null` is rejected here, because Fastify also passes null to the validator if a request has
      // no body.
      if (body === null && request.routeOptions.schema?.body !== undefined) {
        const problem = { field: 'body', detail: 'body must be an object' }
        throw new Fault('VALIDATION_FAILED', problem)
      }
      return body
    },
  )
  app.addContentTypeParser<Buffer>(
    '*',
    asBytes,
    async (_request: FastifyRequest, body: Uint8Array) => {
      if (body.length > 0) throw new Fault('UNSUPPORTED_MEDIA_TYPE')
    },
  )
}

/**
 * Adapts a plain Log to the logger that Fastify requires, which can create child loggers with additional
 * members.
 */
function asFastifyLogger(log: Log | FastifyBaseLogger, own: object = {}): FastifyBaseLogger {
  if ('child' in log) return log
  const write = (level: keyof Log) => (first: unknown, sentence?: string) => {
    if (typeof first === 'string') log[level](own, first)
    else if (first instanceof Error) log[level]({ ...own, err: first }, sentence ?? first.message)
    else log[level]({ ...own, ...(first as object) }, sentence ?? '')
  }
  return {
    level: 'debug',
    fatal: write('error'),
    error: write('error'),
    warn: write('warn'),
    info: write('info'),
    debug: write('debug'),
    trace: () => undefined,
    silent: () => undefined,
    child: (members: object) => asFastifyLogger(log, { ...own, ...members }),
  } as FastifyBaseLogger
}
