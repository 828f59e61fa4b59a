import assert from 'node:assert/strict'
import { EVENT_ID } from '../../contracts/events.ts'
import type { DeadLetterView } from '../../contracts/http.ts'
import { type Client, eventually } from '../e2e/client.ts'
import type { ForeignRecord, Position } from './foreign-service.ts'

/** The longest time that messages between services and foreign programs can take. */
export const LIMIT_MS = 60_000

/** The bodies about an account in order, without redeliveries. */
export function bodiesOf(records: readonly ForeignRecord[], account: string): { event: string }[] {
  const once = new Map<string, { event: string }>()
  for (const { key, value, headers, topic, partition, offset } of records) {
    if (key !== account) continue
    const id = new Map(headers).get('ce_id') ?? `${topic}/${partition}/${offset}`
    if (!once.has(id)) once.set(id, JSON.parse(value))
  }
  return [...once.values()]
}

/**
 * Waits until an account has as many notices as there are `texts`; they must be exactly these texts, in this
 * order.
 */
export async function messagesAre(ours: Client, account: string, texts: readonly string[]) {
  const messages = await eventually(async () => {
    const some = await ours.messages(account)
    assert.ok(some.length >= texts.length)
    return some
  }, LIMIT_MS)
  assert.deepEqual(
    messages.map(({ text }) => text),
    texts,
  )
}

export const isAt = (at: Position) => (record: Position) =>
  record.topic === at.topic && record.partition === at.partition && record.offset === at.offset

export async function deadLetterAt(ours: Client, service: string, at: Position) {
  return await eventually(async () => {
    const letters = await ours.readAll<DeadLetterView>(`/${service}/dead-letters`)
    const letter = letters.find((one) => isAt(at)({ ...one, offset: Number(one.offset) }))
    assert.ok(letter, `no dead letter of ${service} is at ${JSON.stringify(at)}`)
    return letter
  }, LIMIT_MS)
}

/** Money is a JSON number with at most two decimals, never with an exponent. */
export function assertPlainNumbers(text: string): void {
  for (const [, number] of text.matchAll(/"(?:price|value|balance)":([^,}]*)/g)) {
    assert.match(number as string, /^(0|[1-9]\d*)(\.\d{1,2})?$/, text)
  }
}

/** Asserts CloudEvents 1.0 in the binary mode of its Kafka binding, with each header once. */
export function assertCloudEvent({ topic, key, value, headers }: ForeignRecord): void {
  const named = new Map(headers)
  assert.equal(named.size, headers.length)
  const body = JSON.parse(value) as { event?: string; accountId: string }
  assert.equal(key, body.accountId)
  assert.match(named.get('ce_id') ?? '', EVENT_ID)
  assert.equal(named.get('ce_type'), topic === 'balance' ? 'BALANCE_CHANGED' : body.event)
  assert.match(named.get('ce_source') ?? '', /^\/trifold\/(order|billing)$/)
  assert.match(named.get('ce_time') ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  const ageMs = Date.now() - Date.parse(named.get('ce_time') ?? '')
  assert.ok(ageMs >= 0 && ageMs < 600_000, `it is ${ageMs} ms old`)
  assert.equal(named.get('ce_specversion'), '1.0')
  assert.equal(named.get('content-type'), 'application/json')
}
