import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { Program } from '../../apps/all-in-one/program.ts'
import type { Violation } from '../../apps/audit/findings.ts'
import { audit } from '../../apps/audit/invariants.ts'
import { lettersIn } from '../../apps/audit/maildir.ts'
import { eventually } from './client.ts'

/**
 * Everything that must always be true is true of this program once its work is done: nothing waits,
 * in no outbox, topic or table. `isExpected` lets pass what a test has broken on purpose.
 */
export async function assertCleanBooks(
  { database, dataDir }: Pick<Program, 'database' | 'dataDir'>,
  isExpected: (violation: Violation) => boolean = () => false,
): Promise<void> {
  await eventually(async () => {
    const violations = await audit({
      orders: database,
      billing: database,
      notification: database,
      bus: database,
      letters: await lettersIn(join(dataDir, 'mail')),
      now: Date.now(),
      settled: true,
    })
    assert.deepEqual(
      violations.filter((violation) => !isExpected(violation)),
      [],
    )
  })
}
