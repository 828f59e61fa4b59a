import type { Page } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { redact } from '../../platform/telemetry/redact.ts'

/**
 * A message that can never succeed, stored as a whole with the reason, in the schema of the service that
 * could not handle or deliver the message. `source` is `broker` for a message that a consumer could not
 * handle and `outbox` for a row that the relay could not deliver. For `outbox`, `offset` is the id of the row
 * and `topic` is `carrier:destination`.
 */
export interface DeadLetter {
  readonly id: string
  readonly source: 'broker' | 'outbox'
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  /**
   * The id of the message's topic if the topic was recreated after the service first read a topic with this
   * name; else empty.
   */
  readonly incarnation: string
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
  /**
   * The event id of an outbox row; null for `broker`, because messages have the event id in their headers.
   */
  readonly eventId: string | null
  readonly code: string
  readonly reason: string
  readonly created: Date
}

/** A dead letter to be stored. The database sets the time. */
export type NewDeadLetter = Omit<DeadLetter, 'created'>

/**
 * Header of a replayed outbox row: the id of its dead letter, which is reused if the row is rejected again.
 */
export const DEAD_LETTER_HEADER = 'x-dead-letter-id'
const MAX_REASON_LENGTH = 2000
/** Dead letters are deleted after this many days. */
const KEPT_DAYS = 30
/** The most dead letters that are kept; beyond that, the oldest are deleted. */
const MAX_DEAD_LETTERS = 100_000
const CLEANUP_ROWS = 2_000
/** A page ends with the dead letter that reaches this size, even if the page's limit is higher. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024

export function deadLetterTable(schema: string): string {
  return `
create table ${schema}.dead_letter (
  id uuid primary key,
  source text not null check (source in ('broker', 'outbox')),
  topic text not null,
  partition integer not null,
  "offset" bigint not null,
  key text,
  value bytea,
  headers text not null,
  code text not null,
  reason text not null,
  created timestamptz(3) not null,
  unique (topic, partition, "offset")
);
`
}

/** Columns for paging (`seq`) and for the replay of outbox rows under their event id. */
export function deadLetterReplayColumns(schema: string): string {
  return `
alter table ${schema}.dead_letter
  add column seq bigint generated always as identity unique,
  add column event_id text;
`
}

/**
 * Two dead letters are the same if both their positions and their bytes are equal. A different message at a
 * position that was used before, as in a recreated topic, is a different dead letter.
 */
export function deadLetterIdentity(schema: string): string {
  return `
alter table ${schema}.dead_letter add column incarnation text not null default '';
create unique index dead_letter_identity on ${schema}.dead_letter
  (topic, partition, "offset", incarnation,
    md5(coalesce(key, '') || headers), coalesce(md5(value), ''));
alter table ${schema}.dead_letter drop constraint dead_letter_topic_partition_offset_key;
`
}

/**
 * Stores dead letters. A dead letter that an earlier delivery has already stored stays unchanged. Returns the
 * ids of the new ones.
 */
export async function storeDeadLetters(
  tx: Queryable,
  schema: string,
  deadLetters: readonly NewDeadLetter[],
): Promise<Set<string>> {
  if (deadLetters.length === 0) return new Set()
  const rows = await tx.query<{ id: string }>(
    `insert into ${schema}.dead_letter
       (id, source, topic, partition, "offset", key, value, headers, code, reason, created, event_id,
        incarnation)
     select id, source, topic, partition, "offset", key, value, headers, code, reason, now(), event_id,
       incarnation
     from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::text[],
       $7::bytea[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[])
       as l (id, source, topic, partition, "offset", key, value, headers, code, reason, event_id,
         incarnation)
     on conflict do nothing returning id`,
    [
      deadLetters.map(({ id }) => id),
      deadLetters.map(({ source }) => source),
      deadLetters.map(({ topic }) => topic),
      deadLetters.map(({ partition }) => partition),
      deadLetters.map(({ offset }) => offset),
      deadLetters.map(({ key }) => key && storable(key)),
      deadLetters.map(({ value }) => value),
      deadLetters.map(({ headers }) => JSON.stringify(headers)),
      deadLetters.map(({ code }) => code),
      deadLetters.map(({ reason }) => storableReason(reason)),
      deadLetters.map(({ eventId }) => eventId),
      deadLetters.map(({ incarnation }) => incarnation),
    ],
  )
  return new Set(rows.map(({ id }) => id))
}

export async function countDeadLetters(db: Queryable, schema: string): Promise<number> {
  const [row] = await db.query<{ count: number }>(
    `select count(*)::integer as count from ${schema}.dead_letter`,
  )
  return row!.count
}

/**
 * Deletes dead letters that are too old or exceed `MAX_DEAD_LETTERS`, a limited number per statement. Returns how
 * many it deleted.
 */
export async function expireDeadLetters(db: Queryable, schema: string): Promise<number> {
  for (let removed = 0; ; ) {
    const rows = await db.query(
      `delete from ${schema}.dead_letter where id = any (array(
         select id from (
           select id, seq, created from ${schema}.dead_letter order by seq limit $1) as page
         where created < now() - $2 * interval '1 day' or seq <= (
           select seq from ${schema}.dead_letter order by seq desc offset $3 limit 1)))
       returning id`,
      [CLEANUP_ROWS, KEPT_DAYS, MAX_DEAD_LETTERS],
    )
    removed += rows.length
    if (rows.length < CLEANUP_ROWS) return removed
  }
}

interface StoredRow extends Omit<DeadLetter, 'headers'> {
  readonly headers: string
}

const COLUMNS = `id, source, topic, partition, "offset", incarnation, key, value, headers,
  event_id as "eventId", code, reason, created`

const toDeadLetter = (row: StoredRow): DeadLetter => ({
  ...row,
  headers: JSON.parse(row.headers) as Record<string, string>,
})

/**
 * A page of dead letters, oldest first. `next` is the cursor of the next page, undefined on the last one.
 * Bodies can be large, so a page can be shorter than its limit and still not be the last page.
 */
export async function listDeadLetters(
  db: Queryable,
  schema: string,
  { limit, cursor }: Page,
): Promise<{ deadLetters: DeadLetter[]; next: bigint | undefined }> {
  const rows = await db.query<StoredRow & { seq: bigint; bytes: bigint }>(
    `select ${COLUMNS}, seq, bytes from (
       select *, sum(size) over (order by seq) as bytes from (
         select *, octet_length(headers) + coalesce(octet_length(value), 0) as size
         from ${schema}.dead_letter where seq > $1 order by seq limit $2) as page) as page
     where bytes - size < $3 order by seq`,
    [BigInt(cursor ?? 0), limit, BigInt(MAX_PAGE_BYTES)],
  )
  const last = rows.at(-1)
  const isFull = last && (rows.length === limit || last.bytes >= MAX_PAGE_BYTES)
  return {
    deadLetters: rows.map(({ seq: _, bytes: __, ...row }) => toDeadLetter(row)),
    next: isFull ? last.seq : undefined,
  }
}

export async function findDeadLetter(
  db: Queryable,
  schema: string,
  id: string,
): Promise<DeadLetter | undefined> {
  const [row] = await db.query<StoredRow>(
    `select ${COLUMNS} from ${schema}.dead_letter where id = $1`,
    [id],
  )
  return row && toDeadLetter(row)
}

/** Like `findDeadLetter`, and locks the row until the transaction ends. */
export async function lockDeadLetter(
  tx: Queryable,
  schema: string,
  id: string,
): Promise<DeadLetter | undefined> {
  const [row] = await tx.query<StoredRow>(
    `select ${COLUMNS} from ${schema}.dead_letter where id = $1 for update`,
    [id],
  )
  return row && toDeadLetter(row)
}

/** Replaces the reason of a dead letter. Returns false if it no longer exists. */
export async function updateReason(
  db: Queryable,
  schema: string,
  id: string,
  { code, reason }: Pick<DeadLetter, 'code' | 'reason'>,
): Promise<boolean> {
  const rows = await db.query(
    `update ${schema}.dead_letter set code = $2, reason = $3 where id = $1 returning id`,
    [id, code, storableReason(reason)],
  )
  return rows.length > 0
}

/** Returns false if there is no such dead letter. */
export async function removeDeadLetter(
  db: Queryable,
  schema: string,
  id: string,
): Promise<boolean> {
  const rows = await db.query(`delete from ${schema}.dead_letter where id = $1 returning id`, [id])
  return rows.length > 0
}

/** Removes the undeliverable letters to a customer. `key` is the account. */
export async function removeLettersOf(db: Queryable, schema: string, key: string): Promise<void> {
  await db.query(
    `delete from ${schema}.dead_letter
     where source = 'outbox' and topic like 'letter:%' and key = $1`,
    [key],
  )
}

const storableReason = (reason: string) => storable(redact(reason)).slice(0, MAX_REASON_LENGTH)

/** PostgreSQL's type text cannot contain NUL, but a dead letter must be storable whatever its key and reason are. */
function storable(text: string): string {
  return text.replaceAll('\0', '\ufffd')
}
