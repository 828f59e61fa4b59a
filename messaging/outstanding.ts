import type { Queryable } from '../platform/database/database.ts'
import type { Carrier } from './outbox/outbox.ts'

/**
 * Queries for `npm run audit` and `npm run reconcile` about unfinished work: the outbox, relay leases, dead
 * letters and idempotency keys in a service's schema, and the embedded log (schema `bus`).
 */
export interface OutboxDepth {
  readonly carrier: Carrier
  readonly rows: bigint
  readonly oldest: Date
}

export function outboxDepth(db: Queryable, schema: string): Promise<OutboxDepth[]> {
  return db.query(
    `select carrier, count(*) as rows, min(created) as oldest
     from ${schema}.outbox group by carrier order by carrier`,
  )
}

/** Returns those of these event ids that are still in the outbox. */
export async function findInOutbox(
  db: Queryable,
  schema: string,
  eventIds: readonly string[],
): Promise<string[]> {
  const rows = await db.query<{ eventId: string }>(
    `select event_id as "eventId" from ${schema}.outbox where event_id = any($1::text[])`,
    [eventIds],
  )
  return rows.map(({ eventId }) => eventId)
}

/** Counts the leases of relays that expired before this time and that no other relay has removed. */
export async function expiredLeases(
  db: Queryable,
  schema: string,
  before: number,
): Promise<bigint> {
  const [row] = await db.query<{ leases: bigint }>(
    `select count(*) as leases from ${schema}.relay_member where until < $1`,
    [new Date(before)],
  )
  return row!.leases
}

export interface DeadLetterSummary {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly code: string
  readonly reason: string
}

export function oldestDeadLetters(
  db: Queryable,
  schema: string,
  limit: number,
): Promise<DeadLetterSummary[]> {
  return db.query(
    `select topic, partition, "offset", code, reason from ${schema}.dead_letter
     order by created limit $1`,
    [limit],
  )
}

/** Idempotency keys that have no stored response yet, oldest first. */
export function unansweredKeys(
  db: Queryable,
  schema: string,
  limit: number,
): Promise<{ key: string; created: Date }[]> {
  return db.query(
    `select key, created from ${schema}.idempotency
     where status is null order by created limit $1`,
    [limit],
  )
}

export interface Backlog {
  readonly group: string
  readonly topic: string
  readonly partition: number
  readonly messages: bigint
}

/** Partitions that a consumer group has not read to the end. */
export function backlogs(bus: Queryable): Promise<Backlog[]> {
  return bus.query(
    `select g.group_name as "group", topic, partition, p.next_offset - g.next_offset as messages
     from bus.group_offset g join bus.partition p using (topic, partition)
     where g.next_offset < p.next_offset order by 1, 2, 3`,
  )
}

/** Returns those of these event ids that are in the log of a topic and that this group has not read yet. */
export async function findUnread(
  bus: Queryable,
  topic: string,
  group: string,
  eventIds: readonly string[],
): Promise<string[]> {
  const rows = await bus.query<{ eventId: string }>(
    `select m.headers::json ->> 'ce_id' as "eventId"
     from bus.message m left join bus.group_offset g
       on g.group_name = $2 and g.topic = m.topic and g.partition = m.partition
     where m.topic = $1 and m."offset" >= coalesce(g.next_offset, 0)
       and m.headers::json ->> 'ce_id' = any($3::text[])`,
    [topic, group, eventIds],
  )
  return rows.map(({ eventId }) => eventId)
}
