import type { BusMessage } from '../../../messaging/bus.ts'
import type { Queryable } from '../../../platform/database/database.ts'
import type { Finding } from '../checks/tables.ts'
import type { Broker, LostMessage } from '../servers/broker.ts'
import type { Chance } from '../world/chance.ts'

/**
 * A foreign program that writes to our topics without our headers. Its deposit requests are valid and take effect
 * once. Its invalid messages become one dead letter in each service that reads the topic. Its unknown events are
 * skipped.
 *
 * A message without `ce_id` is identified by its position. To test that positions in a recreated topic are not
 * confused with those in the old one, this program writes a new message to every offset that it had written to in
 * the old topic, with unknown events in between.
 */
export interface ForeignProgram {
  /** Draws a message and sends it right after our next message in the same topic. */
  prepare(): void
  /** To be called after each message that is appended to the log. */
  follow(message: Pick<BusMessage, 'topic' | 'key'>): void
  /** To be called after topics were recreated. */
  repeat(topics: readonly string[]): void
  readonly sent: readonly ForeignMessage[]
}

export interface ForeignMessage extends Draft {
  /** The key of our message before this one: an account id. */
  readonly key: string
  readonly text: string
  readonly offset: bigint
}

interface Draft {
  readonly topic: 'billing' | 'payment'
  /** The expected result: a deposit, a dead letter with this code, or no effect. */
  readonly fate: 'DEPOSITED' | 'UNREADABLE' | 'REFUSED' | 'SKIPPED'
  /** A number that identifies the message; in a deposit request, the amount. No customer uses the same amount. */
  readonly value: number
  textFor(key: string): string
}

/** More than any customer's deposit. */
const LOWEST_VALUE = 1_000
const NOBODY = '00000000-0000-4000-8000-000000000000'

export function createForeignProgram(broker: Broker, chance: Chance): ForeignProgram {
  let drafts: Draft[] = []
  const sent: ForeignMessage[] = []
  let drawn = 0
  let isSending = false

  function draw(kinds: readonly ((value: number) => Draft)[]): Draft {
    drawn += 1
    return chance.pick(kinds)(LOWEST_VALUE + drawn)
  }

  function send(draft: Draft, key: string): void {
    isSending = true
    const { topic } = draft
    const text = draft.textFor(key)
    sent.push({ ...draft, key, text, offset: broker.nextPlace(topic, key).offset })
    broker.append([{ topic, key, value: new TextEncoder().encode(text), headers: {} }])
    isSending = false
  }

  return {
    sent,
    prepare: () => void drafts.push(draw(KINDS)),
    follow({ topic, key }) {
      if (isSending || key === null) return
      const due = drafts.filter((draft) => draft.topic === topic)
      drafts = drafts.filter((draft) => !due.includes(draft))
      for (const draft of due) send(draft, key)
    },
    repeat(topics) {
      const former = sent.filter(({ topic }) => topics.includes(topic))
      for (const one of former.sort((a, b) => Number(a.offset - b.offset))) {
        const { topic, key, offset } = one
        while (broker.nextPlace(topic, key).offset < offset) send(skipped(topic, ++drawn), key)
        send(draw(KINDS.filter((kind) => isSameKind(kind(0), one))), key)
      }
    },
  }
}

const isSameKind = (a: Draft, b: Draft) => a.topic === b.topic && a.fate === b.fate

const KINDS: readonly ((value: number) => Draft)[] = [
  (value) => deposit(value, 'DEPOSITED', (key) => key),
  (value) => deposit(value, 'DEPOSITED', (key) => key),
  (value) => deposit(value, 'REFUSED', () => NOBODY),
  ...(['billing', 'payment'] as const).flatMap((topic) => [
    (value: number) => mistake(topic, value, 'UNREADABLE', `not JSON ${value}`),
    (value: number) => skipped(topic, value),
    (value: number) =>
      mistake(topic, value, 'UNREADABLE', JSON.stringify({ event: 'ORDER_PAID', value })),
  ]),
]

function deposit(value: number, fate: Draft['fate'], accountOf: (key: string) => string): Draft {
  const textFor = (key: string) =>
    JSON.stringify({ event: 'DEPOSIT_REQUEST', accountId: accountOf(key), value })
  return { topic: 'billing', fate, value, textFor }
}

const mistake = (
  topic: Draft['topic'],
  value: number,
  fate: Draft['fate'],
  text: string,
): Draft => ({ topic, fate, value, textFor: () => text })

const skipped = (topic: Draft['topic'], value: number): Draft =>
  mistake(topic, value, 'SKIPPED', JSON.stringify({ event: 'ORDER_FORGOTTEN', value }))

/** The services that read each topic: schema and consumer group. */
const READERS = {
  billing: [['billing', 'billing']],
  payment: [
    ['orders', 'order'],
    ['notification', 'notification'],
  ],
} as const

/** Checks the effects of the foreign messages. `letters` are the names of the dead letters that were expected. */
export async function checkForeign(
  db: Queryable,
  messages: readonly ForeignMessage[],
  lost: readonly LostMessage[],
): Promise<{ found: Finding[]; letters: ReadonlySet<string> }> {
  const found: Finding[] = []
  const letters = new Set<string>()
  for (const { topic, text, fate, key, value } of messages) {
    const unreadBy = lost.find(({ message }) => isText(message.value, text))?.unreadBy ?? []
    const expect = (times: number, actual: number, group: string, what: string) => {
      if (actual === times || (actual === 0 && unreadBy.includes(group))) return
      const sentence = `was ${what} ${actual} times, not ${times}`
      found.push({ invariant: 'foreign', subject: `message ${text}`, sentence })
    }
    for (const [schema, group] of READERS[topic]) {
      const rows = await db.query<{ name: string; code: string }>(
        `select 'dead letter ' || topic || '/' || partition || '/' || "offset" as name, code
         from ${schema}.dead_letter where topic = $1 and value = $2`,
        [topic, new TextEncoder().encode(text)],
      )
      const isLetter = fate === 'UNREADABLE' || fate === 'REFUSED'
      const right = rows.filter(({ code }) => isLetter && code === fate)
      for (const { name } of right) letters.add(name)
      expect(isLetter ? 1 : 0, rows.length, group, `dead-lettered in ${schema}`)
      expect(isLetter ? 1 : 0, right.length, group, `dead-lettered in ${schema} as ${fate}`)
    }
    if (fate !== 'DEPOSITED') continue
    const deposits = await db.query(
      'select from billing.deposit where account_id = $1 and amount_minor = $2',
      [key, BigInt(value) * 100n],
    )
    expect(1, deposits.length, 'billing', 'deposited')
  }
  return { found, letters }
}

const isText = (value: Uint8Array | null, text: string) =>
  value !== null && new TextDecoder().decode(value) === text
