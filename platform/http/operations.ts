import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { operator } from '../../contracts/access.ts'
import { cached, shared } from '../async/coalesce.ts'
import type { Log, Runtime } from '../async/runtime.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import type { HttpServer } from './validation.ts'

export interface OperationsOptions {
  readonly service: string
  readonly log: Log
  readonly telemetry: Telemetry
  /** One check for each dependency. A check resolves if the dependency is available, and otherwise rejects. */
  readonly readiness: Readonly<Record<string, () => Promise<void>>>
  readonly runtime: Runtime
  readonly isTrusted: (request: FastifyRequest) => boolean
  /** Whether health says which dependency is down. */
  readonly areDetailsPublic: boolean
}

/** Shorter than the wait of a scrape for a gauge, so that a dependency that hangs is reported as down. */
const MAX_CHECK_MS = 1500

/** How long the result of a scrape is reused. Counting the waiting rows in the database is expensive. */
const SCRAPE_MS = 1_000

/**
 * Adds the routes for health, readiness and metrics. Probes have no rate limit, because a rejected probe
 * would make Kubernetes restart the pod.
 */
export function addOperations(app: HttpServer, options: OperationsOptions): void {
  const { service, telemetry } = options
  const config = { rateLimit: false, quiet: true, access: 'public' } as const
  const hidden = { hide: true }
  const check = shared(() => checkAll(options))
  telemetry.gauge('trifold_ready', async () => {
    const components = Object.entries(await check())
    return components.map(([dependency, { status }]) => ({
      labels: { dependency },
      value: status === 'UP' ? 1 : 0,
    }))
  })

  app.get(
    `/${service}/health`,
    {
      config,
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the service is running',
        tags: ['health'],
        response: { 200: Type.Object({ status: Type.Literal('OK') }) },
      },
    },
    async () => ({ status: 'OK' as const }),
  )

  app.get(`/${service}/actuator/health/liveness`, { config, schema: hidden }, async () => ({
    status: 'UP',
  }))

  for (const path of ['actuator/health', 'actuator/health/readiness']) {
    app.get(`/${service}/${path}`, { config, schema: hidden }, async (_request, reply) => {
      const components = await check()
      const isUp = Object.values(components).every(({ status }) => status === 'UP')
      const details = options.areDetailsPublic ? { components } : {}
      return reply.code(isUp ? 200 : 503).send({ status: isUp ? 'UP' : 'DOWN', ...details })
    })
  }

  const scrape = shared(telemetry.scrape)
  const recentScrape = cached(scrape, SCRAPE_MS, options.runtime.now)
  app.get(
    `/${service}/actuator/prometheus`,
    { config: { quiet: true, access: [operator('operator:read')] }, schema: hidden },
    async (request, reply) => {
      const isFresh = request.headers['cache-control'] === 'no-cache' && options.isTrusted(request)
      const { contentType, body } = await (isFresh ? scrape() : recentScrape())
      return reply.type(contentType).send(body)
    },
  )
}

type Components = Record<string, { status: 'UP' | 'DOWN' }>

async function checkAll({ readiness, log, runtime }: OperationsOptions): Promise<Components> {
  const checks = Object.entries(readiness).map(async ([name, check]) => {
    try {
      await inTime(check, runtime)
      return [name, { status: 'UP' }]
    } catch (err) {
      log.warn({ err, dependency: name }, 'a dependency is not available')
      return [name, { status: 'DOWN' }]
    }
  })
  return Object.fromEntries(await Promise.all(checks))
}

async function inTime(check: () => Promise<void>, runtime: Runtime): Promise<void> {
  const done = new AbortController()
  const timeout = runtime.sleep(MAX_CHECK_MS, done.signal).then(() => {
    if (!done.signal.aborted) throw new Error(`no response within ${MAX_CHECK_MS} ms`)
  })
  try {
    await Promise.race([check(), timeout])
  } finally {
    done.abort()
  }
}
