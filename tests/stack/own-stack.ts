import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { Violation } from '../../apps/audit/findings.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import type { Restartable } from '../../tools/servers/restartable.ts'
import type { StackOptions } from '../../tools/stack/options.ts'
import { type CheckoutOf, PATHS, type Replica } from '../../tools/stack/services.ts'
import type { Stack } from '../../tools/stack/stack.ts'
import { type Client, createClient, eventually, FRESH } from '../e2e/client.ts'
import { assertNoViolation, valuesOf } from '../e2e/invariants.ts'
import { temporaryFolder } from '../e2e/program.ts'
import { startStackIn } from '../e2e/stack-program.ts'

/** A stack whose servers and services a test can stop. */
export interface OwnStack extends Omit<Stack, 'kafka' | 'postgres'> {
  readonly kafka: Restartable
  readonly postgres: Restartable
  /** A customer's view, through nginx. */
  readonly client: Client
  /**
   * Resolves when all work is done and all invariants hold. Returns the expected violations, for tests that
   * deliberately destroy data.
   */
  untilInvariantsHold(
    limitMs: number,
    isExpected?: (violation: Violation) => boolean,
  ): Promise<readonly Violation[]>
}

export async function startOwnStack(
  replicas: StackOptions['replicas'],
  environment: Readonly<Record<string, string>> = {},
  checkoutOf?: CheckoutOf,
): Promise<OwnStack> {
  const { folder, remove } = await temporaryFolder()
  const stack = await startStackIn(folder, replicas, environment, checkoutOf).catch(
    async (cause) => {
      await remove()
      throw cause
    },
  )
  const { kafka, postgres, databaseUrls } = stack
  assert.ok(kafka && postgres)

  async function audited(
    isExpected: (violation: Violation) => boolean,
  ): Promise<readonly Violation[]> {
    const open = (url: string) => openPostgres({ url, maxConnections: 2 })
    const databases = {
      orders: await open(databaseUrls.order),
      billing: await open(databaseUrls.billing),
      notification: await open(databaseUrls.notification),
    }
    try {
      const program = { databases, log: {}, maildir: join(folder, 'mail') }
      return await assertNoViolation(program, isExpected)
    } finally {
      for (const database of Object.values(databases)) await database.close()
    }
  }

  return {
    ...stack,
    kafka,
    postgres,
    client: createClient(stack.url),
    untilInvariantsHold: (limitMs, isExpected = () => false) =>
      eventually(() => audited(isExpected), limitMs),
    async close() {
      await stack.close()
      await remove()
    },
  }
}

export interface ReplicaResponse {
  readonly status: number
  readonly body: string
  readonly tookMs: number
}

/** Sends a GET to one replica, below its service's path. */
export async function fetchFromReplica(
  { url, service }: Replica,
  path: string,
): Promise<ReplicaResponse> {
  const startedMs = performance.now()
  const signal = AbortSignal.timeout(30_000)
  const response = await fetch(`${url}/${PATHS[service]}/${path}`, { ...FRESH, signal })
  const body = await response.text()
  return { status: response.status, body, tookMs: performance.now() - startedMs }
}

/** The value of a metric, summed over the series whose labels contain the text. */
export function metricOf(scrape: string, name: string, labels = ''): number | undefined {
  const values = valuesOf(scrape, name, labels)
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value)
}
