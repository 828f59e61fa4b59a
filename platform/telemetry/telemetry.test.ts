import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { wakeUpsOf } from '../../instruments/bench/processes.ts'
import { until } from '../async/until.ts'
import { createLog, createTelemetry, METRICS } from './telemetry.ts'

test('telemetry counts, observes and reads gauges at the scrape, with the label of the service', async () => {
  const telemetry = createTelemetry('order')
  telemetry.count('trifold_outbox_delivered_total', { carrier: 'http' })
  telemetry.count('trifold_outbox_delivered_total', { carrier: 'http' }, 2)
  telemetry.observe('trifold_relay_batch_size', 7)
  telemetry.gauge('trifold_outbox_oldest_seconds', () => 12)
  telemetry.gauge('trifold_outbox_rows', async () => [
    { labels: { carrier: 'http' }, value: 3 },
    { labels: { carrier: 'letter' }, value: 4 },
  ])
  const { contentType, body } = await telemetry.scrape()
  assert.match(contentType, /^text\/plain/)
  assert.match(body, /trifold_outbox_delivered_total\{carrier="http",service="order"\} 3\n/)
  assert.match(body, /trifold_relay_batch_size_bucket\{le="10",service="order"\} 1\n/)
  assert.match(body, /trifold_outbox_oldest_seconds\{service="order"\} 12\n/)
  assert.match(body, /trifold_outbox_rows\{carrier="letter",service="order"\} 4\n/)
})

test('a gauge whose reading fails is absent from the scrape until it can be read again', async () => {
  const telemetry = createTelemetry('order')
  let isDown = true
  telemetry.gauge('trifold_dead_letters', async () => {
    if (isDown) throw new Error('no database')
    return 5
  })
  telemetry.gauge('trifold_outbox_rows', async () => {
    if (isDown) throw new Error('no database')
    return [{ labels: { carrier: 'http' }, value: 3 }]
  })
  const value = /^trifold_dead_letters\{/m
  const labelled = /^trifold_outbox_rows\{/m
  for (const isIt of [true, false, true]) {
    isDown = isIt
    const { body } = await telemetry.scrape()
    assert.deepEqual([value.test(body), labelled.test(body)], [!isDown, !isDown])
  }
})

test('services in one process have separate metrics, and only one of them has the metrics of the process', async () => {
  const scrapes = await Promise.all(
    ['order', 'billing'].map(async (service) => {
      const telemetry = createTelemetry(service)
      telemetry.count('trifold_payments_total', { state: service })
      return (await telemetry.scrape()).body
    }),
  )
  assert.match(scrapes[1]!, /state="billing"/)
  assert.doesNotMatch(scrapes[1]!, /state="order"/)
  assert.ok(scrapes.filter((body) => body.includes('process_cpu')).length <= 1)
})

test('every metric has a name and a help text that Prometheus accepts', () => {
  for (const [name, { type, help }] of Object.entries(METRICS)) {
    assert.match(name, /^trifold_[a-z_]+$/)
    assert.equal(name.endsWith('_total'), type === 'counter', name)
    assert.match(help, /^[A-Z].*\.$/, name)
  }
})

test('log lines are JSON with service, level and ISO time, and credentials are masked', () => {
  const lines: string[] = []
  const log = createLog('info', 'order', { write: (line) => lines.push(line) })
  log.debug({}, 'not written')
  log.warn({ orderId: 'o1', headers: { authorization: 'Bearer x', accept: '*/*' } }, 'a sentence')
  log.info({ req: { headers: { cookie: 'a=b', authorization: 'c' } } }, 'another')
  const [first, second] = lines.map((line) => JSON.parse(line))
  assert.equal(lines.length, 2)
  assert.equal(first.service, 'order')
  assert.equal(first.level, 'warn')
  assert.equal(first.orderId, 'o1')
  assert.equal(first.msg, 'a sentence')
  assert.equal(new Date(first.time).toISOString(), first.time)
  assert.deepEqual(first.headers, { authorization: '[Redacted]', accept: '*/*' })
  assert.deepEqual(second.req.headers, { cookie: '[Redacted]', authorization: '[Redacted]' })
})

const linux = process.platform !== 'linux' && 'reads /proc, which is of Linux'

test('an idle process is not woken by its metrics', { skip: linux }, async () => {
  const program = `
    const { createTelemetry } = await import(${JSON.stringify(import.meta.resolve('./telemetry.ts'))})
    const { body } = await createTelemetry('order').scrape()
    console.log(/^nodejs_eventloop_lag_seconds\\{/m.test(body))
    setTimeout(() => {}, 60_000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program])
  try {
    const [output] = await once(child.stdout, 'data')
    assert.equal(String(output).trim(), 'true')
    // Compilation and garbage collection after the start also wake the process, and take longer on a slow
    // machine.
    await until(
      async () => {
        const before = wakeUpsOf(child.pid!).mainThread
        await sleep(1_000)
        const wakeUps = wakeUpsOf(child.pid!).mainThread - before
        if (wakeUps >= 20) throw new Error(`it was woken ${wakeUps} times in a second`)
        return true
      },
      { limitMs: 30_000 },
    )
  } finally {
    child.kill()
  }
})
