import type { Mutant } from './mutant.ts'

/** Bugs in messaging (outbox, relay, consumer) and in the notification service. */
const OUTBOX = 'messaging/outbox/outbox.ts'
const POLLS = 'messaging/outbox/polls.ts'
const RELAY = 'messaging/outbox/relay-to-broker.ts'
const CALLS = 'messaging/outbox/relay-calls.ts'
const CONSUMER = 'messaging/consumer/consumer.ts'
const SETTLEMENT = 'messaging/consumer/settlement.ts'
const LANES = 'messaging/outbox/lanes.ts'
const COMMANDS = 'services/notification/commands.ts'
const STORE = 'services/notification/store.ts'

export const MESSAGE_MUTANTS: readonly Mutant[] = [
  {
    name: 'sent before the commit',
    fault:
      'The billing service sends its messages inside the transaction, which may still be rolled back.',
    edits: [
      {
        file: 'services/billing/service.ts',
        find: 'const outbox = createOutbox(SCHEMA)',
        replace: `const kept = createOutbox(SCHEMA)
  const outbox = {
    ...kept,
    async enqueue(tx, messages) {
      const sent = messages.filter(({ carrier }) => carrier === 'broker')
      await parts.bus.send(
        sent.map(({ destination: topic, key, headers, body }) => {
          return { topic, key, headers, value: new TextEncoder().encode(body) }
        }),
      )
      await kept.enqueue(tx, messages.filter(({ carrier }) => carrier !== 'broker'))
    },
  }`,
      },
    ],
    seeds: 10,
  },
  {
    name: 'deleted before it is sent',
    fault: 'The relay deletes outbox rows before it sends them.',
    edits: [
      {
        file: RELAY,
        find: 'isPollDue ? at.runtime.turn().then(sending) : sending()',
        replace:
          'at.outbox.takeForBroker(at.database, rows.map(({ id }) => id), [], [], 0).then(sending)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'rows sent in reverse',
    fault: 'The relay sends the newest rows of a batch first.',
    edits: [{ file: OUTBOX, find: 'order by id limit $4', replace: 'order by id desc limit $4' }],
    seeds: 10,
  },
  {
    name: 'lanes by event',
    fault: 'Rows with the same key are spread over several lanes, which different relays may hold.',
    edits: [{ file: OUTBOX, find: 'laneOf(message.key))', replace: 'laneOf(message.eventId))' }],
    seeds: 10,
  },
  {
    name: 'relay with a cursor',
    fault: 'The relay skips rows with ids below the last id that it sent.',
    edits: [
      {
        file: RELAY,
        find: 'acknowledged.push(...ids)',
        replace:
          'acknowledged.push(...ids)\n      for (const id of ids) if (id > cursor) cursor = id',
      },
      {
        file: RELAY,
        find: 'await outbox.takeForBroker(database, deleted, flight?.ids ?? [], from, BATCH)',
        replace:
          '(await outbox.takeForBroker(database, deleted, flight?.ids ?? [], from, BATCH)).filter(({ id }) => id > cursor)',
      },
      {
        file: RELAY,
        find: 'let acknowledged: bigint[] = []',
        replace: 'let acknowledged: bigint[] = []\n  let cursor = 0n',
      },
    ],
    seeds: 30,
    profile: 'crashes',
  },
  {
    name: 'batch overtakes a failed one',
    fault:
      'When a batch fails, the relay still sends the rows that it polled while that batch was in flight.',
    edits: [
      {
        file: RELAY,
        find: 'const rows = await poll(from)\n    await land()',
        replace: 'const rows = await poll(from)\n    await land().catch(() => undefined)',
      },
    ],
    seeds: 100,
    profile: 'broker',
  },
  {
    name: 'call overtakes a failed one',
    fault: 'After a failed call, the relay makes the next call with the same key.',
    edits: [
      {
        file: CALLS,
        find: 'waitMs, error: delivery.error })\n        break',
        replace: 'waitMs, error: delivery.error })\n        continue',
      },
    ],
    seeds: 30,
    styles: ['http'],
  },
  {
    name: 'call in memory overtakes',
    fault:
      'The relay makes a new call while an older call with the same key is still in the outbox.',
    edits: [{ file: CALLS, find: 'row.isFirst && lanes.has', replace: 'lanes.has' }],
    seeds: 30,
    styles: ['http'],
  },
  {
    name: 'waiting row does not hold its key',
    fault: 'A row is sent while an older row with the same key waits for its retry.',
    edits: [{ file: POLLS, find: 'from due where not is_behind', replace: 'from due' }],
    seeds: 30,
    styles: ['http'],
    profile: 'network',
  },
  {
    name: 'lanes of a dead relay',
    fault: 'No relay takes over the lanes of a relay that died.',
    edits: [{ file: LANES, find: 'until < now() or $2 or', replace: '$2 or' }],
    seeds: 10,
  },
  {
    name: 'offsets before the transaction',
    fault: 'The consumer commits offsets before it handles the messages.',
    edits: [
      {
        file: CONSUMER,
        find: 'const outcome = await settlement.settle(items, onDue)',
        replace:
          'await from.commit(batches).catch(() => {})\n    const outcome = await settlement.settle(items, onDue)',
      },
    ],
    seeds: 30,
  },
  {
    name: 'offsets of a split batch',
    fault:
      'When several batches fail together, the consumer commits their offsets before it retries them one by one.',
    edits: [
      {
        file: CONSUMER,
        find: "if (outcome === 'divided') {",
        replace: "if (outcome === 'divided') {\n      await from.commit(batches).catch(() => {})",
      },
    ],
    seeds: 100,
    styles: ['events'],
    profile: 'database',
  },
  {
    name: 'halves of a batch swapped',
    fault: 'When a failed batch is split, its second half is settled first.',
    edits: [
      {
        file: SETTLEMENT,
        find: '[run.slice(0, middle), run.slice(middle)]',
        replace: '[run.slice(middle), run.slice(0, middle)]',
      },
    ],
    seeds: 100,
    styles: ['events'],
    profile: 'database',
  },
  {
    name: 'failed batch ignored',
    fault: 'A batch counts as settled although its transaction failed.',
    edits: [
      {
        file: SETTLEMENT,
        find: "if (failure === undefined) return 'settled'",
        replace: "return 'settled'",
      },
    ],
    seeds: 10,
  },
  {
    name: 'poison message skipped',
    fault: 'A message that can never succeed is skipped instead of being stored as a dead letter.',
    edits: [
      {
        file: SETTLEMENT,
        find: 'stored = await storeDeadLetters(tx, schema, deadLetters)',
        replace: '',
      },
    ],
    seeds: 10,
    profile: 'recreated',
  },
  {
    name: 'unknown event dead-lettered',
    fault: 'An event that only a newer version knows becomes a dead letter.',
    edits: [
      {
        file: SETTLEMENT,
        find: "return 'unknownEvent' in event ? event : { event }",
        replace:
          "return 'unknownEvent' in event ? { code: 'UNREADABLE', reason: 'unknown' } : { event }",
      },
    ],
    seeds: 10,
    profile: 'recreated',
  },
  {
    name: 'poison message drops its batch',
    fault: 'The messages in the same batch as an unreadable one are not handled.',
    edits: [
      {
        file: SETTLEMENT,
        find: "const events = run.flatMap(({ read }) => ('event' in read ? [read.event] : []))",
        replace:
          "const events = run.every(({ read }) => 'event' in read) ? run.map(({ read }) => read.event) : []",
      },
    ],
    seeds: 100,
  },
  {
    name: 'poison message holds its partition',
    fault: 'A message that can never succeed is retried forever.',
    edits: [
      {
        file: SETTLEMENT,
        find: "if (typeof event === 'string') return { code: 'UNREADABLE', reason: event }",
        replace: "if (typeof event === 'string') throw new Error(event)",
      },
      {
        file: SETTLEMENT,
        find: "return { code: 'UNREADABLE', reason: String(error) }",
        replace: 'throw error',
      },
    ],
    seeds: 10,
    profile: 'recreated',
  },
  {
    name: 'notice without a natural key',
    fault: 'Each redelivery of an event writes its notice again.',
    edits: [
      {
        file: 'services/notification/migrations/001-initial.ts',
        find: 'event_id text not null unique',
        replace: 'event_id text not null',
      },
      { file: STORE, find: 'on conflict (event_id) do nothing', replace: '' },
    ],
    seeds: 10,
  },
  {
    name: 'one time for all notices of a batch',
    fault: 'All notices that a transaction writes for an account have the same time.',
    edits: [
      {
        file: STORE,
        find: 'clock.latest - (count - nth) * interval',
        replace: 'clock.latest - 0 * interval',
      },
    ],
    seeds: 10,
  },
  {
    name: 'second letter on a redelivery',
    fault: 'A redelivered event sends its letter again.',
    edits: [
      {
        file: COMMANDS,
        find: '(one.isNew ? letterTo(contacts, one) : [])',
        replace: 'letterTo(contacts, one)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'new Message-ID at each attempt',
    fault: 'Each retry of a letter has a new Message-ID, so it arrives as another letter.',
    edits: [
      {
        file: CALLS,
        find: 'const delivery = await deliver(row)',
        replace:
          "const again = { ...row.headers, 'message-id': `<${context.runtime.uuid()}@trifold>` }\n    const delivery = await deliver(carrier === 'letter' && row.attempts > 0 ? { ...row, headers: again } : row)",
      },
    ],
    seeds: 10,
  },
  {
    name: 'letter to another customer',
    fault: 'A letter is addressed to another customer in the same batch.',
    edits: [
      {
        file: COMMANDS,
        find: 'contacts.get(message.accountId)',
        replace: '[...contacts.values()][0]',
      },
    ],
    seeds: 10,
  },
  {
    name: 'letter lost',
    fault: 'A letter is not retried after its delivery failed.',
    edits: [
      {
        file: CALLS,
        find: "return { kind: 'retry', error: String(error) }",
        replace: "return { kind: 'done' }",
      },
    ],
    seeds: 30,
  },
]
