import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { traceContextOf, traceIds, traceOf } from './trace-context.ts'

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'

describe('the trace context of headers', () => {
  test('has only traceparent and tracestate', () => {
    assert.deepEqual(traceContextOf({ traceparent, other: 'x' }), { traceparent })
    const both = { traceparent, tracestate: 'a=1,b=2' }
    assert.deepEqual(traceContextOf({ ...both, other: 'x' }), both)
    const later = traceparent.replace(/^00/, '01')
    assert.deepEqual(traceContextOf({ traceparent: later }), { traceparent: later })
  })

  test('is empty if the traceparent is invalid, whatever the tracestate is', () => {
    const wrong = [
      ...['', 'x', traceparent.toUpperCase(), `${traceparent}-1`, traceparent.replace(/^00/, 'ff')],
      traceparent.replace('00f067aa0ba902b7', '0'.repeat(16)),
      traceparent.replace('4bf92f3577b34da6a3ce929d0e0e4736', '0'.repeat(32)),
      ...[undefined, 1, [traceparent]],
    ]
    for (const one of wrong) {
      assert.deepEqual(traceContextOf({ traceparent: one, tracestate: 'a=1' }), {})
    }
  })

  test('leaves out a tracestate that is too long or not printable', () => {
    for (const tracestate of ['', 'a=\n', 'a=é', 'x'.repeat(513), 7]) {
      assert.deepEqual(traceContextOf({ traceparent, tracestate }), { traceparent })
    }
  })
})

test('traceOf picks the trace context of an object, and traceIds the ids for log lines', () => {
  const meta = { id: '1', traceparent, tracestate: 'a=1' }
  assert.deepEqual(traceOf(meta), { traceparent, tracestate: 'a=1' })
  assert.deepEqual(traceOf({ tracestate: 'a=1' }), {})
  assert.deepEqual(traceIds(meta), {
    trace_id: '4bf92f3577b34da6a3ce929d0e0e4736',
    span_id: '00f067aa0ba902b7',
  })
  assert.deepEqual(traceIds({}), {})
})
