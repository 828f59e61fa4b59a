import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { flowOf, type InteractionStyle } from '../../contracts/style.ts'
import { eventually, UNIT_PRICE } from './client.ts'
import { PATIENT } from './order-burst.ts'
import { startApart } from './program.ts'
import { type Span, startTraceCollector } from './trace-collector.ts'
import { WAIT_LIMIT_MS } from './world.ts'

const ORDERS_EACH = 20
/** Of four orders, the account has money for three. */
const AFFORDABLE = 15
const CUSTOMER_SPAN = '00f067aa0ba902b7'

const collector = await startTraceCollector()
const program = await startApart({ ...PATIENT, ...collector.environment })
const { client } = program
after(async () => {
  await program.close()
  await collector.close()
})

const newTraceId = () => crypto.randomUUID().replaceAll('-', '')

/** The chains of spans of an order by style, from the customer to the last service. Each span is the parent of the next. */
const PAID_OR_REFUSED = {
  http: [
    [
      ...['order server POST /orders', 'order client POST', 'billing server POST /billing/account'],
      ...['billing client POST', 'notification server POST /notification'],
      'notification client commit notification',
    ],
    ['order server POST /orders', 'order client commit orders'],
    ['billing server POST /billing/account', 'billing client commit billing'],
  ],
  hybrid: [
    [
      ...['order server POST /orders', 'order client POST', 'billing server POST /billing/account'],
      ...['billing producer send payment', 'notification consumer process payment'],
    ],
    ['billing producer send payment', 'order consumer process payment'],
    ['billing server POST /billing/account', 'billing client commit billing'],
  ],
  events: [
    [
      ...['order server POST /orders', 'order producer send billing'],
      ...['billing consumer process billing', 'billing producer send payment'],
      'notification consumer process payment',
    ],
    ['billing producer send payment', 'order consumer process payment'],
    ['order server POST /orders', 'order client commit orders'],
  ],
} satisfies Partial<Record<InteractionStyle, readonly (readonly string[])[]>>
const TRACED = Object.keys(PAID_OR_REFUSED) as (keyof typeof PAID_OR_REFUSED)[]

const titleOf = ({ service, kind, name }: Span) => `${service} ${kind} ${name}`

/** Whether there is a chain of parent and child spans with these titles. */
function hasChain(spans: readonly Span[], titles: readonly string[]): boolean {
  const byId = new Map(spans.map((span) => [span.id, span]))
  const matches = (span: Span | undefined, upTo: number): boolean =>
    span !== undefined &&
    titleOf(span) === titles[upTo] &&
    (upTo === 0 || matches(byId.get(span.parentId), upTo - 1))
  return spans.some((span) => matches(span, titles.length - 1))
}

/** The whole trace of an order, once the spans of all its steps have arrived. */
function traceOfOrder(traceId: string, style: (typeof TRACED)[number]): Promise<Span[]> {
  return eventually(async () => {
    const spans = collector.inTrace(traceId)
    for (const chain of PAID_OR_REFUSED[style]) {
      assert.ok(hasChain(spans, chain), `${chain.join(' > ')} is not in\n${drawn(spans)}`)
    }
    return spans
  }, WAIT_LIMIT_MS)
}

const drawn = (spans: readonly Span[]) =>
  spans.map((span) => `${span.id} in ${span.parentId || '-'}: ${titleOf(span)}`).join('\n')

/** Places orders concurrently, each in its customer's trace; the money is enough for some of them. */
async function placeTogether(style: InteractionStyle): Promise<string[]> {
  const account = await client.fundedAccount(AFFORDABLE * UNIT_PRICE)
  const traceIds = Array.from({ length: ORDERS_EACH }, newTraceId)
  const answers = await Promise.all(
    traceIds.map((traceId) => {
      const traceparent = `00-${traceId}-${CUSTOMER_SPAN}-01`
      return client.order(account, { style, headers: { traceparent, tracestate: 'shop=7' } })
    }),
  )
  const refused = flowOf(style).response === 'id' ? 0 : ORDERS_EACH - AFFORDABLE
  assert.equal(answers.filter(({ status }) => status === 402).length, refused)
  return traceIds
}

for (const style of TRACED) {
  describe(`${style}: orders that are placed concurrently`, async () => {
    const traces = placeTogether(style).then((traceIds) =>
      Promise.all(traceIds.map((traceId) => traceOfOrder(traceId, style))),
    )
    traces.catch(() => undefined)

    test('are one trace each, from the customer through all three services', async () => {
      for (const spans of await traces) {
        assert.deepEqual([...new Set(spans.map(({ service }) => service))].sort(), [
          'billing',
          'notification',
          'order',
        ])
        const ids = new Set(spans.map(({ id }) => id))
        const roots = spans.filter(({ parentId }) => !ids.has(parentId))
        assert.deepEqual(roots.map(titleOf), ['order server POST /orders'], drawn(spans))
        assert.equal(roots[0]!.parentId, CUSTOMER_SPAN)
      }
    })

    test('have spans that follow the conventions', async () => {
      for (const span of (await traces).flat()) assertConventions(span)
    })

    test('are linked to the batches that they share, in both directions', async () => {
      const own = (await traces).flat()
      const traceIds = new Set(own.map(({ traceId }) => traceId))
      const members = own.filter(({ links }) => links.length > 0)
      assert.ok(members.length > 0, 'no spans were batched')
      for (const member of members) {
        const [link, ...more] = member.links
        assert.deepEqual(more, [])
        const batch = await eventually(async () => {
          const found = collector.spans.find(({ id }) => id === link!.spanId)
          assert.ok(found, `the batch of ${titleOf(member)} has not arrived`)
          return found
        }, WAIT_LIMIT_MS)
        assert.equal(batch.parentId, '')
        assert.equal(batch.service, member.service)
        assert.ok(!traceIds.has(batch.traceId), "a batch is not part of an order's trace")
        assert.ok(sizeOf(batch) > 1)
        assert.ok(
          batch.links.some(({ spanId }) => spanId === member.parentId) || sizeOf(batch) > 128,
          `${titleOf(batch)} has no link to the parent of ${titleOf(member)}`,
        )
      }
    })
  })
}

const sizeOf = ({ attributes }: Span) =>
  Number(attributes['messaging.batch.message_count'] ?? attributes['db.operation.batch.size'])

function assertConventions({ name, kind, attributes, failed }: Span): void {
  const has = (key: string) => assert.ok(attributes[key] !== undefined, `${name} has no ${key}`)
  if (kind === 'server') {
    assert.equal(name, `${attributes['http.request.method']} ${attributes['http.route']}`)
    for (const key of ['url.path', 'url.scheme', 'http.response.status_code']) has(key)
    assert.equal(failed, false, 'a refusal is not a failure of the server')
  } else if (kind === 'producer' || kind === 'consumer') {
    const operation = kind === 'producer' ? 'send' : 'process'
    assert.equal(name, `${operation} ${attributes['messaging.destination.name']}`)
    assert.equal(attributes['messaging.operation.name'], operation)
    assert.equal(attributes['messaging.operation.type'], operation)
    has('messaging.system')
    has('messaging.message.id')
    if (kind === 'consumer') has('messaging.consumer.group.name')
    assert.equal(failed, false)
  } else if (name.startsWith('commit')) {
    assert.equal(attributes['db.system.name'], 'postgresql')
  } else {
    assert.equal(name, attributes['http.request.method'])
    for (const key of ['server.address', 'server.port', 'url.full']) has(key)
    const status = Number(attributes['http.response.status_code'])
    assert.equal(failed, status >= 400)
    assert.equal(attributes['error.type'], status >= 400 ? String(status) : undefined)
  }
}

test('an order starts a trace if its request has no trace context', async () => {
  const account = await client.fundedAccount(UNIT_PRICE)
  const { body: id } = await client.order(account, { style: 'events' })
  const sent = await eventually(async () => {
    const isIts = ({ attributes }: Span) =>
      attributes['messaging.message.id'] === `${id}/ORDER_CREATED`
    const found = collector.spans.find(isIts)
    assert.ok(found)
    return found
  }, WAIT_LIMIT_MS)
  const spans = await traceOfOrder(sent.traceId, 'events')
  const roots = spans.filter(({ parentId }) => parentId === '')
  assert.deepEqual(roots.map(titleOf), ['order server POST /orders'])
})

test('a letter is in the trace of its order', async () => {
  const account = await client.fundedAccount(UNIT_PRICE)
  const json = { email: `${account}@customer.example` }
  await client.read(`/notification/contact/${account}`, { json }, 'PUT')
  const traceId = newTraceId()
  const traceparent = `00-${traceId}-${CUSTOMER_SPAN}-01`
  await client.order(account, { style: 'events', headers: { traceparent } })
  const end = ['notification consumer process payment', 'notification client send letter']
  await eventually(async () => {
    const spans = collector.inTrace(traceId)
    assert.ok(hasChain(spans, end), drawn(spans))
  }, WAIT_LIMIT_MS)
})

test('probes and scrapes are not traced', async () => {
  await client.call('GET', '/orders/actuator/health/readiness')
  await client.call('GET', '/orders/actuator/prometheus')
  const path = `/orders/${crypto.randomUUID()}`
  await client.call('GET', `${path}?profileId=${crypto.randomUUID()}`)
  const paths = await eventually(async () => {
    const traced = collector.spans.map(({ attributes }) => String(attributes['url.path']))
    assert.ok(traced.includes(path))
    return traced
  }, WAIT_LIMIT_MS)
  assert.deepEqual(
    paths.filter((one) => one.includes('actuator')),
    [],
  )
})

test('with OTEL_SDK_DISABLED no span is sent, whatever else is set', async (t) => {
  const quiet = await startTraceCollector()
  t.after(() => quiet.close())
  const disabled = await startApart({ ...quiet.environment, OTEL_SDK_DISABLED: 'true' })
  t.after(() => disabled.close())
  const account = await disabled.client.fundedAccount(UNIT_PRICE)
  const { body: id } = await disabled.client.order(account, { style: 'events' })
  assert.equal((await disabled.client.getOrder(account, id)).state, 'APPROVED')
  // Remaining spans would be sent when the program stops.
  await disabled.stop()
  assert.equal(quiet.requests(), 0)
})
