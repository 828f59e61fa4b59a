import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { STYLES } from '../../contracts/style.ts'
import { eventually, FRESH } from './client.ts'
import { startProgram } from './program.ts'
import { ON_STACK } from './world.ts'

const program = await startProgram({ RESEND_AFTER_MS: '100' })
after(() => program.close())

type Path = 'orders' | 'billing' | 'notification'

/** The samples of a scrape of a service, by name and labels except `service`. */
async function scrape(path: Path): Promise<Map<string, number>> {
  const text = await program.read<string>(`/${path}/actuator/prometheus`, FRESH)
  return new Map(
    [...text.matchAll(/^(\w+)\{(.*)\} (\S+)$/gm)].map(([, name, labels = '', value]) => {
      const own = labels.split(',').filter((label) => !label.startsWith('service='))
      return [`${name}{${own.join(',')}}`, Number(value)]
    }),
  )
}

/** The samples of one metric that are greater than zero. */
async function positive(path: Path, name: string): Promise<string[]> {
  return [...(await scrape(path))]
    .filter(([sample, value]) => sample.startsWith(`${name}{`) && value > 0)
    .map(([sample]) => sample.slice(name.length))
    .sort()
}

test('orders of each style are counted with their durations, and leave no outbox row or lag', async () => {
  const account = await program.fundedAccount(1_000)
  for (const style of STYLES) {
    const { status, body: id } = await program.order(account, { style })
    assert.equal(status, 201)
    assert.equal((await program.getOrder(account, id)).state, 'APPROVED')
  }
  const orders = await scrape('orders')
  for (const style of STYLES) {
    assert.equal(orders.get(`trifold_orders_total{style="${style}",state="APPROVED",reason=""}`), 1)
    assert.equal(orders.get(`trifold_orders_pending{style="${style}"}`), 0)
    assert.equal(orders.get(`trifold_orders_pending_oldest_seconds{style="${style}"}`), 0)
  }
  const calls = 'trifold_http_client_seconds_count'
  assert.equal(orders.get(`${calls}{target="billing",outcome="2xx"}`), 2)
  assert.ok(orders.get('trifold_request_batch_size_count{}')! >= 3)
  assert.ok(
    orders.get('trifold_database_seconds_count{operation="transaction",outcome="done"}')! > 0,
  )
  assert.deepEqual(await positive('billing', calls), ['{target="notification",outcome="2xx"}'])
})

test('each service reports its dependencies and the lag of its group', async () => {
  const groups = { orders: 'order', billing: 'billing', notification: 'notification' }
  for (const path of ['orders', 'billing', 'notification'] as const) {
    const topic = path === 'billing' ? 'billing' : 'payment'
    await eventually(async () => {
      const samples = await scrape(path)
      for (const dependency of ['database', 'broker']) {
        assert.equal(samples.get(`trifold_ready{dependency="${dependency}"}`), 1)
      }
      const read = `group="${groups[path]}",topic="${topic}"`
      const partitions = samples.get(`trifold_consumer_topic_partitions{${read}}`)!
      assert.ok(partitions > 0)
      for (let partition = 0; partition < partitions; partition += 1) {
        const sample = `trifold_consumer_lag_messages{${read},partition="${partition}"}`
        assert.equal(samples.get(sample), 0, sample)
      }
    })
  }
})

test('an order without an outcome is counted as pending and as resent', async () => {
  const account = await program.fundedAccount(100)
  await program.lab.billing.stop()
  const { body: id } = await program.order(account)
  await eventually(async () => {
    const samples = await scrape('orders')
    assert.equal(samples.get('trifold_orders_pending{style="events"}'), 1)
    assert.ok(samples.get('trifold_orders_pending_oldest_seconds{style="events"}')! > 0)
    assert.ok(samples.get('trifold_asked_again_total{style="events"}')! > 0)
  })
  await program.lab.billing.start()
  assert.equal((await program.getOrder(account, id)).state, 'APPROVED')
})

test('a service that is switched off still shows its state to operators', {
  skip:
    ON_STACK &&
    'on the stack a service is a separate process, and a process that has ended does not respond',
}, async () => {
  const account = await program.fundedAccount(100)
  await program.lab.notification.stop()
  await program.order(account, { style: 'http' })
  await program.lab.billing.stop()
  for (const prefix of ['', '/otusapp/gur-ok']) {
    const rows = await program.read<{ key: string; attempts: number }[]>(
      `${prefix}/billing/outbox?key=${account}&carrier=http`,
    )
    assert.deepEqual(
      rows.map(({ key }) => key),
      [account],
    )
  }
  assert.deepEqual(await program.read('/billing/dead-letters'), [])
  const samples = await scrape('billing')
  assert.equal(samples.get('trifold_ready{dependency="service"}'), 0)
  assert.equal(samples.get('trifold_outbox_rows{carrier="http"}'), 1)
  const health = await program.call<{ components: object }>('GET', '/billing/actuator/health')
  assert.equal(health.status, 503)
  assert.deepEqual(health.body.components, {
    database: { status: 'UP' },
    service: { status: 'DOWN' },
  })
  assert.equal((await program.call('GET', `/billing/account/${account}`)).status, 503)
  for (const name of ['billing', 'notification'] as const) await program.lab[name].start()
  assert.equal((await program.call('GET', '/billing/actuator/health')).status, 200)
})

test('while the broker is down it is reported as not ready, and the unknown lag is absent', async () => {
  await program.lab.broker.stop()
  const samples = await scrape('billing')
  assert.equal(samples.get('trifold_ready{dependency="broker"}'), 0)
  assert.equal(samples.get('trifold_ready{dependency="database"}'), 1)
  const lags = [...samples.keys()].filter((sample) => sample.includes('_lag_messages'))
  assert.deepEqual(lags, [])
  await program.lab.broker.start()
  await eventually(async () => {
    assert.equal((await scrape('billing')).get('trifold_ready{dependency="broker"}'), 1)
  })
})
