import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { flowOf } from '../../contracts/style.ts'
import { until } from '../../platform/async/until.ts'
import { type Replica, replicasReady } from '../../tools/stack/services.ts'
import { eventually } from '../e2e/client.ts'
import { stopWell } from '../e2e/stack-program.ts'
import { beginShopping, type Customers } from './customers.ts'
import { describeErrand, type Errand, type Try, toldOf } from './errands.ts'
import { askReplica, startOwnStack } from './own-stack.ts'
import { assertPromisesKept } from './promises.ts'
import { memoryOf, type WatchReport, watchOutage } from './watch.ts'

// OUTAGE_SECONDS=full makes them as long as an operator may have to bear; a number makes each so long.
const LENGTH = process.env.OUTAGE_SECONDS ?? '20'
const secondsOf = (full: number) => (LENGTH === 'full' ? full : Number(LENGTH))
const OUTAGES = [
  { server: 'kafka', how: 'killed', seconds: secondsOf(180) },
  { server: 'kafka', how: 'frozen', seconds: secondsOf(180) },
  { server: 'postgres', how: 'killed', seconds: secondsOf(60) },
  { server: 'postgres', how: 'frozen', seconds: secondsOf(60) },
] as const

/** So many errands are done before, so that everything is warm and memory is what it is at work. */
const WARM_ERRANDS = 100
const WARM_LIMIT_MS = 90_000
/**
 * The longest that a request may take, whatever is away: what waits for the outcome of an order waits
 * 7 s, then looks for it in a database whose silence shows within 5 s. The rest is the machine's.
 */
const ANSWER_LIMIT_MS = 15_000
/** Once the silence of the database is known, requests are refused at once. */
const SILENCE_KNOWN_MS = 8_000
const REFUSAL_LIMIT_MS = 2_000
const MEMORY_GROWTH_LIMIT_MB = 128
/** A process ends by its own limit after 20 s, with another exit code; see platform/process/process.ts. */
const DRAIN_LIMIT_MS = 20_000
const READY_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 60_000

const stack = await startOwnStack({ order: 1, billing: 1, notification: 1 })
after(() => stack.close())
const { client, replicas } = stack

for (const outage of OUTAGES) {
  const { server: name, how, seconds } = outage
  const server = stack[name]
  const title = `${name} ${how} for ${seconds} s: all stay up, say so, lose nothing and settle`
  const timeout = seconds * 1_000 + 400_000
  test(title, { timeout }, async (t) => {
    const customers = await beginShopping(client)
    await eventually(async () => assert.ok(told(customers) >= WARM_ERRANDS), WARM_LIMIT_MS)
    const memoryBefore = memoryOf(replicas)

    await (how === 'killed' ? server.kill() : server.freeze())
    const awayMs = performance.now()
    const watch = watchOutage(replicas, name === 'kafka' ? 'broker' : 'database')
    await sleep(seconds * 1_000)
    const memoryAfter = memoryOf(replicas)
    const report = await watch.stop()
    await customers.stop()
    assertAnswers(customers)
    if (name === 'kafka') await assertServed(customers, awayMs)
    else assertRefused(customers, awayMs)
    if (name === 'kafka') assertBacklogShows(report, seconds)
    assertMemory(memoryBefore, memoryAfter)

    // Who has to end now, ends well; who starts now waits.
    const drains = await Promise.all(replicas.map(stopWell))
    for (const tookMs of drains) assert.ok(tookMs < DRAIN_LIMIT_MS)
    await Promise.all(replicas.map((replica) => replica.server.start()))
    await Promise.all(replicas.map(assertAliveNotReady))

    await (how === 'killed' ? server.start() : server.thaw())
    const backMs = performance.now()
    const sinceBack = () => `${((performance.now() - backMs) / 1000).toFixed(1)} s`
    await replicasReady(replicas, AbortSignal.timeout(READY_LIMIT_MS), () => undefined)
    const readyAfter = sinceBack()
    await customers.insist(SETTLE_LIMIT_MS)
    const { accounts, errands } = customers
    await assertPromisesKept(client, accounts, errands, SETTLE_LIMIT_MS)
    await stack.untilInvariantsHold(SETTLE_LIMIT_MS)
    const settledAfter = sinceBack()

    const tries = errands.flatMap((errand) => errand.tries)
    const refused = tries.filter(({ answer }) => answer?.status === 503).length
    const memory = [...memoryAfter].map(([key, mb]) => `${key} ${memoryBefore.get(key)} to ${mb}`)
    const round = (values: readonly number[]) => values.map(Math.round).join(', ')
    t.diagnostic(`${errands.length} errands in ${tries.length} requests, ${refused} refused`)
    t.diagnostic(`the slowest answer took ${Math.max(...tries.map(lengthOf))} ms`)
    t.diagnostic(`memory in MB: ${memory.join(', ')}`)
    t.diagnostic(`not ready after ${round([report.noticedMs])} ms`)
    const { slowestHealthMs, slowestScrapeMs } = report
    t.diagnostic(`slowest health and scrape: ${round([slowestHealthMs, slowestScrapeMs])} ms`)
    t.diagnostic(`ended by SIGTERM in ${round(drains)} ms`)
    t.diagnostic(`ready after ${readyAfter}, all settled and audited after ${settledAfter}`)
  })
}

const told = ({ errands }: Customers) => errands.filter(toldOf).length
const lengthOf = ({ begunMs, endedMs }: Try) => Math.round(endedMs - begunMs)
const isDuring =
  (awayMs: number) =>
  ({ begunMs }: Try) =>
    begunMs > awayMs

/** Without the broker every style goes on, as the table of the README says. */
async function assertServed(customers: Customers, awayMs: number): Promise<void> {
  const rich = new Set(customers.accounts.filter(({ funds }) => funds > 0).map(({ id }) => id))
  const expectedStatus = ({ kind, style, account }: Errand) => {
    if (kind === 'deposit') return 200
    return flowOf(style).response === 'id' || rich.has(account) ? 201 : 402
  }
  const served = customers.errands.filter(({ tries }) => tries.some(isDuring(awayMs)))
  for (const errand of served) {
    assert.equal(
      errand.tries.at(-1)?.answer?.status,
      expectedStatus(errand),
      describeErrand(errand),
    )
  }
  for (const { answer } of customers.looks.filter(isDuring(awayMs))) {
    assert.equal(answer?.status, 200)
  }
  const outcomes = { http: 'APPROVED', hybrid: 'APPROVED', events: 'PENDING' } as const
  for (const [style, state] of Object.entries(outcomes)) {
    const last = served.findLast((errand) => errand.style === style && errand.kind === 'order')
    const words = last && toldOf(last)
    assert.ok(words && 'orderId' in words)
    const isPoor = !rich.has(last.account) && flowOf(last.style).response === 'outcome'
    const order = await client.getOrder(last.account, words.orderId, 0)
    assert.equal(order.state, isPoor ? 'CANCELED' : state)
  }
}

/** Without the database nothing can be served, and each request is told so, in time. */
function assertRefused({ errands, looks }: Customers, awayMs: number): void {
  const tries = [...errands.flatMap((errand) => errand.tries), ...looks].filter(isDuring(awayMs))
  assert.ok(tries.length > 0)
  for (const one of tries) {
    const said = `${JSON.stringify(one.answer?.body)} after ${lengthOf(one)} ms`
    assert.equal(one.answer?.status, 503, said)
    assert.match(one.answer.headers.get('content-type') ?? '', /^application\/problem\+json/)
    assert.match(one.answer.headers.get('retry-after') ?? '', /^\d+$/)
    const isKnown = one.begunMs > awayMs + SILENCE_KNOWN_MS
    assert.ok(lengthOf(one) < (isKnown ? REFUSAL_LIMIT_MS : ANSWER_LIMIT_MS), said)
  }
}

/** Never a fault of ours, never silence, and never longer than it may take. */
function assertAnswers({ errands, looks }: Customers): void {
  for (const one of [...errands.flatMap(({ tries }) => tries), ...looks]) {
    const said = `${JSON.stringify(one.answer?.body)} after ${lengthOf(one)} ms`
    assert.ok([200, 201, 402, 409, 503].includes(one.answer?.status ?? 0), said)
    assert.ok(lengthOf(one) < ANSWER_LIMIT_MS, said)
  }
}

/** The outbox of each service that has something to send grows, and so does its age. */
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
  const alive = async () => (await askReplica(replica, 'actuator/health/liveness')).status === 200
  await until(alive, { limitMs: READY_LIMIT_MS, ended: replica.server.ended })
  const { status } = await askReplica(replica, 'actuator/health/readiness')
  assert.equal(status, 503)
}
