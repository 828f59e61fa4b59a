import type { Mutant } from './mutant.ts'

/** Bugs that show when clocks are wrong, processes freeze or topics are recreated. */
const LANES = 'messaging/outbox/lanes.ts'

export const CLOCK_MUTANTS: readonly Mutant[] = [
  {
    name: 'dead letter known by its position alone',
    breaks: 'A message that is set aside is taken for one that was at its position before.',
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
    name: 'position that leaves out the topic id',
    breaks:
      'A message without an id, in a recreated topic, is taken for one that was there before.',
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
    name: 'lease by the clock of its holder',
    breaks: 'The lease of a relay ends by the clock of its process, not by that of the database.',
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
    name: 'lease judged by the clock of another',
    breaks: 'A relay takes the lanes of another by its own clock, not by that of the database.',
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
    name: 'transactions may idle for ever',
    breaks: 'The server does not end the session of a process that is frozen in a transaction.',
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
    name: 'orders by the clock of a process',
    breaks: 'An order is created, and has its deadline, by the clock of a process.',
    edits: [
      {
        file: 'services/order/service.ts',
        find: 'now: await databaseClock(tx) },',
        replace: 'now: runtime.now() },',
      },
    ],
    seeds: 10,
    profile: 'clocks',
  },
  {
    name: 'deadlines pass by the clock of a process',
    breaks: 'An order passes its deadline by the clock of the process that checks it.',
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
    breaks: 'The request for a payment does not say until when billing may take it.',
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
    breaks: 'Billing takes a payment whose deadline has passed.',
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
    name: 'keys expire by the clock of a process',
    breaks: 'An Idempotency-Key expires by the clock of a process, not by that of the database.',
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
