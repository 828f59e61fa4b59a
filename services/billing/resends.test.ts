import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { createOutbox, LANES } from '../../messaging/outbox/outbox.ts'
import { migrate } from '../../platform/database/migrate.ts'
import { openTestDatabase } from '../../tests/support/backends.ts'
import { SCHEMA } from './migrations/001-initial.ts'
import { MIGRATIONS } from './migrations/all-migrations.ts'
import { resendDeposits } from './resends.ts'
import { writeChanges } from './store.ts'

const RESEND_AFTER_MS = 5_000
const ALL_LANES = Array.from({ length: LANES }, (_, lane) => lane)

const database = await openTestDatabase()
await migrate(database, SCHEMA, MIGRATIONS)
after(() => database.close())
const outbox = createOutbox(SCHEMA)

test('a deposit is not resent while its last request is still in the outbox', async () => {
  // Far ahead of the database's clock, which sets the times of outbox rows, so that this time stays ahead
  // even in a slow run.
  let now = Date.now() + 60_000
  const accountId = crypto.randomUUID()
  const account = { id: accountId, balanceMinor: 0n, version: 0, pendingMinor: 700n }
  const deposit = { id: crypto.randomUUID(), accountId, amountMinor: 700n } as const
  await database.transaction((tx) =>
    writeChanges(
      tx,
      {
        newAccounts: [account],
        accounts: [],
        newPayments: [],
        payments: [],
        transfers: [],
        newDeposits: [{ ...deposit, state: 'REQUESTED', style: 'events' }],
        deposits: [],
      },
      now,
    ),
  )
  const config = {
    INTERACTION_STYLE: 'events',
    ALLOW_STYLE_OVERRIDE: true,
    CALL_TIMEOUT_MS: 5_000,
    IDEMPOTENCY_KEY_TTL_MS: 86_400_000,
    CUSTOMER_DEPOSITS: false,
    DEPOSIT_RESEND_AFTER_MS: RESEND_AFTER_MS,
  } as const
  const resendAfter = async (waitMs: number) => {
    now += waitMs
    return (await resendDeposits(database, outbox, now, config)).deposits.length
  }
  const deliverAll = async () => {
    const rows = await outbox.takeForBroker(database, [], [], ALL_LANES, 10)
    const ids = rows.map(({ id }) => id)
    await outbox.takeForBroker(database, ids, [], [], 10)
    return rows.length
  }

  // The first request was delivered and then lost. The second request stays in the outbox, as if the broker
  // were down.
  assert.equal(await resendAfter(RESEND_AFTER_MS - 1), 0)
  assert.equal(await resendAfter(1), 1)
  for (let minutes = 0; minutes < 5; minutes += 1) assert.equal(await resendAfter(60_000), 0)
  assert.equal(await deliverAll(), 1)
  assert.equal(await resendAfter(60_000), 1)
  assert.equal(await deliverAll(), 1)
})
