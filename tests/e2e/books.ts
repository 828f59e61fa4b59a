import assert from 'node:assert/strict'
import type { Violation } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import { type Client, eventually } from './client.ts'
import type { RunningProgram } from './program.ts'

/**
 * Everything that must always be true is true of this program once its work is done: nothing waits,
 * in no outbox, topic or table. `isExpected` lets pass what a test has broken on purpose.
 */
export async function assertCleanBooks(
  program: Pick<RunningProgram, 'databases' | 'log' | 'maildir' | 'read'>,
  isExpected: (violation: Violation) => boolean = () => false,
): Promise<void> {
  await eventually(async () => {
    const violations = await audit({
      ...program.databases,
      ...program.log,
      letters: await lettersIn(program.maildir),
      now: Date.now(),
      settled: true,
    })
    assert.deepEqual(
      violations.filter((violation) => !isExpected(violation)),
      [],
    )
    for (const service of ['orders', 'billing', 'notification'])
      await assertAllRead(program, service)
  })
}

/** Every partition that a service reads has a reader, and no message is left in it. */
async function assertAllRead({ read }: Pick<Client, 'read'>, service: string): Promise<void> {
  const metrics = await read<string>(`/${service}/actuator/prometheus`)
  const valuesOf = (name: string) =>
    [...metrics.matchAll(new RegExp(`^${name}\\{.*\\} (\\S+)$`, 'gm'))].map(([, value]) =>
      Number(value),
    )
  const lags = valuesOf('trifold_consumer_lag_messages')
  const partitions = valuesOf('trifold_consumer_topic_partitions')
  assert.ok(partitions.length > 0, `${service} reads no topic`)
  assert.equal(
    lags.length,
    partitions.reduce((sum, count) => sum + count),
  )
  assert.deepEqual(
    lags.filter((lag) => lag !== 0),
    [],
    `${service} has not read everything`,
  )
}
