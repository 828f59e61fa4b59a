import type { Mutant } from './mutant.ts'

/** Bugs in the rules of money: billing, and what order makes of its answers. */
const COMMANDS = 'services/billing/commands.ts'
const LEDGER = 'services/billing/ledger.ts'
const STORE = 'services/billing/store.ts'

export const MONEY_MUTANTS: readonly Mutant[] = [
  {
    name: 'float money',
    breaks: 'An amount is read by arithmetic of floats, so that 65.57 becomes 6556.',
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
    breaks: 'Accounts are read without their lock, and written as they were read.',
    edits: [{ file: STORE, find: 'order by id for update`', replace: 'order by id`' }],
    seeds: 30,
  },
  {
    name: 'void that comes first is forgotten',
    breaks: 'A void of a payment that billing does not know yet leaves no tombstone.',
    edits: [
      {
        file: LEDGER,
        find: 'return { ...settled(payment), payment, ...announceAgain(payment, command) }',
        replace: 'return { ...settled(payment), ...announceAgain(payment, command) }',
      },
    ],
    seeds: 10,
  },
  {
    name: 'payment without a natural key',
    breaks: 'An order is paid as often as its payment is asked for.',
    edits: [
      {
        file: LEDGER,
        find: 'return books.payment ? repeatPayment(books.payment, command) : pay(',
        replace: 'return pay(',
      },
    ],
    seeds: 10,
  },
  {
    name: 'payments read before the lock',
    breaks: 'Payments are read before their accounts are locked, and their unique key is dropped.',
    edits: [
      {
        file: COMMANDS,
        find: '  // In this order: what is read after the lock',
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
    breaks: 'A deposit is credited as often as its message comes.',
    edits: [{ file: LEDGER, find: "if (known?.state === 'APPLIED') {", replace: 'if (false) {' }],
    seeds: 10,
  },
  {
    name: 'refund without a ledger entry',
    breaks: 'A voided payment is REFUNDED, but the money does not move.',
    edits: [
      {
        file: LEDGER,
        find: "      ...move(account, { kind: 'REFUND', amountMinor, orderId }),\n",
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: 'refund twice',
    breaks: 'A void gives the money back although it was given back before.',
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
    name: 'void without the lock of the payer',
    breaks: 'A void locks the account that it names, and not the one that paid.',
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
    breaks: 'A payment that is asked for again finds its outcome, and nobody hears of it.',
    edits: [
      { file: LEDGER, find: 'if (!command.byMessage || accountId === null)', replace: 'if (true)' },
    ],
    seeds: 30,
  },
  {
    name: 'refusal told in the style of the void',
    breaks: 'A payment that an earlier void refused is told in the style of the void, not its own.',
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
    breaks: 'Billing commits what it decided, and not the messages that tell of it.',
    edits: [
      {
        file: COMMANDS,
        find: '[...messages, ...books.balances(at.now)]',
        replace: 'books.balances(at.now)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'drawn event ids',
    breaks: "An announcement's id is drawn, not derived: announced again it is another event.",
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
    breaks: 'The balance stream gives a balance the number of the entry before its own.',
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
    name: 'refund that order does not hear of',
    breaks: 'In http a refund that a customer had from billing is not told to order.',
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
    breaks: 'A deposit request that was lost with the log is not resent.',
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
    name: 'balance remembered by the process',
    breaks:
      'An account is read once, and then shown as it was whenever its version did not change here.',
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
    name: 'key without its answer',
    breaks: 'Billing does not store the answer under its Idempotency-Key.',
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
    name: 'answers given to the wrong requests',
    breaks: 'The answers of a batch of requests are given out in the wrong order.',
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
