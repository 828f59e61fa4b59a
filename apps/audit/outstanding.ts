import {
  backlogs,
  expiredLeases,
  oldestDeadLetters,
  outboxDepth,
  unansweredKeys,
} from '../../messaging/outstanding.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { type Books, type Findings, MAX_VIOLATIONS_EACH } from './findings.ts'
import { requestedDeposits, watchedOrders, watchedVoids } from './store.ts'

/** A relay's lease lasts seconds; one that ended so long ago belongs to nobody. */
const DEAD_LEASE_MS = 60_000

/** I9: once all is settled, nothing waits for anything. */
export async function auditOutstanding(books: Books, findings: Findings): Promise<void> {
  if (!books.settled) return
  const { orders, billing, notification, bus } = books
  await auditSchema(orders, 'orders', books.now, findings)
  await auditSchema(billing, 'billing', books.now, findings)
  await auditSchema(notification, 'notification', books.now, findings)
  for (const [db, schema] of [
    [orders, 'orders'],
    [billing, 'billing'],
  ] as const) {
    await auditKeys(db, schema, findings)
  }
  const watched = await watchedOrders(orders)
  if (watched > 0n) findings.add('I9', 'watch of orders', `still holds ${watched} orders`)
  const voids = await watchedVoids(orders)
  if (voids > 0n) findings.add('I9', 'watch of voids', `still holds ${voids} orders`)
  for (const { id, created } of await requestedDeposits(billing, MAX_VIOLATIONS_EACH)) {
    const sentence = `was requested at ${created.toISOString()} and is not on its account`
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
  if (leases > 0n) findings.add('I9', `relay of ${schema}`, `has ${leases} leases of the dead`)
  for (const letter of await oldestDeadLetters(db, schema, MAX_VIOLATIONS_EACH)) {
    const { topic, partition, offset, code, reason } = letter
    const subject = `dead letter ${topic}/${partition}/${offset}`
    findings.add('I9', subject, `was set aside by ${schema}, ${code}: ${reason}`)
  }
}

/** The outcome that an answer waited for is known by now, so the answer is too. */
async function auditKeys(db: Queryable, schema: string, findings: Findings): Promise<void> {
  for (const { key, created } of await unansweredKeys(db, schema, MAX_VIOLATIONS_EACH)) {
    const sentence = `of ${schema} is without an answer since ${created.toISOString()}`
    findings.add('I9', `idempotency key ${key}`, sentence)
  }
}
