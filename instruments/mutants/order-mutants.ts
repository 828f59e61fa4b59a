import type { Mutant } from './mutant.ts'

/** Bugs in the order service: its rules, its calls to the billing service, and its resends. */
const COMMANDS = 'services/order/commands.ts'
const ORDER = 'services/order/order.ts'
const CALLS = 'services/order/billing-calls.ts'
const RESENDS = 'services/order/resends.ts'
const ROUTES = 'services/order/routes.ts'

export const ORDER_MUTANTS: readonly Mutant[] = [
  {
    name: 'order changed without a lock',
    fault:
      'The order service reads orders without a lock, so it can overwrite the state that a concurrent transaction wrote.',
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
    fault: 'A late payment approves an order that is already canceled.',
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
    fault: 'Deleting a paid order cancels it without voiding its payment.',
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
    fault: 'An order that passes its deadline is canceled without voiding its payment.',
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
    name: 'unreachable billing not announced',
    fault:
      'In hybrid, the customer is not notified that an order failed because the billing service was unreachable.',
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
    fault:
      'The order service treats a call that got no response as a refusal and does not void the payment.',
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
    name: 'billing error taken for a refusal',
    fault: 'The order service treats a 5xx response as a refusal and does not void the payment.',
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
    name: 'deadline not announced',
    fault: 'The customer is not notified that an order passed its deadline.',
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
    name: 'deletion not announced',
    fault: 'The customer is not notified that a PENDING order was deleted.',
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
    name: 'payment requested after the cancellation',
    fault:
      'While the void of a canceled order is unconfirmed, the order service also requests its payment again.',
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
    name: 'failure announced after the payment',
    fault: 'A customer can read that an order failed after reading that it was paid.',
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
    name: 'stored response is retryable',
    fault:
      'The stored BILLING_UNREACHABLE response says that the request can be retried, although it is final.',
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
    name: 'void neither retried nor watched',
    fault: 'A void that gets no response from the billing service is neither retried nor watched.',
    edits: [
      {
        file: CALLS,
        find: "return { kind: 'retry', error: 'the billing service did not respond' }",
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
    fault: 'A PENDING order waits for its deadline, and its request is never resent.',
    edits: [{ file: RESENDS, find: '    await resendDue()\n', replace: '' }],
    seeds: 30,
    styles: ['events'],
    profile: 'lost-log',
  },
  {
    name: 'no deadline',
    fault: 'An order without an outcome is not canceled at its deadline.',
    edits: [{ file: RESENDS, find: '    await cancelOverdue()\n', replace: '' }],
    seeds: 30,
    styles: ['events'],
    profile: 'broker',
  },
  {
    name: 'void not watched',
    fault: 'A void sent by event is not watched, so it is lost with the log.',
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
    name: "another customer's order readable",
    fault: 'Any customer who knows the id of an order can read it.',
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
    name: "another customer's order deletable",
    fault: 'Any customer who knows the id of an order can delete it.',
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
    name: 'response before the commit',
    fault: 'In events, the customer gets 201 before the order is committed.',
    edits: [
      {
        file: ROUTES,
        find: 'const placed = await routes.apply(placement, caller)',
        replace:
          'const placing = routes.apply(placement, caller)\n    if (outcome === undefined) {\n      placing.catch(() => {})\n      return { status: 201, body: JSON.stringify(order.id) }\n    }\n    const placed = await placing',
      },
    ],
    seeds: 10,
    styles: ['events'],
  },
  {
    name: 'outcome not stored under its key',
    fault: 'The outcome of an order is not stored under the Idempotency-Key that waits for it.',
    edits: [
      {
        file: COMMANDS,
        find: 'at.idempotency.complete(tx, changes.responses),',
        replace: '',
      },
    ],
    seeds: 10,
  },
  {
    name: 'key outside the transaction',
    fault: 'The order service stores an Idempotency-Key outside the transaction of its order.',
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
    fault: 'Two customers who use the same Idempotency-Key share it.',
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
    fault:
      'A different request under a used Idempotency-Key gets the stored response of the first request.',
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
