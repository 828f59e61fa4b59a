import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { MAX_BALANCE_MINOR } from '../../contracts/money.ts'
import {
  type Account,
  type Command,
  type Decision,
  type Deposit,
  decide,
  type Payment,
  type Rows,
  type Transfer,
} from './ledger.ts'

const common = { style: 'events', byMessage: false } as const
const account = (given: Partial<Account> = {}): Account => ({
  id: 'anna',
  balanceMinor: 50_000n,
  version: 4,
  pendingMinor: 0n,
  ...given,
})
const payment = (given: Partial<Payment> = {}): Payment => ({
  id: 'pay-1',
  orderId: 'order-1',
  accountId: 'anna',
  amountMinor: 19_500n,
  state: 'PAID',
  reason: null,
  style: 'events',
  ...given,
})
const deposit = (given: Partial<Deposit> = {}): Deposit => ({
  id: 'dep-1',
  accountId: 'anna',
  amountMinor: 700n,
  state: 'REQUESTED',
  style: 'events',
  ...given,
})
const rows = (given: Partial<Rows> = {}): Rows => ({
  account: account(),
  payment: undefined,
  deposit: undefined,
  now: 1_000,
  ...given,
})

type Of<Type> = Command & { readonly type: Type }
const pay = (given: Partial<Of<'pay'>> = {}): Command => ({
  ...common,
  type: 'pay',
  paymentId: 'pay-1',
  orderId: 'order-1',
  accountId: 'anna',
  amountMinor: 19_500n,
  ...given,
})
const voiding = (given: Partial<Of<'void'>> = {}): Command => ({
  ...common,
  type: 'void',
  paymentId: 'void-1',
  orderId: 'order-1',
  accountId: 'anna',
  byOrder: true,
  ...given,
})
const terms = { depositId: 'dep-1', accountId: 'anna', amountMinor: 700n } as const
const depositing = (given: Partial<Of<'deposit'>> = {}): Command => ({
  ...common,
  type: 'deposit',
  ...terms,
  ...given,
})
const requesting = (given: Partial<typeof terms> = {}): Command => ({
  ...common,
  type: 'requestDeposit',
  ...terms,
  ...given,
})

const paymentOutcome = (payment: Payment): Decision => ({ outcome: { kind: 'payment', payment } })
const refused = (code: string) => ({ outcome: { kind: 'refused', code } })
const voided = (accountId: string | null) =>
  payment({ id: 'void-1', accountId, amountMinor: null, state: 'VOIDED', reason: 'ORDER_CANCELED' })

const transfer = (given: Partial<Transfer>): Transfer => ({
  accountId: 'anna',
  version: 5,
  kind: 'PAYMENT',
  debit: 'customer',
  credit: 'revenue',
  amountMinor: 19_500n,
  balanceAfterMinor: 30_500n,
  orderId: 'order-1',
  depositId: null,
  ...given,
})

describe('opening an account', () => {
  const create: Command = { ...common, type: 'createAccount', accountId: 'anna' }
  test('creates an empty account', () => {
    const fresh = account({ balanceMinor: 0n, version: 0 })
    assert.deepEqual(decide(rows({ account: undefined }), create), {
      account: fresh,
      outcome: { kind: 'account', account: fresh },
    })
  })
  test('a second time changes nothing', () => {
    assert.deepEqual(decide(rows(), create).account, account())
  })
})

describe('a payment', () => {
  test('transfers the price from the customer to revenue and is announced', () => {
    assert.deepEqual(decide(rows(), pay()), {
      ...paymentOutcome(payment()),
      account: account({ balanceMinor: 30_500n, version: 5 }),
      transfer: transfer({}),
      payment: payment(),
      announce: { event: 'ORDER_PAID', payment: payment() },
    })
  })

  test('can take the whole balance', () => {
    const { account: left } = decide(rows({ account: account({ balanceMinor: 19_500n }) }), pay())
    assert.equal(left?.balanceMinor, 0n)
  })

  const refusals = [
    ['NOT_ENOUGH_MONEY', 'a hundredth is missing', account({ balanceMinor: 19_499n })],
    [
      'NOT_ENOUGH_MONEY',
      'the money is only pending',
      account({ balanceMinor: 0n, pendingMinor: 90_000n }),
    ],
    ['ACCOUNT_NOT_FOUND', 'there is no account', undefined],
  ] as const
  test('is refused after the deadline of its order, and not before', () => {
    const late = payment({ state: 'REFUSED', reason: 'DEADLINE_PASSED' })
    const { announce, ...decision } = decide(rows(), pay({ deadlineMs: 999 }))
    assert.deepEqual(decision, { ...paymentOutcome(late), payment: late })
    assert.deepEqual(announce, { event: 'PAYMENT_FAIL', payment: late })
    for (const deadlineMs of [1_000, undefined]) {
      assert.equal(decide(rows(), pay({ deadlineMs })).payment?.state, 'PAID')
    }
  })

  for (const [reason, why, of] of refusals) {
    test(`is refused forever if ${why}, and announced as failed`, () => {
      const failed = payment({ state: 'REFUSED', reason })
      const decision = decide(rows({ account: of }), pay())
      assert.deepEqual(decision, {
        ...paymentOutcome(failed),
        payment: failed,
        announce: { event: 'PAYMENT_FAIL', payment: failed },
      })
      const rich = account({ balanceMinor: 10n ** 9n })
      assert.deepEqual(
        decide(rows({ account: rich, payment: failed }), pay()),
        paymentOutcome(failed),
      )
    })
  }

  const repetitions = [
    [payment(), 'ORDER_PAID'],
    [payment({ state: 'REFUSED', reason: 'NOT_ENOUGH_MONEY' }), 'PAYMENT_FAIL'],
    [payment({ state: 'REFUNDED' }), 'PAYMENT_REFUNDED'],
    [voided('anna'), 'PAYMENT_FAIL'],
    [voided(null), 'PAYMENT_FAIL'],
  ] as const
  for (const [known, event] of repetitions) {
    const named = `${known.state}${known.accountId ? '' : ' without an account'}`
    test(`transfers nothing and returns the stored outcome if the order is already ${named}`, () => {
      assert.deepEqual(decide(rows({ payment: known }), pay()), paymentOutcome(known))
    })
    test(`announces ${event} again if it arrives by message and the order is already ${named}`, () => {
      assert.deepEqual(decide(rows({ payment: known }), pay({ byMessage: true })), {
        ...paymentOutcome(known),
        announce: { event, payment: { ...known, accountId: 'anna' } },
      })
    })
  }

  test('is announced as failed in its own style if an earlier void with another style makes it fail', () => {
    const known = payment({ ...voided('anna'), style: 'http' })
    const decision = decide(rows({ payment: known }), pay({ byMessage: true }))
    assert.deepEqual(decision.announce, {
      event: 'PAYMENT_FAIL',
      payment: { ...known, style: 'events' },
    })
  })

  test('is refused if its account or amount differs from the stored payment', () => {
    for (const known of [
      payment(),
      payment({ state: 'REFUSED' }),
      payment({ state: 'REFUNDED' }),
    ]) {
      for (const other of [{ accountId: 'boris' }, { amountMinor: 19_501n }]) {
        for (const byMessage of [true, false]) {
          const decision = decide(rows({ payment: known }), pay({ ...other, byMessage }))
          assert.deepEqual(decision, refused('PAYMENT_MISMATCH'))
        }
      }
    }
    const other = pay({ accountId: 'boris' })
    assert.deepEqual(decide(rows({ payment: voided('anna') }), other), refused('PAYMENT_MISMATCH'))
  })
})

describe('a void', () => {
  const paidOut = account({ balanceMinor: 30_500n, version: 5 })
  for (const accountId of ['anna', null]) {
    const who = accountId ?? 'no account'
    test(`refunds a paid order and is announced if it names ${who}`, () => {
      const given = payment({ state: 'REFUNDED' })
      const decision = decide(
        rows({ account: paidOut, payment: payment() }),
        voiding({ accountId }),
      )
      const back = { kind: 'REFUND', debit: 'revenue', credit: 'customer', version: 6 } as const
      assert.deepEqual(decision, {
        ...paymentOutcome(given),
        account: account({ balanceMinor: 50_000n, version: 6 }),
        transfer: transfer({ ...back, balanceAfterMinor: 50_000n }),
        payment: given,
        announce: { event: 'PAYMENT_REFUNDED', payment: given },
      })
    })
    test(`is stored and announces nothing if it arrives before the payment and names ${who}`, () => {
      const first = voided(accountId)
      const decision = decide(rows({ account: undefined }), voiding({ accountId }))
      assert.deepEqual(decision, { ...paymentOutcome(first), payment: first })
    })
    for (const known of [payment({ state: 'REFUSED' }), voided('anna'), voided(null)]) {
      test(`changes nothing if it names ${who} and the payment is already ${known.state} with account ${known.accountId}`, () => {
        assert.deepEqual(
          decide(rows({ payment: known }), voiding({ accountId })),
          paymentOutcome(known),
        )
      })
    }
  }

  for (const known of [undefined, payment({ state: 'REFUSED' }), voided('anna'), voided(null)]) {
    const name = known ? `${known.state} with account ${known.accountId}` : 'not paid yet'
    test(`announces the failure of the payment if it arrives by message and the order is ${name}`, () => {
      for (const style of ['events', 'hybrid'] as const) {
        const command = voiding({ byMessage: true, style })
        const { announce } = decide(rows({ payment: known }), command)
        assert.equal(announce?.event, 'PAYMENT_FAIL')
        // A requested payment has the style of its order. A void that arrived before the payment may have
        // another style.
        const expected = known?.state === 'REFUSED' ? known.style : style
        assert.deepEqual([announce.payment.accountId, announce.payment.style], ['anna', expected])
      }
    })
  }

  test('changes nothing if the order was already refunded, but announces the refund again if it arrives by message', () => {
    const known = payment({ state: 'REFUNDED' })
    assert.deepEqual(decide(rows({ payment: known }), voiding()), paymentOutcome(known))
    assert.deepEqual(decide(rows({ payment: known }), voiding({ byMessage: true })), {
      ...paymentOutcome(known),
      announce: { event: 'PAYMENT_REFUNDED', payment: known },
    })
  })

  test('from the order service refunds the account that paid, whichever account it names', () => {
    const command = voiding({ accountId: 'boris', byOrder: true })
    const decision = decide(rows({ account: paidOut, payment: payment() }), command)
    assert.equal(decision.account?.id, 'anna')
    assert.equal(decision.transfer?.accountId, 'anna')
    assert.equal(decision.payment?.state, 'REFUNDED')
  })

  test('from another caller is refused if it names an account that did not pay', () => {
    const command = voiding({ accountId: 'boris', byOrder: false })
    const decision = decide(rows({ account: paidOut, payment: payment() }), command)
    assert.deepEqual(decision, refused('PAYMENT_MISMATCH'))
  })
})

describe('a deposit', () => {
  const paidIn = transfer({
    kind: 'DEPOSIT',
    debit: 'cash',
    credit: 'customer',
    amountMinor: 700n,
    balanceAfterMinor: 50_700n,
    orderId: null,
    depositId: 'dep-1',
  })
  const accepted = deposit({ state: 'APPLIED' })

  test('transfers cash to the customer and is announced', () => {
    assert.deepEqual(decide(rows(), depositing()), {
      account: account({ balanceMinor: 50_700n, version: 5 }),
      transfer: paidIn,
      deposit: accepted,
      announce: { event: 'DEPOSIT_ACCEPTED', deposit: accepted },
      outcome: { kind: 'balance', balanceMinor: 50_700n },
    })
  })

  test('returns the resulting balance and transfers nothing when it is requested', () => {
    const waiting = account({ pendingMinor: 300n })
    assert.deepEqual(decide(rows({ account: waiting }), requesting()), {
      account: account({ pendingMinor: 1_000n }),
      deposit: deposit(),
      announce: { event: 'DEPOSIT_REQUEST', deposit: deposit() },
      outcome: { kind: 'balance', balanceMinor: 51_000n },
    })
  })

  test('is no longer pending once it is booked', () => {
    const known = rows({ account: account({ pendingMinor: 1_000n }), deposit: deposit() })
    const decision = decide(known, depositing({ byMessage: true }))
    assert.deepEqual(decision.account, {
      ...account({ balanceMinor: 50_700n, version: 5 }),
      pendingMinor: 300n,
    })
    assert.deepEqual(decision.transfer, paidIn)
  })

  test('transfers nothing when it is repeated, and is announced again if the repeat arrives by message', () => {
    const known = rows({ deposit: accepted })
    const outcome = { kind: 'balance', balanceMinor: 50_000n }
    assert.deepEqual(decide(known, depositing()), { outcome })
    assert.deepEqual(decide(known, depositing({ byMessage: true })), {
      outcome,
      announce: { event: 'DEPOSIT_ACCEPTED', deposit: accepted },
    })
  })

  test('changes nothing and returns the same balance when it is requested again', () => {
    for (const known of [deposit(), accepted]) {
      const pendingMinor = known === accepted ? 0n : 700n
      const decision = decide(
        rows({ account: account({ pendingMinor }), deposit: known }),
        requesting(),
      )
      const balanceMinor = 50_000n + pendingMinor
      assert.deepEqual(decision, { outcome: { kind: 'balance', balanceMinor } })
    }
  })

  test('is refused if its account or amount differs from the stored deposit', () => {
    for (const known of [deposit(), accepted]) {
      for (const other of [{ accountId: 'boris' }, { amountMinor: 701n }]) {
        const account_ = account({ id: other.accountId ?? 'anna', pendingMinor: 9_000n })
        const given = rows({ account: account_, deposit: known })
        const byMessage = depositing({ ...other, byMessage: true })
        assert.deepEqual(decide(given, byMessage), refused('DEPOSIT_MISMATCH'))
      }
    }
  })

  test('requires an existing account', () => {
    const nowhere = rows({ account: undefined })
    assert.deepEqual(decide(nowhere, depositing()), refused('ACCOUNT_NOT_FOUND'))
    assert.deepEqual(decide(nowhere, requesting()), refused('ACCOUNT_NOT_FOUND'))
  })

  test('is refused if it would make the balance, including pending deposits, too large', () => {
    const pendingMinor = 300n
    const full = MAX_BALANCE_MINOR - pendingMinor - 700n
    const at = (balanceMinor: bigint) => rows({ account: account({ balanceMinor, pendingMinor }) })
    for (const command of [depositing(), requesting()]) {
      assert.equal(decide(at(full), command).outcome.kind, 'balance')
      assert.deepEqual(decide(at(full + 1n), command), refused('BALANCE_TOO_LARGE'))
    }
  })
})
