import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Tables } from '../simulation/checks/tables.ts'
import type { Operation } from '../simulation/world/customers.ts'
import { figuresOf, type Report } from './figures.ts'
import { chaosPicture } from './picture.ts'
import { reportPage } from './report.ts'

const START_MS = 1_000_000

/** Read requests, each sent `afterMs` into the run; `tookMs` is undefined if it got no response. */
const reads = (...times: readonly (readonly [afterMs: number, tookMs: number | undefined])[]) =>
  times.map(
    ([afterMs, tookMs]): Operation => ({
      intent: { kind: 'list orders', accountId: 'a' },
      style: 'http',
      attempts: [
        {
          sentMs: START_MS + afterMs,
          doneMs: START_MS + afterMs + (tookMs ?? 9_000),
          ...(tookMs !== undefined && { response: { status: 200, body: [] } }),
        },
      ],
    }),
  )

const orderAt = (afterMs: number, state: 'APPROVED' | 'CANCELED' | 'PENDING') => ({
  id: 'o',
  profileId: 'a',
  quantity: 1,
  priceMinor: 6_500n,
  state,
  reason: null,
  style: 'http' as const,
  created: new Date(START_MS),
  updated: new Date(START_MS + afterMs),
})

const tables: Tables = {
  accounts: [],
  entries: [],
  deposits: [],
  payments: [],
  messages: [],
  orders: [orderAt(100, 'APPROVED'), orderAt(900, 'CANCELED'), orderAt(2_500, 'APPROVED')],
}

const times = { startedMs: START_MS, endMs: START_MS + 3_000 }
const operations = reads([0, 10], [100, 30], [200, 20], [2_000, undefined])
const figures = figuresOf(operations, tables, times)

const at = { detail: '', beganMs: START_MS, endedMs: START_MS + 500 }
const report: Report = {
  seed: 7,
  style: 'mixed',
  minutes: 1,
  startedMs: START_MS,
  findings: [],
  diskRefusals: 3,
  endedSessions: 2,
  healedMs: START_MS + 2_000,
  restMs: START_MS + 3_000,
  withoutDisk: undefined,
  checked: { 'I3 orders': 3 },
  faults: [
    { target: 'Kafka', name: 'freeze', detail: '', beganMs: START_MS, endedMs: START_MS + 1_500 },
    { target: 'order 1', name: 'freeze in transaction', ...at },
    { target: 'order 2', name: 'wrong clock', ...at },
  ],
  ...figures,
}

describe('figures', () => {
  test('count latencies in the second of the request, and orders in the second they settled', () => {
    assert.deepEqual(figures.seconds, [
      { requests: 3, unanswered: 0, p50Ms: 20, p99Ms: 30, settled: 2 },
      { requests: 0, unanswered: 0, p50Ms: undefined, p99Ms: undefined, settled: 0 },
      { requests: 1, unanswered: 1, p50Ms: undefined, p99Ms: undefined, settled: 1 },
    ])
    assert.deepEqual(figures.orders, { APPROVED: 2, CANCELED: 1, PENDING: 0 })
  })

  test('do not count pending orders as settled', () => {
    const pending = { ...tables, orders: [orderAt(100, 'PENDING')] }
    const { seconds, orders } = figuresOf(operations, pending, times)
    assert.equal(
      seconds.reduce((sum, { settled }) => sum + settled, 0),
      0,
    )
    assert.equal(orders.PENDING, 1)
  })
})

describe('the page', () => {
  test('is marked clean if no rule is violated, and needs no other file', () => {
    const page = reportPage(report)
    assert.match(page, /class="verdict clean">clean</)
    assert.match(page, /freeze, from 0\.0 s for 1\.5 s/)
    assert.match(page, /class="clock".+wrong clock/)
    assert.match(page, /ended 2 sessions that were idle in a transaction/)
    assert.match(page, /--minutes 1 --style mixed --seed 7/)
    assert.doesNotMatch(page, /https?:|src=|href=|@import/)
  })

  test('lists violations as text, never as markup', () => {
    const finding = { invariant: 'I3', subject: 'order <1>', sentence: 'is "lost" & gone' }
    const page = reportPage({ ...report, findings: [finding] })
    assert.match(page, /class="verdict violated">violated</)
    assert.match(page, /<h1>1 violation</)
    assert.match(page, /order &#60;1&#62;/)
    assert.ok(!page.includes('<1>'))
  })
})

test('the picture for the documents has all charts, describes the run, and needs no other file', () => {
  const picture = chaosPicture({ ...report, findings: [] })
  assert.equal(picture.match(/<svg /g)?.length, 4)
  assert.match(picture, /all three styles\. Seed 7, .+ UTC\. Violations: 0\./)
  assert.match(picture, /freeze in transaction, from 0\.0 s/)
  assert.doesNotMatch(picture, /src=|href=|@import|undefined|NaN/)
})
