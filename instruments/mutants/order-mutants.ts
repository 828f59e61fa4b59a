import type { Mutant } from './mutant.ts'

/** Bugs in order: its rules, its calls to billing, and its resends. */
const COMMANDS = 'services/order/commands.ts'
const ORDER = 'services/order/order.ts'
const CALLS = 'services/order/billing-calls.ts'
const RESENDS = 'services/order/resends.ts'
const ROUTES = 'services/order/routes.ts'

export const ORDER_MUTANTS: readonly Mutant[] = [
  {
    name: 'order moves whatever its state',
    breaks: 'An order is moved on although another transaction moved it since it was read.',
    edits: [
      {
        file: 'services/order/store.ts',
        find: 'order by id for update',
        replace: 'order by id',
      },
    ],
    profile: 'database',
    seeds: 200,
  },
  {
    name: 'canceled order is approved',
    breaks: 'An order that is off is approved when its payment comes after all.',
    edits: [
      {
        file: ORDER,
        find: "return unchanged(order, command.type === 'approve' ? ['voidPayment'] : [])",
        replace:
          "return command.type === 'approve' ? { state: 'APPROVED', reason: null, effects: [] } : unchanged(order, [])",
      },
    ],
    seeds: 30,
  },
  {
    name: 'deleted order not refunded',
    breaks: 'A paid order that is deleted is CANCELED, and its payment is not voided.',
    edits: [
      {
        file: ORDER,
        find: "function decideApproved(command: OrderCommand): OrderDecision {\n  switch (command.type) {\n    case 'delete':\n      return canceled('DELETED', ['voidPayment'])",
        replace:
          "function decideApproved(command: OrderCommand): OrderDecision {\n  switch (command.type) {\n    case 'delete':\n      return canceled('DELETED', [])",
      },
    ],
    seeds: 10,
  },
  {
    name: 'no void after the deadline',
    breaks: 'An order that passed its deadline is CANCELED, and its payment is not voided.',
    edits: [
      {
        file: ORDER,
        find: "canceled('DEADLINE_PASSED', ['announceFailure', 'voidPayment'])",
        replace: "canceled('DEADLINE_PASSED', ['announceFailure'])",
      },
    ],
    profile: 'database',
    seeds: 50,
  },
  {
    name: 'customer not told that billing was away',
    breaks: 'In hybrid nobody tells the customer whose order could not be paid.',
    edits: [
      {
        file: ORDER,
        find: "canceled('BILLING_UNREACHABLE', ['announceFailure', 'voidPayment'])",
        replace: "canceled('BILLING_UNREACHABLE', ['voidPayment'])",
      },
    ],
    seeds: 10,
    styles: ['hybrid'],
  },
  {
    name: 'time-out taken for a refusal',
    breaks: 'A call to billing that got no answer counts as refused: nothing is voided.',
    edits: [
      {
        file: CALLS,
        find: "command ?? { type: 'giveUpOnBilling' }",
        replace: "command ?? { type: 'refuse', reason: 'BILLING_UNREACHABLE' }",
      },
    ],
    seeds: 10,
    styles: ['http', 'hybrid'],
  },
  {
    name: 'fault of billing taken for a refusal',
    breaks: 'An answer of 5xx counts as refused: nothing is voided.',
    edits: [
      {
        file: CALLS,
        find: '  if (status === 402) return',
        replace:
          "  if (status >= 500) return { type: 'refuse', reason: 'BILLING_UNREACHABLE' }\n  if (status === 402) return",
      },
    ],
    seeds: 60,
    styles: ['http', 'hybrid'],
    profile: 'database',
  },
  {
    name: 'deadline not told',
    breaks: 'An order that passed its deadline is CANCELED, and its customer does not hear of it.',
    edits: [
      {
        file: ORDER,
        find: "canceled('DEADLINE_PASSED', ['announceFailure', 'voidPayment'])",
        replace: "canceled('DEADLINE_PASSED', ['voidPayment'])",
      },
    ],
    seeds: 30,
    profile: 'database',
  },
  {
    name: 'deletion not told',
    breaks: 'A PENDING order is deleted, and its customer does not hear of it.',
    edits: [
      {
        file: ORDER,
        find: "canceled('DELETED', ['announceFailure', 'voidPayment'])",
        replace: "canceled('DELETED', ['voidPayment'])",
      },
    ],
    seeds: 30,
  },
  {
    name: 'payment asked for after the cancellation',
    breaks: 'A canceled order whose void is not confirmed asks for its payment, too.',
    edits: [
      {
        file: RESENDS,
        find: "...canceled.filter(isResent).map(messageFor('voidPayment')),",
        replace:
          "...canceled.filter(isResent).flatMap((one) => [messageFor('voidPayment')(one), messageFor('requestPayment')(one)]),",
      },
    ],
    seeds: 10,
    profile: 'broker',
  },
  {
    name: 'failure told after the payment',
    breaks: 'A customer reads that an order failed after reading that it was paid.',
    edits: [
      {
        file: 'services/notification/commands.ts',
        find: 'notices.filter(({ eventId }) => !overtaken.has(eventId)),',
        replace: 'notices,',
      },
    ],
    seeds: 30,
  },
  {
    name: 'stored answer that invites a retry',
    breaks: 'The answer that billing was unreachable is stored for good, and says to try again.',
    edits: [
      {
        file: 'contracts/problems.ts',
        find: 'BILLING_UNREACHABLE: {\n    status: 503,\n    retryable: false,',
        replace: 'BILLING_UNREACHABLE: {\n    status: 503,\n    retryable: true,',
      },
    ],
    seeds: 10,
    styles: ['http', 'hybrid'],
  },
  {
    name: 'void of a call given up and not watched',
    breaks: 'A void that billing does not answer is neither retried nor watched.',
    edits: [
      {
        file: CALLS,
        find: "return { kind: 'retry', error: 'billing gave no answer' }",
        replace: "return { kind: 'done' }",
      },
      {
        file: COMMANDS,
        find: "if (effects.includes('voidPayment')) voids.set(orderId, trace ?? {})",
        replace: "if (effects.includes('voidPayment')) {}",
      },
    ],
    seeds: 60,
    profile: 'network',
    styles: ['http', 'hybrid'],
  },
  {
    name: 'no resends',
    breaks: 'A PENDING order waits for its deadline, and its request is never resent.',
    edits: [{ file: RESENDS, find: '    await resendDue()\n', replace: '' }],
    seeds: 30,
    styles: ['events'],
    profile: 'lost-log',
  },
  {
    name: 'no deadline',
    breaks: 'An order is PENDING for as long as nothing is heard of it.',
    edits: [{ file: RESENDS, find: '    await cancelOverdue()\n', replace: '' }],
    seeds: 30,
    styles: ['events'],
    profile: 'broker',
  },
  {
    name: 'void not watched',
    breaks: 'A void by event is sent once, and lost with the log.',
    edits: [
      {
        file: COMMANDS,
        find: "if (effects.includes('voidPayment')) voids.set(orderId, trace ?? {})",
        replace: "if (effects.includes('voidPayment')) {}",
      },
    ],
    seeds: 100,
    styles: ['events'],
    profile: 'lost-log',
  },
  {
    name: "somebody else's order readable",
    breaks: 'An order is shown to whoever knows its id.',
    edits: [
      {
        file: ROUTES,
        find: "  if (order.profileId !== profileId) throw new Fault('NOT_YOURS')\n",
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: "somebody else's order deletable",
    breaks: 'An order is deleted by whoever knows its id.',
    edits: [
      {
        file: COMMANDS,
        find: 'if (profileId !== undefined && profileId !== order.profileId)',
        replace: 'if (false)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'answer before the commit',
    breaks: 'In events the customer has his 201 before the order is in the database.',
    edits: [
      {
        file: ROUTES,
        find: 'const placed = await routes.place(placement, caller)',
        replace:
          'const placing = routes.place(placement, caller)\n    if (outcome === undefined) {\n      placing.catch(() => {})\n      return { status: 201, body: JSON.stringify(order.id) }\n    }\n    const placed = await placing',
      },
    ],
    seeds: 10,
    styles: ['events'],
  },
  {
    name: 'outcome not stored under its key',
    breaks: 'The outcome of an order is not written to the Idempotency-Key that waits for it.',
    edits: [
      {
        file: COMMANDS,
        find: 'at.idempotency.complete(tx, changing.responses),',
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: 'key outside the transaction',
    breaks: "An order's Idempotency-Key is stored after its transaction and not in it.",
    edits: [
      {
        file: 'services/order/service.ts',
        find: 'const idempotency = createIdempotency(SCHEMA)',
        replace:
          'const stored = createIdempotency(SCHEMA)\n  const remember = async (tx, entries) => void stored.remember(database, entries).catch(() => {})\n  const idempotency = { ...stored, remember }',
      },
    ],
    seeds: 10,
  },
  {
    name: 'key without its owner',
    breaks: "A customer's Idempotency-Key is taken for the same key of another customer.",
    edits: [
      {
        file: 'chassis/idempotency.ts',
        find: "return String((request.startsWith('POST void') ? orderId : (profileId ?? accountId)) ?? '')",
        replace: "return ''",
      },
    ],
    seeds: 10,
  },
  {
    name: 'key that ignores the body',
    breaks: 'Another request under the same Idempotency-Key is given the answer of the first.',
    edits: [
      {
        file: 'chassis/idempotency.ts',
        find: 'if (!isSame(request, keyed.request))',
        replace: 'if (false)',
      },
    ],
    seeds: 10,
  },
]
