import assert from 'node:assert/strict'
import { test } from 'node:test'
import { traceContextOf } from '../contracts/trace-context.ts'
import type { Span, SpanStart, Tracer } from '../platform/telemetry/tracing.ts'
import { beginProcess, beginSend, tracedLetters } from './message-spans.ts'
import type { Delivery, OutboxRow } from './outbox/outbox.ts'

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const spanId = (number: number) => `00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000000${number}-01`

/** A tracer that numbers its spans and records how they started and ended. */
function recorder() {
  const spans: (SpanStart & { error?: unknown; ended: boolean })[] = []
  const tracer: Tracer = {
    isOn: true,
    messagingSystem: 'kafka',
    begin(start): Span {
      const span = { ...start, error: undefined as unknown, ended: false }
      spans.push(span)
      return {
        context: { traceparent: spanId(spans.length) },
        end({ error } = {}) {
          Object.assign(span, { error, ended: true })
        },
      }
    },
  }
  return { tracer, spans }
}

const row = (given: Partial<OutboxRow> = {}): OutboxRow => ({
  carrier: 'broker',
  id: 1n,
  destination: 'words',
  key: 'k',
  eventId: 'e1',
  body: '{}',
  headers: { ce_id: 'e1', traceparent },
  attempts: 0,
  ...given,
})
const message = (offset: bigint) => ({
  topic: 'words',
  partition: 3,
  offset,
  key: 'k',
  value: null,
  headers: { ce_id: `e${offset}`, traceparent },
})
const item = (offset: bigint) => ({
  message: message(offset),
  read: { event: { body: 'word', meta: { id: `e${offset}`, traceparent } } },
})

test('a row is sent in the trace that it carries, and the message carries the context of that span', () => {
  const { tracer, spans } = recorder()
  const send = beginSend(tracer, [row()])
  assert.deepEqual(send.rows[0]!.headers, { ce_id: 'e1', traceparent: spanId(1) })
  send.end(new RangeError('far'))
  const [{ name, kind, parent, attributes, error, ended }] = spans as [(typeof spans)[0]]
  assert.deepEqual([name, kind, parent], ['send words', 'producer', { traceparent }])
  assert.deepEqual(attributes, {
    'messaging.system': 'kafka',
    'messaging.operation.name': 'send',
    'messaging.operation.type': 'send',
    'messaging.destination.name': 'words',
    'messaging.message.id': 'e1',
  })
  assert.ok(ended && error instanceof RangeError)
})

test('a message is processed in its trace, and a refusal marks the span of that message only', () => {
  const { tracer, spans } = recorder()
  const process = beginProcess(tracer, 'readers', [item(1n), item(2n)])
  process.end({ refusalOf: ({ offset }) => (offset === 2n ? 'REFUSED' : undefined) })
  const events = process.run.map(({ read }) => read.event.meta)
  assert.deepEqual(events, [
    { id: 'e1', traceparent: spanId(2) },
    { id: 'e2', traceparent: spanId(3) },
  ])
  assert.deepEqual(
    spans.map(({ name, kind, error }) => [name, kind, error]),
    [
      ['process', 'consumer', undefined],
      ['process words', 'consumer', undefined],
      ['process words', 'consumer', 'REFUSED'],
    ],
  )
  assert.equal(spans[0]!.attributes?.['messaging.batch.message_count'], 2)
  assert.equal(spans[1]!.attributes?.['messaging.consumer.group.name'], 'readers')
  assert.equal(spans[1]!.attributes?.['messaging.destination.partition.id'], '3')
})

test('an unreadable message has a span as well', () => {
  const { tracer, spans } = recorder()
  const unreadable = { message: message(1n), read: { code: 'UNREADABLE', reason: 'why' } }
  const process = beginProcess(tracer, 'readers', [unreadable])
  process.end({ refusalOf: () => 'UNREADABLE' })
  assert.deepEqual(process.run, [unreadable])
  assert.equal(spans[0]!.error, 'UNREADABLE')
})

test('each attempt at a letter is a span in the trace of the request that caused it', async () => {
  const { tracer, spans } = recorder()
  const tries: Delivery[] = [{ kind: 'retry', error: 'not now' }, { kind: 'done' }]
  const deliver = tracedLetters(tracer, async () => tries.shift()!)
  for (const kind of ['retry', 'done']) assert.equal((await deliver(row())).kind, kind)
  const lost = tracedLetters(tracer, () => Promise.reject(new RangeError('far')))
  await assert.rejects(lost(row()), RangeError)
  assert.deepEqual(
    spans.map(({ name, parent }) => [name, traceContextOf({ ...parent })]),
    Array(3).fill(['send letter', { traceparent }]),
  )
  assert.deepEqual(
    spans.map(({ error }) => String(error)),
    ['retry', 'undefined', 'RangeError: far'],
  )
})
