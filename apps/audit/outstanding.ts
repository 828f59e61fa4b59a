import {
  backlogs,
  expiredLeases,
  oldestDeadLetters,
  outboxDepth,
  unansweredKeys,
} from '../../messaging/outstanding.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { type AuditInput, type Findings, MAX_VIOLATIONS_EACH } from './findings.ts'
import { requestedDeposits, watchedOrders, watchedVoids } from './store.ts'

/**
 * A relay renews its lease within ten seconds. If a lease expired this many milliseconds ago, its relay has
 * died.
 */
const DEAD_LEASE_MS = 60_000

/** Checks I9: once all work is finished, nothing is outstanding. */
export async function auditOutstanding(input: AuditInput, findings: Findings): Promise<void> {
  if (!input.settled) return
  const { orders, billing, notification, bus } = input
  await auditSchema(orders, 'orders', input.now, findings)
  await auditSchema(billing, 'billing', input.now, findings)
  await auditSchema(notification, 'notification', input.now, findings)
  for (const [db, schema] of [
    [orders, 'orders'],
    [billing, 'billing'],
  ] as const) {
    await auditKeys(db, schema, findings)
  }
  const watched = await watchedOrders(orders)
  if (watched > 0n) findings.add('I9', 'table watch', `still holds ${watched} orders`)
  const voids = await watchedVoids(orders)
  if (voids > 0n) findings.add('I9', 'table void_watch', `still holds ${voids} orders`)
  for (const { id, created } of await requestedDeposits(billing, MAX_VIOLATIONS_EACH)) {
    const sentence = `was requested at ${created.toISOString()} and is not booked`
    findings.add('I9', `deposit ${id}`, sentence)
  }
  if (!bus) return
  for (const { group, topic, partition, messages } of await backlogs(bus)) {
    const subject = `partition ${topic}/${partition}`
    findings.add('I9', subject, `has ${messages} messages that ${group} has not read`)
  }
}

async function auditSchema(
  db: Queryable,
  schema: string,
  now: number,
  findings: Findings,
): Promise<void> {
  findings.checked('I9', 1, 'schemas')
  for (const { carrier, rows, oldest } of await outboxDepth(db, schema)) {
    const sentence = `still holds ${rows} rows for ${carrier}, the oldest of ${oldest.toISOString()}`
    findings.add('I9', `outbox of ${schema}`, sentence)
  }
  const leases = await expiredLeases(db, schema, now - DEAD_LEASE_MS)
  if (leases > 0n)
    findings.add('I9', `relay of ${schema}`, `has ${leases} leases of relays that died`)
  for (const letter of await oldestDeadLetters(db, schema, MAX_VIOLATIONS_EACH)) {
    const { topic, partition, offset, code, reason } = letter
    const subject = `dead letter ${topic}/${partition}/${offset}`
    findings.add('I9', subject, `was stored by ${schema}, ${code}: ${reason}`)
  }
}

/** Once all work is finished, every outcome is known, so every Idempotency-Key must have its response. */
async function auditKeys(db: Queryable, schema: string, findings: Findings): Promise<void> {
  for (const { key, created } of await unansweredKeys(db, schema, MAX_VIOLATIONS_EACH)) {
    const sentence = `of ${schema} has had no response since ${created.toISOString()}`
    findings.add('I9', `idempotency key ${key}`, sentence)
  }
}
