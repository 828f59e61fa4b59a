import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { REASONS, type Reason } from '../../contracts/events.ts'
import { STYLES } from '../../contracts/style.ts'
import {
  decide,
  type Order,
  type OrderCommand,
  type OrderDecision,
  type OrderState,
  priceOf,
  responseFor,
} from './order.ts'

const reasons = Object.keys(REASONS) as Reason[]

const order = (given: Partial<Order> = {}): Order => ({
  id: '0190aaaa-0000-7000-8000-000000000001',
  profileId: '0190aaaa-0000-7000-8000-000000000002',
  productQuantity: 3,
  priceMinor: 19_500n,
  style: 'events',
  state: 'PENDING',
  reason: null,
  idempotencyKey: null,
  ...given,
})

const paid = { state: 'APPROVED', reason: null, effects: [] } as const
const off = (reason: Reason, ...effects: OrderDecision['effects']): OrderDecision => ({
  state: 'CANCELED',
  reason,
  effects,
})

type Row = [given: OrderState, when: OrderCommand, then: OrderDecision]
const refuse = { type: 'refuse', reason: 'NOT_ENOUGH_MONEY' } as const

/** Every state with every command. The canceled order was canceled for lack of money. */
const table: Row[] = [
  ['PENDING', { type: 'approve' }, paid],
  ['PENDING', { type: 'approve', paidMinor: 19_500n }, paid],
  ['PENDING', { type: 'approve', paidMinor: 19_499n }, off('PAYMENT_MISMATCH', 'voidPayment')],
  ['PENDING', refuse, off('NOT_ENOUGH_MONEY')],
  [
    'PENDING',
    { type: 'giveUpOnBilling' },
    off('BILLING_UNREACHABLE', 'announceFailure', 'voidPayment'),
  ],
  ['PENDING', { type: 'passDeadline' }, off('DEADLINE_PASSED', 'announceFailure', 'voidPayment')],
  ['PENDING', { type: 'delete' }, off('DELETED', 'announceFailure', 'voidPayment')],
  ['PENDING', { type: 'acknowledgeRefund' }, off('REFUNDED')],
  ['PENDING', { type: 'confirmVoid' }, { state: 'PENDING', reason: null, effects: [] }],
  ['APPROVED', { type: 'approve' }, paid],
  ['APPROVED', refuse, paid],
  ['APPROVED', { type: 'giveUpOnBilling' }, paid],
  ['APPROVED', { type: 'passDeadline' }, paid],
  ['APPROVED', { type: 'delete' }, off('DELETED', 'voidPayment')],
  ['APPROVED', { type: 'acknowledgeRefund' }, off('REFUNDED')],
  ['APPROVED', { type: 'confirmVoid' }, paid],
  ['CANCELED', { type: 'approve' }, off('NOT_ENOUGH_MONEY', 'voidPayment')],
  ['CANCELED', refuse, off('NOT_ENOUGH_MONEY')],
  ['CANCELED', { type: 'giveUpOnBilling' }, off('NOT_ENOUGH_MONEY')],
  ['CANCELED', { type: 'passDeadline' }, off('NOT_ENOUGH_MONEY')],
  ['CANCELED', { type: 'delete' }, off('NOT_ENOUGH_MONEY')],
  ['CANCELED', { type: 'acknowledgeRefund' }, off('NOT_ENOUGH_MONEY')],
  ['CANCELED', { type: 'confirmVoid' }, off('NOT_ENOUGH_MONEY')],
]

describe('an order', () => {
  for (const [state, command, expected] of table) {
    const { state: next, effects } = expected
    const withEffects = effects.length > 0 ? ` with ${effects.join(', ')}` : ''
    const paidMinor = 'paidMinor' in command ? ` of ${command.paidMinor} minor units` : ''
    test(`that is ${state} is ${next} after ${command.type}${paidMinor}${withEffects}`, () => {
      const reason = state === 'CANCELED' ? 'NOT_ENOUGH_MONEY' : null
      assert.deepEqual(decide(order({ state, reason }), command), expected)
    })
  }

  test('keeps the reason of a refusal, and announces the failure if the billing service may not have announced it', () => {
    for (const reason of reasons) {
      const isAnnounced = reason === 'NOT_ENOUGH_MONEY' || reason === 'ACCOUNT_NOT_FOUND'
      const effects: OrderDecision['effects'] = isAnnounced
        ? []
        : reason === 'PAYMENT_MISMATCH'
          ? ['announceFailure', 'voidPayment']
          : ['announceFailure']
      assert.deepEqual(decide(order(), { type: 'refuse', reason }), off(reason, ...effects))
    }
  })
})

const anyCommand: fc.Arbitrary<OrderCommand> = fc.oneof(
  fc.constantFrom<OrderCommand[]>(
    { type: 'approve' },
    { type: 'giveUpOnBilling' },
    { type: 'passDeadline' },
    { type: 'delete' },
    { type: 'acknowledgeRefund' },
    { type: 'confirmVoid' },
  ),
  fc.record({ type: fc.constant('refuse' as const), reason: fc.constantFrom(...reasons) }),
  fc.record({ type: fc.constant('approve' as const), paidMinor: fc.constantFrom(1n, 19_500n) }),
)

function play(start: Order, commands: readonly OrderCommand[]) {
  const steps: { command: OrderCommand; before: Order; decision: OrderDecision }[] = []
  let now = start
  for (const command of commands) {
    const decision = decide(now, command)
    steps.push({ command, before: now, decision })
    now = { ...now, state: decision.state, reason: decision.reason }
  }
  return { end: now, steps }
}

describe('after any sequence of commands', () => {
  const whatever = fc.tuple(fc.constantFrom(...STYLES), fc.array(anyCommand, { maxLength: 12 }))
  const always = (holds: (played: ReturnType<typeof play>) => void) =>
    fc.assert(fc.property(whatever, ([style, commands]) => holds(play(order({ style }), commands))))

  test('an order leaves PENDING once, and is never approved after it was canceled', () => {
    always(({ steps }) => {
      const moves = steps.filter(({ before, decision }) => before.state !== decision.state)
      const path = moves.map(({ before, decision }) => `${before.state}>${decision.state}`)
      assert.ok(
        ['', 'PENDING>APPROVED', 'PENDING>CANCELED', 'PENDING>APPROVED,APPROVED>CANCELED'].includes(
          path.join(),
        ),
        path.join(),
      )
    })
  })

  test('an order has a reason if and only if it is canceled, and keeps the first reason', () => {
    always(({ end, steps }) => {
      assert.equal(end.reason !== null, end.state === 'CANCELED')
      const off = steps.find(({ decision }) => decision.state === 'CANCELED')
      if (off) assert.equal(end.reason, off.decision.reason)
    })
  })

  test('a repeated command changes nothing', () => {
    always(({ steps }) => {
      for (const { before, command, decision } of steps) {
        const after = { ...before, state: decision.state, reason: decision.reason }
        const again = decide(after, command)
        assert.deepEqual([again.state, again.reason], [decision.state, decision.reason])
      }
    })
  })

  test('the order service or the billing service notifies the customer of a cancellation', () => {
    always(({ steps }) => {
      const off = steps.find(
        ({ before, decision }) => before.state === 'PENDING' && decision.state === 'CANCELED',
      )
      if (off === undefined) return
      const { command, decision } = off
      const isBillings =
        command.type === 'acknowledgeRefund' ||
        command.type === 'approve' ||
        (command.type === 'refuse' &&
          ['NOT_ENOUGH_MONEY', 'ACCOUNT_NOT_FOUND'].includes(command.reason))
      assert.equal(decision.effects.includes('announceFailure'), !isBillings)
    })
  })

  test('a canceled order that may have been paid has requested its void', () => {
    always(({ end, steps }) => {
      if (end.state !== 'CANCELED') return
      const voidedAt = steps.findLastIndex(({ decision }) =>
        decision.effects.includes('voidPayment'),
      )
      const approved = steps.findLastIndex(({ command }) => command.type === 'approve')
      // No void is needed if the billing service itself reports that it took nothing or refunded everything.
      const byBilling = ['refuse', 'acknowledgeRefund']
      const offAt = steps.findIndex(({ decision }) => decision.state === 'CANCELED')
      const isReported = byBilling.includes(steps[offAt]!.command.type)
      if (!isReported) assert.ok(voidedAt >= offAt)
      if (approved > offAt) assert.ok(voidedAt >= approved)
    })
  })
})

test('the response says why the order was refused or canceled', () => {
  assert.deepEqual(responseFor(null), { accepted: true })
  const codes = Object.fromEntries(
    reasons.map((reason) => {
      const answer = responseFor(reason)
      return [reason, answer.accepted ? '' : answer.code]
    }),
  )
  assert.deepEqual(codes, {
    NOT_ENOUGH_MONEY: 'NOT_ENOUGH_MONEY',
    ACCOUNT_NOT_FOUND: 'ACCOUNT_NOT_FOUND',
    ORDER_CANCELED: 'ORDER_CANCELED',
    BILLING_UNREACHABLE: 'BILLING_UNREACHABLE',
    DEADLINE_PASSED: 'ORDER_CANCELED',
    DELETED: 'ORDER_CANCELED',
    REFUNDED: 'ORDER_CANCELED',
    PAYMENT_MISMATCH: 'ORDER_CANCELED',
  })
})

describe('the price of an order', () => {
  test('is the unit price times the quantity', () => {
    assert.equal(priceOf(3, 6_500n), 19_500n)
    assert.equal(priceOf(1_000_000, 100_000n), 100_000_000_000n)
  })

  test('is undefined if it exceeds the largest payment allowed', () => {
    assert.equal(priceOf(1_000_000, 100_001n), undefined)
  })
})
