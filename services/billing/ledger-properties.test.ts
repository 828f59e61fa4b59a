import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { STYLES } from '../../contracts/style.ts'
import {
  type Account,
  type Command,
  type Decision,
  type Deposit,
  decide,
  type Payment,
  type Transfer,
} from './ledger.ts'

/** A ledger in memory that only the rules change. */
function openLedger() {
  const accounts = new Map<string, Account>()
  const payments = new Map<string, Payment>()
  const deposits = new Map<string, Deposit>()
  const transfers: Transfer[] = []
  return {
    accounts,
    payments,
    deposits,
    transfers,
    apply(command: Command): Decision {
      const payment = 'orderId' in command ? payments.get(command.orderId) : undefined
      const deposit = 'depositId' in command ? deposits.get(command.depositId) : undefined
      const payer = command.type === 'void' ? payment?.accountId : command.accountId
      const account = accounts.get(payer ?? '')
      const decision = decide({ account, payment, deposit, now: 0 }, command)
      if (decision.account) accounts.set(decision.account.id, decision.account)
      if (decision.payment) payments.set(decision.payment.orderId, decision.payment)
      if (decision.deposit) deposits.set(decision.deposit.id, decision.deposit)
      if (decision.transfer) transfers.push(decision.transfer)
      return decision
    },
    snapshot: () => structuredClone({ accounts, payments, deposits, transfers }),
  }
}

type Ledger = ReturnType<typeof openLedger>

const account = fc.constantFrom('anna', 'boris', 'nobody')
const amount = fc.bigInt({ min: 1n, max: 400n })
const common = {
  style: fc.constantFrom(...STYLES),
  byMessage: fc.boolean(),
  paymentId: fc.uuid(),
  orderId: fc.constantFrom('order-1', 'order-2', 'order-3'),
  depositId: fc.constantFrom('dep-1', 'dep-2', 'dep-3', 'dep-4'),
  byOrder: fc.boolean(),
}
const type = <Type extends Command['type']>(name: Type) => ({ ...common, type: fc.constant(name) })

const anyCommand: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ ...type('createAccount'), accountId: fc.constantFrom('anna', 'boris') }),
  { weight: 4, arbitrary: fc.record({ ...type('pay'), accountId: account, amountMinor: amount }) },
  {
    weight: 3,
    arbitrary: fc.record({ ...type('void'), accountId: fc.option(account, { freq: 3 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ ...type('deposit'), accountId: account, amountMinor: amount }),
  },
  fc.record({ ...type('requestDeposit'), accountId: account, amountMinor: amount }),
)
const accountsOpen: Command[] = ['anna', 'boris'].map((accountId) => ({
  type: 'createAccount',
  accountId,
  style: 'http',
  byMessage: false,
}))

const history = fc.array(anyCommand, { maxLength: 40, size: 'max' })
const always = (holds: (ledger: Ledger, commands: readonly Command[]) => void) =>
  fc.assert(
    fc.property(history, (commands) => holds(openLedger(), commands)),
    { numRuns: 300 },
  )

const signed = ({ debit, amountMinor }: Transfer) =>
  debit === 'customer' ? -amountMinor : amountMinor
const sum = (amounts: readonly bigint[]) => amounts.reduce((total, next) => total + next, 0n)

function assertConsistent({ accounts, deposits, transfers }: Ledger): void {
  for (const { id, balanceMinor, version, pendingMinor } of accounts.values()) {
    const own = transfers.filter(({ accountId }) => accountId === id)
    assert.equal(balanceMinor, sum(own.map(signed)))
    assert.ok(balanceMinor >= 0n)
    assert.deepEqual(
      own.map((entry) => entry.version),
      own.map((_, index) => index + 1),
    )
    assert.equal(version, own.length)
    for (const [index, { balanceAfterMinor }] of own.entries()) {
      assert.equal(balanceAfterMinor, sum(own.slice(0, index + 1).map(signed)))
    }
    const requested = [...deposits.values()].filter(
      ({ accountId, state }) => accountId === id && state === 'REQUESTED',
    )
    assert.equal(pendingMinor, sum(requested.map(({ amountMinor }) => amountMinor)))
  }
}

describe('after any sequence of commands', () => {
  test('balances equal the sums of transfers, entries have no gaps, and pending amounts equal the requested deposits', () => {
    always((ledger, commands) => {
      for (const command of [...accountsOpen, ...commands]) {
        ledger.apply(command)
        assertConsistent(ledger)
      }
    })
  })

  test('each transfer has the debit and credit sides that its kind requires', () => {
    always((ledger, commands) => {
      for (const command of [...accountsOpen, ...commands]) ledger.apply(command)
      for (const { kind, debit, credit } of ledger.transfers) {
        const sides = { DEPOSIT: 'cash>customer', PAYMENT: 'customer>revenue' }
        assert.equal(`${debit}>${credit}`, kind === 'REFUND' ? 'revenue>customer' : sides[kind])
      }
    })
  })

  test('an order is paid at most once, and then refunded at most once and in full', () => {
    always((ledger, commands) => {
      for (const command of [...accountsOpen, ...commands]) ledger.apply(command)
      for (const [orderId, { state, accountId, amountMinor }] of ledger.payments) {
        const moved = ledger.transfers.filter((entry) => entry.orderId === orderId)
        const kinds = { PAID: 'PAYMENT', REFUNDED: 'PAYMENT,REFUND', REFUSED: '', VOIDED: '' }
        assert.equal(moved.map(({ kind }) => kind).join(), kinds[state])
        for (const entry of moved) {
          assert.deepEqual([entry.accountId, entry.amountMinor], [accountId, amountMinor])
        }
      }
    })
  })

  test('a deposit is credited at most once, to its own account', () => {
    always((ledger, commands) => {
      for (const command of [...accountsOpen, ...commands]) ledger.apply(command)
      for (const { id, state, accountId, amountMinor } of ledger.deposits.values()) {
        const credits = ledger.transfers.filter(({ depositId }) => depositId === id)
        const wanted = state === 'APPLIED' ? [[accountId, amountMinor]] : []
        assert.deepEqual(
          credits.map((entry) => [entry.accountId, entry.amountMinor]),
          wanted,
        )
      }
    })
  })

  test('a repeated command changes nothing, whether it arrives by call or by message', () => {
    always((ledger, commands) => {
      const done = [...accountsOpen, ...commands].filter(
        (command) => ledger.apply(command).outcome.kind !== 'refused',
      )
      const before = ledger.snapshot()
      for (const command of done) {
        for (const byMessage of [true, false]) {
          const { transfer } = ledger.apply({ ...command, byMessage })
          assert.equal(transfer, undefined)
        }
      }
      assert.deepEqual(ledger.snapshot(), before)
    })
  })

  test('a refused command changes nothing', () => {
    always((ledger, commands) => {
      for (const command of commands) {
        const before = ledger.snapshot()
        if (ledger.apply(command).outcome.kind !== 'refused') continue
        assert.deepEqual(ledger.snapshot(), before)
      }
    })
  })

  test('the outcome of a repeated command is announced again only if the command arrived by message', () => {
    always((ledger, commands) => {
      const announced = new Set<string>()
      for (const command of [...accountsOpen, ...commands]) {
        const { announce } = ledger.apply(command)
        if (announce === undefined) continue
        const of = 'payment' in announce ? announce.payment.orderId : announce.deposit.id
        if (announced.has(`${of}/${announce.event}`)) assert.ok(command.byMessage)
        announced.add(`${of}/${announce.event}`)
      }
    })
  })
})

describe('a payment and its void', () => {
  const rich: Command = {
    type: 'deposit',
    depositId: 'rich',
    accountId: 'anna',
    amountMinor: 100_000n,
    style: 'http',
    byMessage: false,
  }
  const paying: fc.Arbitrary<Command> = fc.record({
    ...type('pay'),
    orderId: fc.constant('order-1'),
    accountId: fc.constant('anna'),
    amountMinor: fc.constant(6_500n),
  })
  const anyVoid = fc.record({
    ...type('void'),
    orderId: fc.constant('order-1'),
    accountId: fc.constantFrom('anna', 'boris', null),
  })
  // Only the order service may name an account other than the one that paid.
  const voiding: fc.Arbitrary<Command> = anyVoid.map((command) => ({
    ...command,
    byOrder: command.byOrder || command.accountId === 'boris',
  }))
  const shuffled = fc
    .tuple(
      fc.array(paying, { minLength: 1, maxLength: 4 }),
      fc.array(voiding, { minLength: 1, maxLength: 4 }),
    )
    .chain(([payments, voids]) => {
      const all = [...payments, ...voids]
      return fc.shuffledSubarray(all, { minLength: all.length })
    })
  const play = (commands: readonly Command[]) => {
    const ledger = openLedger()
    for (const command of [...accountsOpen, rich, ...commands]) ledger.apply(command)
    return { ledger, moved: ledger.transfers.filter(({ orderId }) => orderId === 'order-1') }
  }

  test('leave the balance unchanged, in whatever order and however often they arrive', () => {
    fc.assert(
      fc.property(shuffled, (commands) => {
        const { ledger, moved } = play(commands)
        assert.equal(sum(moved.map(signed)), 0n)
        assert.equal(ledger.accounts.get('anna')?.balanceMinor, 100_000n)
        assertConsistent(ledger)
      }),
    )
  })

  test('transfer nothing if the void arrives first', () => {
    fc.assert(
      fc.property(voiding, shuffled, (first, commands) => {
        const { ledger, moved } = play([first, ...commands])
        assert.deepEqual(moved, [])
        assert.equal(ledger.payments.get('order-1')?.state, 'VOIDED')
      }),
    )
  })
})
