import type { Mutant } from './mutant.ts'

/** Bugs in the billing service and in the handling of money. */
const COMMANDS = 'services/billing/commands.ts'
const LEDGER = 'services/billing/ledger.ts'
const STORE = 'services/billing/store.ts'

export const MONEY_MUTANTS: readonly Mutant[] = [
  {
    name: 'float money',
    fault: 'Amounts are parsed with floating-point arithmetic, so 65.57 becomes 6556.',
    edits: [
      {
        file: 'contracts/money.ts',
        find: "BigInt(units) * 100n + BigInt(decimals.padEnd(2, '0'))",
        replace: 'BigInt(Math.floor(Number(`${units}.${decimals}`) * 100))',
      },
    ],
    seeds: 10,
  },
  {
    name: 'account without its lock',
    fault: 'The billing service reads accounts without a lock and writes them back.',
    edits: [{ file: STORE, find: 'order by id for update`', replace: 'order by id`' }],
    seeds: 30,
  },
  {
    name: 'void before its payment is forgotten',
    fault: 'When a void arrives before its payment, the billing service does not store the void.',
    edits: [
      {
        file: LEDGER,
        find: 'return { ...outcomeOf(payment), payment, ...announceAgain(payment, command) }',
        replace: 'return { ...settled(payment), ...announceAgain(payment, command) }',
      },
    ],
    seeds: 10,
  },
  {
    name: 'payment without a natural key',
    fault: 'Each repeated payment request charges the order again.',
    edits: [
      {
        file: LEDGER,
        find: 'return rows.payment ? repeatPayment(rows.payment, command) : pay(',
        replace: 'return pay(',
      },
    ],
    seeds: 10,
  },
  {
    name: 'payments read before the lock',
    fault:
      'The billing service reads payments before it locks their accounts, and the payments table has no unique key.',
    edits: [
      {
        file: COMMANDS,
        find: '  // In this order: payments and deposits are read after',
        replace:
          '  const early = await findPayments(tx, orderIds)\n  // What is read after the lock',
      },
      {
        file: COMMANDS,
        find: '    findPayments(tx, orderIds),\n    findDeposits',
        replace: '    early,\n    findDeposits',
      },
      {
        file: 'services/billing/migrations/001-initial.ts',
        find: 'order_id uuid primary key',
        replace: 'order_id uuid',
      },
    ],
    seeds: 100,
    profile: 'network',
  },
  {
    name: 'deposit without a natural key',
    fault: 'Each redelivery of a deposit request credits the account again.',
    edits: [{ file: LEDGER, find: "if (known?.state === 'APPLIED') {", replace: 'if (false) {' }],
    seeds: 10,
  },
  {
    name: 'refund without a ledger entry',
    fault: 'A voided payment is marked REFUNDED, but the money is not transferred.',
    edits: [
      {
        file: LEDGER,
        find: "      ...transferMoney(account, { kind: 'REFUND', amountMinor, orderId }),\n",
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: 'refund twice',
    fault: 'A second void refunds the same payment again.',
    edits: [
      {
        file: LEDGER,
        find: "payment.state === 'PAID' && account !== undefined",
        replace: "['PAID', 'REFUNDED'].includes(payment.state) && account !== undefined",
      },
    ],
    seeds: 10,
  },
  {
    name: "void without the payer's lock",
    fault: 'A void locks the account named in the request, but not the account that paid.',
    edits: [
      {
        file: COMMANDS,
        find: 'lockAccounts(tx, unique([...named, ...payers]))',
        replace: 'lockAccounts(tx, unique(named))',
      },
    ],
    seeds: 400,
  },
  {
    name: 'outcome not announced again',
    fault:
      'The billing service finds the outcome of a repeated payment request but does not announce it again.',
    edits: [
      { file: LEDGER, find: 'if (!command.byMessage || accountId === null)', replace: 'if (true)' },
    ],
    seeds: 30,
  },
  {
    name: 'refusal announced in the style of the void',
    fault:
      "When an earlier void causes a refusal, the refusal is announced in the style of the void instead of the payment's.",
    edits: [
      {
        file: LEDGER,
        find: 'payment: { ...payment, accountId, style } }',
        replace: 'payment: { ...payment, accountId } }',
      },
    ],
    seeds: 100,
    styles: ['mixed'],
  },
  {
    name: 'state without its outbox rows',
    fault: 'The billing service commits a state change without the outbox rows that announce it.',
    edits: [
      {
        file: COMMANDS,
        find: '[...messages, ...ledger.balances(at.now)]',
        replace: 'ledger.balances(at.now)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'event ids not derived',
    fault:
      'The id of an announcement includes the time, so a repeated announcement is a new event.',
    edits: [
      {
        file: 'services/billing/routing.ts',
        find: 'id: `${orderId}/${event}`, style',
        replace: 'id: `${orderId}/${event}/${at.now}`, style',
      },
    ],
    seeds: 10,
  },
  {
    name: 'wrong version in the balance stream',
    fault: 'Balance events carry the version of the previous ledger entry.',
    edits: [
      {
        file: 'services/billing/routing.ts',
        find: 'version: account.version,',
        replace: 'version: Math.max(0, account.version - 1),',
      },
    ],
    seeds: 10,
  },
  {
    name: 'order not notified of a refund',
    fault:
      'In http, the order service is not notified when a customer gets a refund directly from the billing service.',
    edits: [
      {
        file: 'services/billing/routing.ts',
        find: '[...messages, deleteOrder(payment, at)]',
        replace: 'messages',
      },
    ],
    seeds: 60,
    styles: ['http'],
  },
  {
    name: 'deposits not resent',
    fault: 'A deposit request that was lost with the log is not resent.',
    edits: [
      {
        file: 'services/billing/resends.ts',
        find: 'await outbox.enqueue(tx, messages)',
        replace: '',
      },
    ],
    seeds: 30,
    styles: ['events'],
    profile: 'lost-log',
  },
  {
    name: 'balance cached by the process',
    fault:
      'The billing service caches each account at the first read and keeps returning that balance.',
    edits: [
      {
        file: 'services/billing/service.ts',
        find: 'findAccount: (id) => findAccount(database, id),',
        replace: 'findAccount: async (id) => (seen[id] ??= await findAccount(database, id)),',
      },
      {
        file: 'services/billing/service.ts',
        find: 'const consumer = startConsumer(reader)',
        replace: 'const consumer = startConsumer(reader)\n  const seen = {}',
      },
    ],
    seeds: 10,
  },
  {
    name: 'key without its response',
    fault: 'The billing service does not store its response under the Idempotency-Key.',
    edits: [
      {
        file: COMMANDS,
        find: 'at.idempotency.remember(tx, remembered),',
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: 'responses swapped between requests',
    fault: 'The responses of a batch are returned to the wrong requests.',
    edits: [
      {
        file: 'platform/async/coalesce.ts',
        find: 'resolve(results[index]!)',
        replace: 'resolve(results.at(-1 - index)!)',
      },
    ],
    seeds: 30,
  },
]
