import assert from 'node:assert/strict'
import { test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { parsePgbench, pgbenchScript } from './pgbench.ts'
import { type Recording, recordOrder } from './programs/recording.ts'

const OUTPUT = `pgbench (15.14 (Debian 15.14-0+deb12u1))
transaction type: /tmp/flow.sql
scaling factor: 1
query mode: prepared
number of clients: 16
number of threads: 1
maximum number of tries: 1
duration: 3 s
number of transactions actually processed: 1884
number of failed transactions: 0 (0.000%)
latency average = 25.628 ms
initial connection time = 31.410 ms
tps = 624.322531 (without initial connection time)
`

test("reads rate and latency from pgbench's output", () => {
  assert.deepEqual(parsePgbench(OUTPUT), { perSecond: 624.322531, latencyMs: 25.628 })
})

test('rejects output with a failed transaction, and output without figures', () => {
  const failed = OUTPUT.replace('transactions: 0', 'transactions: 3')
  assert.throws(() => parsePgbench(failed), /3 transactions failed/)
  assert.throws(() => parsePgbench('connection refused'), /no figure/)
})

test('preserves text, and no colon in it becomes a variable', () => {
  const recording: Recording = {
    transactions: [[{ text: 'select $2, $1', params: ["it's a:b 12:34", null] }]],
    ids: [],
    account: 'none',
  }
  const script = pgbenchScript(recording, 1)
  assert.match(script, /^select null, \('it''s a:' \|\| 'b 12:' \|\| '34'\);$/m)
})

test('an order of each style is four transactions, with ids that differ from order to order', async () => {
  for (const style of STYLES) {
    const recording = await recordOrder(style)
    const script = pgbenchScript(recording, 1_000)
    assert.equal(script.match(/^begin;$/gm)?.length, 4)
    assert.equal(script.match(/\\gset locked_$/gm)?.length, 1)
    for (const table of ['orders.orders', 'billing.payment', 'notification.message']) {
      assert.match(script, new RegExp(`insert into ${table}`))
    }
    assert.match(script, /:locked_version::integer \+ 1/)
    assert.match(script, /:locked_balanceMinor::bigint - 6500/)
    // Fixed key values would be the same for each order, so the second order would fail.
    assert.doesNotMatch(script, /array\['[0-9a-f]{8}-[0-9a-f-]{27}[/']/)
  }
})
