import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { context, trace } from '@opentelemetry/api'
import type { tracing } from '@opentelemetry/sdk-node'
import { traceIds } from '../../contracts/trace-context.ts'
import { createOpenTelemetryTracer } from './opentelemetry.ts'
import { createLog } from './telemetry.ts'
import { beginShared, inCommitSpans, noTracing, type SpanStart } from './tracing.ts'
import { isTracingOn } from './tracing-start.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const parent = { traceparent: `00-${traceId}-00f067aa0ba902b7-01`, tracestate: 'shop=7' }
const newParent = () => ({
  traceparent: `00-${crypto.randomUUID().replaceAll('-', '')}-00f067aa0ba902b7-01`,
})
const start = (given: Partial<SpanStart> = {}): SpanStart => ({
  name: 'send words',
  kind: 'producer',
  parent: {},
  ...given,
})

function setUp(t: { after(work: () => Promise<void>): void }, service = 'order') {
  const ended: tracing.ReadableSpan[] = []
  const tracer = createOpenTelemetryTracer({
    service,
    messagingSystem: 'kafka',
    log: createLog('silent', service),
    // A processor is used, because an exporter would receive the spans only after the SDK has detected its
    // resource.
    processor: {
      onStart: () => undefined,
      onEnd: (span) => void ended.push(span),
      forceFlush: async () => undefined,
      shutdown: async () => undefined,
    },
  })
  t.after(() => tracer.close())
  return { tracer, spans: () => ended }
}

describe('a span', () => {
  test('continues the trace of its parent, and its own context continues the span', (t) => {
    const { tracer, spans } = setUp(t)
    const span = tracer.begin(start({ parent, attributes: { words: 2, none: undefined } }))
    span.end({ attributes: { more: 'x' } })
    const [found] = spans()
    assert.equal(found!.spanContext().traceId, traceId)
    assert.equal(found!.parentSpanContext?.spanId, '00f067aa0ba902b7')
    assert.deepEqual({ ...found!.attributes }, { words: 2, more: 'x' })
    assert.deepEqual(traceIds(span.context), {
      trace_id: traceId,
      span_id: found!.spanContext().spanId,
    })
    assert.equal(span.context.tracestate, 'shop=7')
  })

  test('starts a trace if it has no parent, and records nothing if its parent was not sampled', (t) => {
    const { tracer, spans } = setUp(t)
    tracer.begin(start()).end()
    assert.equal(spans()[0]!.parentSpanContext, undefined)
    const unsampled = parent.traceparent.replace(/01$/, '00')
    const span = tracer.begin(start({ parent: { traceparent: unsampled } }))
    span.end()
    assert.equal(spans().length, 1)
    assert.match(span.context.traceparent!, new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`))
  })

  test('records the type of an error as a code, a class or a word', (t) => {
    const { tracer, spans } = setUp(t)
    const errors = [
      new RangeError('far'),
      Object.assign(new Error('no'), { code: 'E1' }),
      'REFUSED',
    ]
    for (const error of errors) tracer.begin(start()).end({ error })
    assert.deepEqual(
      spans().map(({ attributes, status }) => [attributes['error.type'], status.message]),
      [
        ['RangeError', 'far'],
        ['E1', 'no'],
        ['REFUSED', undefined],
      ],
    )
  })
})

test('services in one process have separate spans, and leave no globals behind', (t) => {
  const [order, billing] = [setUp(t, 'order'), setUp(t, 'billing')]
  order.tracer.begin(start()).end()
  billing.tracer.begin(start()).end()
  const names = [order, billing].map(({ spans }) => spans()[0]!.resource.attributes['service.name'])
  assert.deepEqual(names, ['order', 'billing'])
  trace.getTracer('another').startSpan('lost').end()
  assert.deepEqual([order.spans().length, billing.spans().length], [1, 1])
  assert.equal(
    context.with(context.active(), () => context.active()),
    context.active(),
  )
})

describe('spans of work that is shared', () => {
  const batchStart = { name: 'send', kind: 'client' } as const

  test('are one span in the trace of each member, and a batch span that is linked to all of these', (t) => {
    const { tracer, spans } = setUp(t)
    const members = [newParent(), newParent()].map((one) => start({ parent: one }))
    const shared = beginShared(tracer, members, batchStart)
    shared.end((index) => (index === 1 ? 'REFUSED' : undefined))
    const [first, second, batch] = spans()
    assert.deepEqual(
      [first, second].map((span) => span!.spanContext().traceId),
      members.map((member) => traceIds(member.parent).trace_id),
    )
    assert.deepEqual(
      shared.contexts.map((one) => traceIds(one).span_id),
      [first, second].map((span) => span!.spanContext().spanId),
    )
    for (const span of [first, second]) {
      assert.equal(span!.links[0]!.context.spanId, batch!.spanContext().spanId)
    }
    assert.equal(batch!.links.length, 2)
    assert.equal(batch!.parentSpanContext, undefined)
    assert.equal(first!.attributes['error.type'], undefined)
    assert.equal(second!.attributes['error.type'], 'REFUSED')
    assert.equal(batch!.attributes['error.type'], undefined)
  })

  test('are a single span if there is one member, and a batch span has at most 128 links', (t) => {
    const { tracer, spans } = setUp(t)
    beginShared(tracer, [start({ parent })], batchStart).end()
    assert.deepEqual(
      spans().map(({ name, links }) => [name, links.length]),
      [['send words', 0]],
    )
    const many = Array.from({ length: 200 }, () => start({ parent: newParent() }))
    beginShared(tracer, many, batchStart).end(() => 'lost')
    const batch = spans().at(-1)!
    assert.equal(batch.links.length, 128)
    assert.equal(batch.attributes['error.type'], 'lost')
    assert.equal(spans().length, 202)
  })

  test('record the error of a failed transaction, which is rethrown', async (t) => {
    const { tracer, spans } = setUp(t)
    const failing = inCommitSpans(tracer, 'orders', [parent], () =>
      Promise.reject(new RangeError('far')),
    )
    await assert.rejects(failing, RangeError)
    assert.equal(spans()[0]!.name, 'commit orders')
    assert.equal(spans()[0]!.attributes['error.type'], 'RangeError')
  })
})

test('without tracing, no span is created, and the context of the parent is passed on', async () => {
  assert.deepEqual(noTracing.begin(start({ parent })).context, parent)
  assert.deepEqual(noTracing.begin(start()).context, {})
  assert.equal(await inCommitSpans(noTracing, 'orders', [parent], async () => 7), 7)
})

test('tracing is on if an exporter is configured and nothing turns it off', () => {
  const off = {
    OTEL_EXPORTER_OTLP_ENDPOINT: '',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: '',
    OTEL_TRACES_EXPORTER: '',
    OTEL_SDK_DISABLED: false,
  }
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' }
  assert.equal(isTracingOn(off), false)
  assert.equal(isTracingOn({ ...off, ...endpoint }), true)
  assert.equal(isTracingOn({ ...off, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://x/v1' }), true)
  assert.equal(isTracingOn({ ...off, OTEL_TRACES_EXPORTER: 'console' }), true)
  assert.equal(isTracingOn({ ...off, ...endpoint, OTEL_TRACES_EXPORTER: 'none' }), false)
  assert.equal(isTracingOn({ ...off, ...endpoint, OTEL_SDK_DISABLED: true }), false)
})
