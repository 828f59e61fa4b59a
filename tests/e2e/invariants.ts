import assert from 'node:assert/strict'
import type { Violation } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import { type Client, eventually, FRESH } from './client.ts'
import type { RunningProgram } from './program.ts'

/**
 * Waits until the program has finished its work and all invariants hold: no outbox, topic or table has unfinished
 * work. `isExpected` accepts violations that a test caused on purpose.
 */
export async function assertInvariantsHold(
  program: Pick<RunningProgram, 'databases' | 'log' | 'maildir' | 'read'>,
  isExpected: (violation: Violation) => boolean = () => false,
): Promise<void> {
  await eventually(async () => {
    await assertNoViolation(program, isExpected)
    for (const service of ['orders', 'billing', 'notification'])
      await assertAllRead(program, service)
  })
}

/** Resolves with the violations that were expected. */
export async function assertNoViolation(
  { databases, log, maildir }: Pick<RunningProgram, 'databases' | 'log' | 'maildir'>,
  isExpected: (violation: Violation) => boolean,
): Promise<readonly Violation[]> {
  const violations = await audit({
    ...databases,
    ...log,
    letters: await lettersIn(maildir),
    now: Date.now(),
    settled: true,
  })
  assert.deepEqual(
    violations.filter((violation) => !isExpected(violation)),
    [],
  )
  return violations
}

/** Asserts that every partition of a service's topics has a reader and no unread message. */
export async function assertAllRead({ read }: Pick<Client, 'read'>, service: string) {
  const scrape = await read<string>(`/${service}/actuator/prometheus`, FRESH)
  const lags = valuesOf(scrape, 'trifold_consumer_lag_messages')
  const partitions = valuesOf(scrape, 'trifold_consumer_topic_partitions')
  assert.ok(partitions.length > 0, `${service} reads no topic`)
  assert.equal(
    lags.length,
    partitions.reduce((sum, count) => sum + count),
  )
  assert.deepEqual(
    lags.filter((lag) => lag !== 0),
    [],
    `${service} has not read all messages`,
  )
}

/** The values of a metric in the series whose labels contain the text. */
export function valuesOf(scrape: string, name: string, labels = ''): number[] {
  return [...scrape.matchAll(new RegExp(`^${name}\\{(.*)\\} (\\S+)$`, 'gm'))]
    .filter(([, found]) => found!.includes(labels))
    .map(([, , value]) => Number(value))
}
