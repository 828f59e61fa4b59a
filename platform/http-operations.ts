import Type from 'typebox'
import type { HttpServer } from './http-validation.ts'
import type { Log, Runtime } from './runtime.ts'
import type { Telemetry } from './telemetry.ts'

export interface OperationsOptions {
  readonly service: string
  readonly log: Log
  readonly telemetry: Telemetry
  /** One test for each dependency: resolves when it can be worked with. */
  readonly readiness: Readonly<Record<string, () => Promise<void>>>
  readonly runtime: Runtime
}

/** Less than a scrape waits for a gauge: a dependency that hangs is one that is down. */
const MAX_TEST_MS = 1500

/** Health, readiness and metrics. No rate limit holds for them: those who ask are not clients. */
export function addOperations(app: HttpServer, options: OperationsOptions): void {
  const { service, telemetry } = options
  const config = { rateLimit: false, quiet: true } as const
  const hidden = { hide: true }
  telemetry.gauge('trifold_ready', async () => {
    const components = Object.entries(await testAll(options))
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
        summary: 'Whether the service runs',
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
      const components = await testAll(options)
      const isUp = Object.values(components).every(({ status }) => status === 'UP')
      return reply.code(isUp ? 200 : 503).send({ status: isUp ? 'UP' : 'DOWN', components })
    })
  }

  app.get(
    `/${service}/actuator/prometheus`,
    { config, schema: hidden },
    async (_request, reply) => {
      const { contentType, body } = await telemetry.scrape()
      return reply.type(contentType).send(body)
    },
  )
}

type Components = Record<string, { status: 'UP' | 'DOWN' }>

async function testAll({ readiness, log, runtime }: OperationsOptions): Promise<Components> {
  const tests = Object.entries(readiness).map(async ([name, test]) => {
    try {
      await inTime(test, runtime)
      return [name, { status: 'UP' }]
    } catch (err) {
      log.warn({ err, dependency: name }, 'a dependency cannot be worked with')
      return [name, { status: 'DOWN' }]
    }
  })
  return Object.fromEntries(await Promise.all(tests))
}

async function inTime(test: () => Promise<void>, runtime: Runtime): Promise<void> {
  const done = new AbortController()
  const tooLate = runtime.sleep(MAX_TEST_MS, done.signal).then(() => {
    if (!done.signal.aborted) throw new Error(`no answer within ${MAX_TEST_MS} ms`)
  })
  try {
    await Promise.race([test(), tooLate])
  } finally {
    done.abort()
  }
}
