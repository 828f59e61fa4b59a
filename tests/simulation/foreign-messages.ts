import type { OutgoingMessage } from '../../messaging/bus.ts'
import type { Queryable } from '../../platform/database.ts'
import type { Finding } from './books.ts'
import type { Broker } from './broker.ts'
import type { Chance } from './chance.ts'

/**
 * What a program that is not ours sends by mistake. Each reader of its topic sets it aside, whole and
 * once, and goes on; an event that no reader knows is skipped.
 */
export interface ForeignMessage {
  readonly topic: 'billing' | 'payment'
  readonly text: string
  readonly code: 'UNREADABLE' | 'REFUSED' | 'SKIPPED'
}

/** Sends one that no other resembles, under the key of another, which it comes with. */
export function sendForeign(broker: Broker, foreign: ForeignMessage, key: string): void {
  const { topic, text } = foreign
  const message: OutgoingMessage = {
    topic,
    key,
    value: new TextEncoder().encode(text),
    headers: {},
  }
  broker.append([message])
}

const NOBODY = '00000000-0000-4000-8000-000000000000'

export function drawForeign(chance: Chance, nth: number): ForeignMessage {
  const value = 100 + nth
  if (chance.happens(0.3)) {
    const body = { event: 'DEPOSIT_REQUEST', accountId: NOBODY, value }
    return { topic: 'billing', text: JSON.stringify(body), code: 'REFUSED' }
  }
  const topic = chance.pick(['billing', 'payment'] as const)
  return chance.pick([
    { topic, text: `not JSON ${nth}`, code: 'UNREADABLE' },
    { topic, text: JSON.stringify({ event: 'ORDER_FORGOTTEN', value }), code: 'SKIPPED' },
    { topic, text: JSON.stringify({ event: 'ORDER_PAID', value }), code: 'UNREADABLE' },
  ])
}

const READERS = { billing: ['billing'], payment: ['orders', 'notification'] } as const

/** What is wrong with the letters of these messages, and the names of those that are as they must be. */
export async function checkForeign(
  db: Queryable,
  messages: readonly ForeignMessage[],
): Promise<{ found: Finding[]; letters: ReadonlySet<string> }> {
  const found: Finding[] = []
  const letters = new Set<string>()
  for (const { topic, text, code } of messages) {
    for (const schema of READERS[topic]) {
      const rows = await db.query<{ name: string }>(
        `select 'dead letter ' || topic || '/' || partition || '/' || "offset" as name
         from ${schema}.dead_letter where topic = $1 and value = $2 and ($3 = 'SKIPPED' or code = $3)`,
        [topic, new TextEncoder().encode(text), code],
      )
      for (const { name } of rows) letters.add(name)
      const times = code === 'SKIPPED' ? 0 : 1
      if (rows.length === times) continue
      const sentence = `is set aside by ${schema} as ${code} ${rows.length} times, not ${times}`
      found.push({ invariant: 'poison', subject: `foreign message ${text}`, sentence })
    }
  }
  return { found, letters }
}
