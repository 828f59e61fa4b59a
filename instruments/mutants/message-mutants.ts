import type { Mutant } from './mutant.ts'

/** Bugs in what carries messages: outbox, relay, consumer; and in notification. */
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
    breaks: 'Billing sends its messages within the transaction, which may still fail.',
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
    breaks: 'The relay removes rows from the outbox, and then sends them.',
    edits: [
      {
        file: RELAY,
        find: '(isLookDue ? runtime.turn().then(sending) : sending())',
        replace: 'outbox.takeForBroker(database, ids, [], [], 0).then(sending)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'rows sent backwards',
    breaks: 'The relay sends the rows of a batch with the youngest first.',
    edits: [{ file: OUTBOX, find: 'order by id limit $4', replace: 'order by id desc limit $4' }],
    seeds: 10,
  },
  {
    name: 'lanes by event',
    breaks: 'The rows of a key are in several lanes, and so in the hands of several relays.',
    edits: [{ file: OUTBOX, find: 'laneOf(message.key))', replace: 'laneOf(message.eventId))' }],
    seeds: 10,
  },
  {
    name: 'relay with a cursor',
    breaks: 'The relay passes over rows that are older than the last that it sent.',
    edits: [
      {
        file: RELAY,
        find: 'acknowledged.push(...ids)',
        replace:
          'acknowledged.push(...ids)\n      for (const id of ids) if (id > cursor) cursor = id',
      },
      {
        file: RELAY,
        find: 'await outbox.takeForBroker(database, gone, flight?.ids ?? [], from, BATCH)',
        replace:
          '(await outbox.takeForBroker(database, gone, flight?.ids ?? [], from, BATCH)).filter(({ id }) => id > cursor)',
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
    name: 'rows in memory overtake',
    breaks:
      'The relay sends a row from memory though an older one of its key is left in the outbox.',
    edits: [
      { file: RELAY, find: 'row.isFirst && row.id > lookedTo', replace: 'row.id > lookedTo' },
    ],
    seeds: 10,
  },
  {
    name: 'batch overtakes a failed one',
    breaks: 'What was found while a batch was on its way is sent although that batch failed.',
    edits: [
      {
        file: RELAY,
        find: 'const found = await look(from)\n      await land()',
        replace: 'const found = await look(from)\n      await land().catch(() => undefined)',
      },
    ],
    seeds: 100,
    profile: 'broker',
  },
  {
    name: 'calls overtake a failed one',
    breaks: 'After a call that failed the relay goes on with the next of the same key.',
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
    name: 'postponed row does not hold its key',
    breaks: 'A row leaves although an older one of its key waits for another try.',
    edits: [{ file: POLLS, find: 'from due where not is_behind', replace: 'from due' }],
    seeds: 30,
    styles: ['http'],
    profile: 'network',
  },
  {
    name: 'lanes of the dead',
    breaks: 'The lanes of a relay that is gone are taken over by nobody.',
    edits: [{ file: LANES, find: 'until < now() or $2 or', replace: '$2 or' }],
    seeds: 10,
  },
  {
    name: 'offsets before the transaction',
    breaks: 'The consumer commits its offsets first and then handles the messages.',
    edits: [
      {
        file: CONSUMER,
        find: 'const outcome = await settlement.settle(items, onDue)',
        replace:
          'await from.commit(batches).catch(() => {})\n    const outcome = await settlement.settle(items, onDue)',
      },
    ],
    seeds: 10,
  },
  {
    name: 'offsets of a divided batch',
    breaks:
      'Where batches fail together their offsets are committed before they are tried one by one.',
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
    breaks: 'A batch that fails and is divided is settled with its later half first.',
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
    name: 'failed batch swallowed',
    breaks: 'A batch whose transaction failed counts as settled.',
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
    name: 'poison swallowed',
    breaks: 'A message that can never succeed is passed over, and not set aside.',
    edits: [
      {
        file: SETTLEMENT,
        find: 'stored = await storeDeadLetters(tx, schema, letters)',
        replace: '',
      },
    ],
    seeds: 10,
    profile: 'recreated',
  },
  {
    name: 'unknown event set aside',
    breaks: 'An event that only a newer version knows becomes a dead letter.',
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
    name: 'poison takes its batch along',
    breaks: 'The messages that come with one that is unreadable are not handled.',
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
    name: 'poison holds its partition',
    breaks: 'A message that can never succeed is tried for ever.',
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
    name: 'message without a natural key',
    breaks: 'A message is written as often as its event comes.',
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
    name: 'messages of a batch at one time',
    breaks: 'Messages that one transaction writes for an account all have the same time.',
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
    name: 'second letter on a replay',
    breaks: 'A redelivered event is written to its customer once more.',
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
    name: 'new Message-ID at each try',
    breaks: 'A letter that is brought again is another letter.',
    edits: [
      {
        file: CALLS,
        find: 'const delivery = await deliver(row)',
        replace:
          "const again = { ...row.headers, 'message-id': `<${at.runtime.uuid()}@trifold>` }\n    const delivery = await deliver(carrier === 'letter' && row.attempts > 0 ? { ...row, headers: again } : row)",
      },
    ],
    seeds: 10,
  },
  {
    name: 'letter to another customer',
    breaks: 'A letter goes to an address of the same batch, not to that of its account.',
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
    breaks: 'A letter whose delivery failed is not tried again.',
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
