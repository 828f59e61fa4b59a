import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { flowOf } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { type Replica, replicasReady } from '../../tools/stack/services.ts'
import { eventually } from '../e2e/client.ts'
import { stopWell } from '../e2e/stack-program.ts'
import { type Customers, startShopping } from './customers.ts'
import { type Attempt, describeErrand, type Errand, finalResponseOf } from './errands.ts'
import { fetchFromReplica, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'
import { memoryOf, type WatchReport, watchOutage } from './watch.ts'

// OUTAGE_SECONDS sets the length of each outage; `full` makes the outages realistically long.
const LENGTH = process.env.OUTAGE_SECONDS ?? '20'
const secondsOf = (full: number) => (LENGTH === 'full' ? full : Number(LENGTH))
const OUTAGES = [
  { server: 'kafka', how: 'killed', seconds: secondsOf(180) },
  { server: 'kafka', how: 'frozen', seconds: secondsOf(180) },
  { server: 'postgres', how: 'killed', seconds: secondsOf(60) },
  { server: 'postgres', how: 'frozen', seconds: secondsOf(60) },
] as const

/** Errands before the outage, so that code is compiled and memory is at its working level. */
const WARM_ERRANDS = 100
const WARM_LIMIT_MS = 90_000
/**
 * The longest that a request may take during any outage: a request that waits for an order's outcome waits 7
 * s, then reads the order from a database that is found to be unresponsive within 5 s. The rest allows for a
 * busy machine.
 */
const RESPONSE_LIMIT_MS = 15_000
/**
 * This long after the start of the outage, the database is known to be unresponsive, and requests are
 * rejected at once.
 */
const UNRESPONSIVE_KNOWN_MS = 8_000
const REJECTION_LIMIT_MS = 2_000
const MEMORY_GROWTH_LIMIT_MB = 128
/** After 20 s a process stops draining and exits with another code; see platform/process/process.ts. */
const DRAIN_LIMIT_MS = 20_000
const READY_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 60_000

const stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
after(() => stack.close())
const { client, replicas } = stack

for (const outage of OUTAGES) {
  const { server: name, how, seconds } = outage
  const server = stack[name]
  const title = `${name} ${how} for ${seconds} s: all services stay up, report the outage, lose nothing and settle`
  const timeout = seconds * 1_000 + 400_000
  test(title, { timeout }, async (t) => {
    const customers = await startShopping(client)
    await eventually(async () => assert.ok(finalCount(customers) >= WARM_ERRANDS), WARM_LIMIT_MS)
    const memoryBefore = memoryOf(replicas)

    await (how === 'killed' ? server.kill() : server.freeze())
    const outageMs = performance.now()
    const watch = watchOutage(replicas, name === 'kafka' ? 'broker' : 'database')
    await sleep(seconds * 1_000)
    const memoryAfter = memoryOf(replicas)
    const report = await watch.stop()
    await customers.stop()
    assertResponses(customers)
    if (name === 'kafka') await assertServed(customers, outageMs)
    else assertRejected(customers, outageMs)
    if (name === 'kafka') assertBacklogShows(report, seconds)
    assertMemory(memoryBefore, memoryAfter)

    // Processes must be able to stop cleanly during the outage, and processes that start must wait.
    const drains = await Promise.all(replicas.map(stopWell))
    for (const tookMs of drains) assert.ok(tookMs < DRAIN_LIMIT_MS)
    await Promise.all(replicas.map((replica) => replica.server.start()))
    await Promise.all(replicas.map(assertAliveNotReady))

    await (how === 'killed' ? server.start() : server.thaw())
    const backMs = performance.now()
    const sinceBack = () => `${((performance.now() - backMs) / 1000).toFixed(1)} s`
    await replicasReady(replicas, AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
    const readyAfter = sinceBack()
    await customers.finishAll(SETTLE_LIMIT_MS)
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, SETTLE_LIMIT_MS)
    await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
    const settledAfter = sinceBack()

    const attempts = errands.flatMap((errand) => errand.attempts)
    const rejected = attempts.filter(({ response }) => response?.status === 503).length
    const memory = [...memoryAfter].map(([key, mb]) => `${key} ${memoryBefore.get(key)} to ${mb}`)
    const round = (values: readonly number[]) => values.map(Math.round).join(', ')
    t.diagnostic(`${errands.length} errands in ${attempts.length} requests, ${rejected} rejected`)
    t.diagnostic(`the slowest response took ${Math.max(...attempts.map(lengthOf))} ms`)
    t.diagnostic(`memory in MB: ${memory.join(', ')}`)
    t.diagnostic(`not ready after ${round([report.noticedMs])} ms`)
    const { slowestHealthMs, slowestScrapeMs } = report
    t.diagnostic(`slowest health and scrape: ${round([slowestHealthMs, slowestScrapeMs])} ms`)
    t.diagnostic(`ended by SIGTERM in ${round(drains)} ms`)
    t.diagnostic(`ready after ${readyAfter}, all settled and audited after ${settledAfter}`)
  })
}

const finalCount = ({ errands }: Customers) => errands.filter(finalResponseOf).length
const lengthOf = ({ startedMs, endedMs }: Attempt) => Math.round(endedMs - startedMs)
const isDuring =
  (outageMs: number) =>
  ({ startedMs }: Attempt) =>
    startedMs > outageMs

/** Without the broker every style continues, as the table in the README says. */
async function assertServed(customers: Customers, outageMs: number): Promise<void> {
  const rich = new Set(customers.accounts.filter(({ funds }) => funds > 0).map(({ id }) => id))
  const expectedStatus = ({ kind, style, account }: Errand) => {
    if (kind === 'deposit') return 200
    return flowOf(style).response === 'id' || rich.has(account) ? 201 : 402
  }
  const served = customers.errands.filter(({ attempts }) => attempts.some(isDuring(outageMs)))
  for (const errand of served) {
    assert.equal(
      errand.attempts.at(-1)?.response?.status,
      expectedStatus(errand),
      describeErrand(errand),
    )
  }
  for (const { response } of customers.reads.filter(isDuring(outageMs))) {
    assert.equal(response?.status, 200)
  }
  const outcomes = { http: 'APPROVED', hybrid: 'APPROVED', events: 'PENDING' } as const
  for (const [style, state] of Object.entries(outcomes)) {
    const last = served.findLast((errand) => errand.style === style && errand.kind === 'order')
    const final = last && finalResponseOf(last)
    assert.ok(final && 'orderId' in final)
    const isPoor = !rich.has(last.account) && flowOf(last.style).response === 'outcome'
    const order = await client.getOrder(last.account, final.orderId, 0)
    assert.equal(order.state, isPoor ? 'CANCELED' : state)
  }
}

/** Without the database every request is rejected, in time. */
function assertRejected({ errands, reads }: Customers, outageMs: number): void {
  const attempts = [...errands.flatMap((errand) => errand.attempts), ...reads].filter(
    isDuring(outageMs),
  )
  assert.ok(attempts.length > 0)
  for (const one of attempts) {
    const description = `${JSON.stringify(one.response?.body)} after ${lengthOf(one)} ms`
    // 429: the request was queued for too long behind requests that the database did not answer.
    const { response } = one
    assert.ok(response && [429, 503].includes(response.status), description)
    assert.match(response.headers.get('content-type') ?? '', /^application\/problem\+json/)
    assert.match(response.headers.get('retry-after') ?? '', /^\d+$/)
    const isKnown = one.startedMs > outageMs + UNRESPONSIVE_KNOWN_MS
    assert.ok(lengthOf(one) < (isKnown ? REJECTION_LIMIT_MS : RESPONSE_LIMIT_MS), description)
  }
}

/** Every request has a response in time, and none is an internal error. */
function assertResponses({ errands, reads }: Customers): void {
  for (const one of [...errands.flatMap(({ attempts }) => attempts), ...reads]) {
    const description = `${JSON.stringify(one.response?.body)} after ${lengthOf(one)} ms`
    assert.ok([200, 201, 402, 409, 429, 503].includes(one.response?.status ?? 0), description)
    assert.ok(lengthOf(one) < RESPONSE_LIMIT_MS, description)
  }
}

/** The outboxes of the services that send events grow, in rows and in age. */
function assertBacklogShows({ outboxRows, oldestSeconds }: WatchReport, seconds: number): void {
  for (const service of ['order', 'billing']) {
    const rows = outboxRows.get(service) ?? []
    assert.ok(rows.length >= 2, service)
    assert.ok(rows.at(-1)! > rows[0]!, `the outbox of ${service} has ${rows}`)
    assert.ok(oldestSeconds.get(service)! > seconds / 2, `${oldestSeconds.get(service)} s`)
  }
}

function assertMemory(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>) {
  for (const [replica, mb] of after) {
    const limit = before.get(replica)! + MEMORY_GROWTH_LIMIT_MB
    assert.ok(mb < limit, `${replica} had ${before.get(replica)} MB and has ${mb} MB`)
  }
}

async function assertAliveNotReady(replica: Replica): Promise<void> {
  const alive = async () =>
    (await fetchFromReplica(replica, 'actuator/health/liveness')).status === 200
  await until(alive, { limitMs: READY_LIMIT_MS, ended: replica.server.ended })
  const { status } = await fetchFromReplica(replica, 'actuator/health/readiness')
  assert.equal(status, 503)
}
