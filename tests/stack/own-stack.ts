import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Violation } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import { openPostgres } from '../../platform/postgres.ts'
import { freePorts } from '../../tools/ports.ts'
import type { Restartable } from '../../tools/restartable.ts'
import { type Stack, startStack } from '../../tools/stack.ts'
import type { StackOptions } from '../../tools/stack-options.ts'
import { PATHS, type Replica } from '../../tools/stack-services.ts'
import { type Client, createClient, eventually } from '../e2e/client.ts'
import { temporaryFolder } from '../e2e/program.ts'

/** A stack of which everything may be taken away. */
export interface OwnStack extends Omit<Stack, 'kafka' | 'postgres'> {
  readonly kafka: Restartable
  readonly postgres: Restartable
  /** A customer's view, through nginx. */
  readonly client: Client
  /**
   * Resolves when all that must be true once all work is done is true, with the violations that were
   * expected, because a test has taken away for good what must not be lost.
   */
  booksAreClean(
    limitMs: number,
    isExpected?: (violation: Violation) => boolean,
  ): Promise<readonly Violation[]>
}

const START_LIMIT_MS = 180_000
const AUDIT_AGAIN_MS = 30_000
const LOG_LINES = 15

export async function startOwnStack(
  replicas: StackOptions['replicas'],
  environment: Readonly<Record<string, string>> = {},
): Promise<OwnStack> {
  const { folder, remove } = await temporaryFolder()
  const said: string[] = []
  const stack = await startStack({
    ...{ replicas, environment, folder },
    // Below the ports of outgoing connections, the highest of the usual ones included.
    portOffset: 50 * Math.floor(60 + Math.random() * 380),
    port: await freePorts(9_300 + Math.floor(Math.random() * 600), 1),
    signal: AbortSignal.timeout(START_LIMIT_MS),
    say: (line) => said.push(line),
  }).catch(async (cause) => {
    if (existsSync(folder)) await remove()
    throw new Error(`the stack does not start: ${cause.message}\n${said.join('\n')}`, { cause })
  })
  const { kafka, postgres, databaseUrls } = stack
  assert.ok(kafka && postgres)

  async function audited(
    isExpected: (violation: Violation) => boolean,
  ): Promise<readonly Violation[]> {
    const open = (url: string) => openPostgres({ url, maxConnections: 2 })
    const { order, billing, notification } = databaseUrls
    const opened = await Promise.all([order, billing, notification].map(open))
    const [orders, ofBilling, ofNotification] = opened as [(typeof opened)[0], ...typeof opened]
    try {
      const violations = await audit({
        orders,
        billing: ofBilling!,
        notification: ofNotification!,
        letters: await lettersIn(join(folder, 'mail')),
        now: Date.now(),
        settled: true,
      })
      const sentences = violations
        .filter((violation) => !isExpected(violation))
        .map(({ invariant, subject, sentence }) => `${invariant} ${subject} ${sentence}`)
      assert.deepEqual(sentences, [])
      return violations
    } finally {
      for (const database of opened) await database.close()
    }
  }

  return {
    ...stack,
    ...{ kafka, postgres },
    client: createClient(stack.url),
    booksAreClean: (limitMs = AUDIT_AGAIN_MS, isExpected = () => false) =>
      eventually(() => audited(isExpected), limitMs),
    async close() {
      await stack.close()
      await remove()
    },
  }
}

export interface Seen {
  readonly status: number
  readonly body: string
  readonly tookMs: number
}

/** What a replica itself answers to a GET below its own path. */
export async function askReplica({ url, service }: Replica, path: string): Promise<Seen> {
  const begunMs = performance.now()
  const signal = AbortSignal.timeout(30_000)
  const answer = await fetch(`${url}/${PATHS[service]}/${path}`, { signal })
  const body = await answer.text()
  return { status: answer.status, body, tookMs: performance.now() - begunMs }
}

/** The value of a metric, summed over the series whose labels the text contains. */
export function metricOf(scrape: string, name: string, labels = ''): number | undefined {
  const values = [...scrape.matchAll(new RegExp(`^${name}\\{(.*)\\} (\\S+)$`, 'gm'))]
    .filter(([, found]) => found!.includes(labels))
    .map(([, , value]) => Number(value))
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value)
}

/** Lets a replica end by SIGTERM, and tells how long that took. */
export async function drain({ service, server, logFile }: Replica): Promise<number> {
  const begunMs = performance.now()
  const { ended } = server
  await server.stop()
  const code = await ended
  const last = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n')
  assert.equal(code, 0, `${service} ended with code ${code}:\n${last}`)
  return performance.now() - begunMs
}
