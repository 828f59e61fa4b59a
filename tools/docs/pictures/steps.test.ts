import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Span } from '../../../tests/e2e/trace-collector.ts'
import type { Recording } from './recording.ts'
import { sequencePicture } from './sequence.ts'
import { stepsOf } from './steps.ts'
import { structureOf, structurePicture } from './structure.ts'

const ACCOUNT = '11111111-1111-4111-8111-111111111111'

type Place = readonly [id: string, parentId: string, start: number, end: number]

function span(
  service: string,
  kind: Span['kind'],
  name: string,
  [id, parentId, start, end]: Place,
  attributes: Record<string, unknown> = {},
): Span {
  const times = { start: BigInt(start) * 1_000_000n, end: BigInt(end) * 1_000_000n }
  return {
    service,
    kind,
    name,
    id,
    parentId,
    traceId: 't',
    links: [],
    failed: false,
    attributes,
    ...times,
  }
}

const server = (service: string, method: string, path: string, at: Place, status = 200) =>
  span(service, 'server', path, at, {
    'http.request.method': method,
    'url.path': path,
    'http.response.status_code': status,
  })
const client = (service: string, path: string, at: Place, status = 200): Span => ({
  ...span(service, 'client', 'POST', at, {
    'http.request.method': 'POST',
    'url.full': `http://127.0.0.1:1${path}`,
    'http.response.status_code': status,
  }),
  failed: status >= 400,
})
const commit = (service: string, at: Place) => span(service, 'client', `commit ${service}`, at)
const producer = (service: string, topic: string, event: string, at: Place) =>
  span(service, 'producer', `send ${topic}`, at, {
    'messaging.destination.name': topic,
    'messaging.message.id': event,
  })
const consumer = (service: string, topic: string, event: string, at: Place) =>
  span(service, 'consumer', `process ${topic}`, at, {
    'messaging.destination.name': topic,
    'messaging.message.id': event,
  })

function recording(spans: readonly Span[], more: Partial<Recording> = {}): Recording {
  const names = ['ORDER_CREATED', 'ORDER_PAID', 'BALANCE_CHANGED', 'PAYMENT_FAIL']
  const events = new Map(names.map((name) => [name, name]))
  return {
    style: 'events',
    scene: 'paid',
    states: undefined,
    off: undefined,
    spans,
    events,
    ...more,
  }
}

/** An order in `events`. The billing service sends the balance before or after the announcement. */
const inEvents = (balanceAt: number, readAt: readonly [order: number, notification: number]) => [
  server('order', 'POST', '/orders', ['a', '', 0, 9], 201),
  commit('order', ['b', 'a', 1, 2]),
  producer('order', 'billing', 'ORDER_CREATED', ['c', 'a', 3, 4]),
  consumer('billing', 'billing', 'ORDER_CREATED', ['d', 'c', 5, 6]),
  producer('billing', 'payment', 'ORDER_PAID', ['e', 'd', 8, 9]),
  producer('billing', 'balance', 'BALANCE_CHANGED', ['f', 'd', balanceAt, balanceAt + 1]),
  consumer('order', 'payment', 'ORDER_PAID', ['g', 'e', readAt[0], readAt[0] + 1]),
  consumer('notification', 'payment', 'ORDER_PAID', ['h', 'e', readAt[1], readAt[1] + 1]),
  span('notification', 'client', 'send letter', ['i', 'h', 20, 21]),
]

describe('the steps of a recording', () => {
  test('do not depend on the order of spans, nor on the order of concurrent steps', () => {
    const states = { atOnce: 'PENDING', final: 'APPROVED' }
    const steps = stepsOf(recording(inEvents(7, [11, 12]), { states }))
    assert.deepEqual(
      steps.map(({ kind }) => kind),
      ['call', 'commit', 'response', 'send', 'receive', 'send', 'receive', 'letter', 'send'],
    )
    const other = recording(inEvents(10, [14, 13]).reverse(), { states })
    assert.deepEqual(stepsOf(other), steps)
    assert.equal(
      sequencePicture(other, 'x'),
      sequencePicture(recording(inEvents(7, [11, 12]), { states }), 'x'),
    )
  })

  test('show the state of the order at the response and at the end', () => {
    const steps = stepsOf(
      recording(inEvents(7, [11, 12]), { states: { atOnce: 'PENDING', final: 'APPROVED' } }),
    )
    assert.deepEqual(steps[1], { kind: 'commit', at: 'order', note: 'PENDING' })
    assert.deepEqual(steps[6], {
      kind: 'receive',
      readers: [
        { service: 'order', note: 'APPROVED' },
        { service: 'notification', note: '' },
      ],
    })
  })

  test('put a call before the response that waits for it, and any other call after the response', () => {
    const kinds = (lastCommitAt: number) =>
      stepsOf(
        recording([
          server('order', 'POST', '/orders', ['a', '', 0, 20], 201),
          commit('order', ['b', 'a', 1, 2]),
          client('order', '/billing/account', ['c', 'a', 3, 9]),
          server('billing', 'POST', '/billing/account', ['d', 'c', 4, 8]),
          commit('order', ['e', 'a', lastCommitAt, lastCommitAt + 1]),
        ]),
      ).map((step) => ('from' in step ? `${step.kind} ${step.from}` : step.kind))
    const [call, response] = [['call order', 'response billing'], 'response order']
    assert.deepEqual(kinds(10), ['call customer', 'commit', ...call, 'commit', response])
    assert.deepEqual(kinds(2), ['call customer', 'commit', 'commit', response, ...call])
  })

  test('show failed attempts once, however many there were, and the later success', () => {
    const path = `/billing/payments/${ACCOUNT}/void`
    const stepsWith = (tries: number) =>
      stepsOf(
        recording(
          [
            server('order', 'POST', '/orders', ['a', '', 0, 5], 503),
            ...Array.from({ length: tries }, (_, index) =>
              client('order', path, [`t${index}`, 'a', 6 + index, 7 + index], 503),
            ),
            client('order', path, ['y', 'a', 90, 95]),
            server('billing', 'POST', path, ['z', 'y', 91, 94]),
          ],
          { off: 'billing' },
        ),
      )
    const label = 'POST /billing/payments/{id}/void'
    assert.deepEqual(stepsWith(1).slice(2), [
      { kind: 'call', from: 'order', to: 'billing', label },
      { kind: 'response', from: 'billing', to: 'order', status: 503 },
      { kind: 'back', service: 'billing' },
      { kind: 'call', from: 'order', to: 'billing', label },
      { kind: 'response', from: 'billing', to: 'order', status: 200 },
    ])
    assert.deepEqual(stepsWith(4), stepsWith(1))
  })
})

describe('the structure of a style', () => {
  test('has the calls, the events sent and the events read, in a fixed order', () => {
    const structure = structureOf([recording(inEvents(7, [11, 12]))])
    assert.deepEqual(
      [...structure.sends.keys()],
      ['billing > balance', 'billing > payment', 'order > billing'],
    )
    assert.deepEqual(
      [...structure.reads.keys()],
      ['billing > billing', 'payment > notification', 'payment > order'],
    )
    assert.equal(structure.calls.size, 0)
    const other = structureOf([recording(inEvents(10, [14, 13]).reverse())])
    assert.equal(structurePicture(other, 'x'), structurePicture(structure, 'x'))
  })

  test('is rejected if the picture has no place for a part of it', () => {
    const odd = recording([
      server('notification', 'POST', '/notification/', ['a', '', 0, 9]),
      producer('notification', 'payment', 'ORDER_PAID', ['b', 'a', 1, 2]),
    ])
    const draw = () => structurePicture(structureOf([odd]), 'x')
    assert.throws(draw, /no place for notification > payment: ORDER_PAID/)
  })
})
