import type { Mutant } from './mutant.ts'

/** Bugs that only wrong clocks, frozen processes, deadlines or recreated topics expose. */
const LANES = 'messaging/outbox/lanes.ts'

export const CLOCK_MUTANTS: readonly Mutant[] = [
  {
    name: 'dead letter identified by its position alone',
    fault: 'A new dead letter is taken for an earlier one that had the same position.',
    edits: [
      {
        file: 'messaging/dead-letters/dead-letters.ts',
        find: `(topic, partition, "offset", incarnation,
    md5(coalesce(key, '') || headers), coalesce(md5(value), ''))`,
        replace: '(topic, partition, "offset")',
      },
    ],
    seeds: 30,
    profile: 'recreated',
  },
  {
    name: 'position without the topic id',
    fault:
      'In a recreated topic, a message without an id is taken for an earlier one that had the same position.',
    edits: [
      {
        file: 'contracts/events.ts',
        find: 'return incarnation ? `${position}/${incarnation}` : position',
        replace: 'return position',
      },
    ],
    seeds: 30,
    profile: 'recreated',
  },
  {
    name: "lease ends by its holder's clock",
    fault: "A relay's lease expires by the clock of its process instead of the database's clock.",
    edits: [
      {
        file: LANES,
        find: "values ($1, now() + interval '${LEASE_MS} ms', $4)",
        replace: 'values ($1, $5::timestamptz, $4)',
      },
      {
        file: LANES,
        find: 'isFirst, place],',
        replace: 'isFirst, place, new Date(runtime.now() + LEASE_MS)],',
      },
    ],
    seeds: 10,
    profile: 'clocks',
  },
  {
    name: "lease judged by another relay's clock",
    fault:
      "A relay decides by its own clock, not the database's, whether another relay's lease has expired.",
    edits: [
      { file: LANES, find: 'until < now() or $2 or', replace: 'until < $5::timestamptz or $2 or' },
      {
        file: LANES,
        find: 'isFirst, place],',
        replace: 'isFirst, place, new Date(runtime.now())],',
      },
    ],
    seeds: 30,
    profile: 'clocks',
  },
  {
    name: 'transactions may idle forever',
    fault: 'The server does not end the session of a process that froze in a transaction.',
    edits: [
      {
        file: 'platform/database/database.ts',
        find: 'idle_in_transaction_session_timeout: 10_000',
        replace: 'idle_in_transaction_session_timeout: 0',
      },
    ],
    seeds: 30,
    profile: 'freezes',
  },
  {
    name: 'orders timed by a process clock',
    fault: "The time and the deadline of an order come from a process's clock.",
    edits: [
      {
        file: 'services/order/service.ts',
        find: 'now: await databaseClock(tx),',
        replace: 'now: runtime.now(),',
      },
    ],
    seeds: 10,
    profile: 'clocks',
  },
  {
    name: 'deadlines checked by a process clock',
    fault: 'A process checks by its own clock whether an order has passed its deadline.',
    edits: [
      {
        file: 'services/order/resends.ts',
        find: 'overdueOrders(database, await databaseClock(database), POLL_LIMIT)',
        replace: 'overdueOrders(database, runtime.now(), POLL_LIMIT)',
      },
    ],
    seeds: 30,
    profile: 'clocks',
  },
  {
    name: 'deadline not sent',
    fault: 'The payment request does not carry its deadline.',
    edits: [
      {
        file: 'services/order/routing.ts',
        find: '...(deadlineMs && { deadlineMs }) }',
        replace: '}',
      },
    ],
    seeds: 30,
    styles: ['events'],
    profile: 'broker',
  },
  {
    name: 'deadline not checked',
    fault: 'The billing service takes a payment after its deadline.',
    edits: [
      {
        file: 'services/billing/ledger.ts',
        find: ': deadlineMs < now',
        replace: ': false',
      },
    ],
    seeds: 30,
    styles: ['events'],
    profile: 'broker',
  },
  {
    name: 'keys expire by a process clock',
    fault: "Idempotency keys expire by a process's clock instead of the database's clock.",
    edits: [
      {
        file: 'chassis/idempotency.ts',
        find: "where created < now() - $1::bigint * interval '1 ms'",
        replace: 'where created < to_timestamp($1::bigint / 1000.0)',
      },
      {
        file: 'services/order/resends.ts',
        find: 'idempotency.expire(database, config.IDEMPOTENCY_KEY_TTL_MS)',
        replace: 'idempotency.expire(database, runtime.now() - config.IDEMPOTENCY_KEY_TTL_MS)',
      },
      {
        file: 'services/billing/service.ts',
        find: 'idempotency.expire(database, config.IDEMPOTENCY_KEY_TTL_MS)',
        replace: 'idempotency.expire(database, runtime.now() - config.IDEMPOTENCY_KEY_TTL_MS)',
      },
    ],
    seeds: 30,
    profile: 'clocks',
  },
]
