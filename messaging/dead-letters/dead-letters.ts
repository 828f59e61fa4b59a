import type { Page } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { redact } from '../../platform/telemetry/redact.ts'

/**
 * Messages that can never succeed, stored whole beside the reason, in the schema of the service that
 * could not handle or deliver them. `source` is `broker` for what a consumer set aside, `outbox` for
 * what the relay could not deliver; there `offset` is the row's id, and `topic` is
 * `carrier:destination`.
 */
export interface DeadLetter {
  readonly id: string
  readonly source: 'broker' | 'outbox'
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  /** The id of its topic, where that was recreated after the service first read it; else empty. */
  readonly incarnation: string
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
  /** What receivers know an outbox row by; null for `broker`, whose messages say it themselves. */
  readonly eventId: string | null
  readonly code: string
  readonly reason: string
  readonly created: Date
}

/** The database says when it was stored. */
export type NewDeadLetter = Omit<DeadLetter, 'created'>

/** Of an outbox row that was a dead letter: the id under which it is one again if it is rejected. */
export const DEAD_LETTER_HEADER = 'x-dead-letter-id'
const MAX_REASON_LENGTH = 2000
/** Letters that nobody took care of are removed, the oldest first, after so many days or beyond so many. */
const KEPT_DAYS = 30
const MAX_LETTERS = 100_000
const CLEANUP_ROWS = 2_000
/** A page of letters ends after the one that reaches this, however many were asked for. */
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

/** What the table needs besides, so that letters can be paged and rows go back under their id. */
export function deadLetterReplayColumns(schema: string): string {
  return `
alter table ${schema}.dead_letter
  add column seq bigint generated always as identity unique,
  add column event_id text;
`
}

/**
 * What makes a letter the same letter: its position and its bytes. A different message at a position
 * that was used before, such as in a recreated topic, is another letter.
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
 * Stores letters; one that is stored already, from an earlier delivery, stays as it is. Returns the
 * ids of those that are new.
 */
export async function storeDeadLetters(
  tx: Queryable,
  schema: string,
  letters: readonly NewDeadLetter[],
): Promise<Set<string>> {
  if (letters.length === 0) return new Set()
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
      letters.map((letter) => letter.id),
      letters.map((letter) => letter.source),
      letters.map((letter) => letter.topic),
      letters.map((letter) => letter.partition),
      letters.map((letter) => letter.offset),
      letters.map((letter) => letter.key && storable(letter.key)),
      letters.map((letter) => letter.value),
      letters.map((letter) => JSON.stringify(letter.headers)),
      letters.map((letter) => letter.code),
      letters.map((letter) => storableReason(letter.reason)),
      letters.map((letter) => letter.eventId),
      letters.map((letter) => letter.incarnation),
    ],
  )
  return new Set(rows.map(({ id }) => id))
}

export async function countDeadLetters(db: Queryable, schema: string): Promise<number> {
  const [row] = await db.query<{ letters: number }>(
    `select count(*)::integer as letters from ${schema}.dead_letter`,
  )
  return row!.letters
}

/** Removes letters that are past their time or too many, page by page; returns how many. */
export async function expireDeadLetters(db: Queryable, schema: string): Promise<number> {
  for (let removed = 0; ; ) {
    const rows = await db.query(
      `delete from ${schema}.dead_letter where id = any (array(
         select id from (
           select id, seq, created from ${schema}.dead_letter order by seq limit $1) as page
         where created < now() - $2 * interval '1 day' or seq <= (
           select seq from ${schema}.dead_letter order by seq desc offset $3 limit 1)))
       returning id`,
      [CLEANUP_ROWS, KEPT_DAYS, MAX_LETTERS],
    )
    removed += rows.length
    if (rows.length < CLEANUP_ROWS) return removed
  }
}

interface StoredLetter extends Omit<DeadLetter, 'headers'> {
  readonly headers: string
}

const COLUMNS = `id, source, topic, partition, "offset", incarnation, key, value, headers,
  event_id as "eventId", code, reason, created`

const toLetter = (row: StoredLetter): DeadLetter => ({
  ...row,
  headers: JSON.parse(row.headers) as Record<string, string>,
})

/**
 * Letters, oldest first; `next` is the cursor of the page after this one, where there may be one.
 * Bodies can be large, so a page may have fewer letters than its limit and yet not be the last.
 */
export async function listDeadLetters(
  db: Queryable,
  schema: string,
  { limit, cursor }: Page,
): Promise<{ letters: DeadLetter[]; next: bigint | undefined }> {
  const rows = await db.query<StoredLetter & { seq: bigint; bytes: bigint }>(
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
    letters: rows.map(({ seq: _, bytes: __, ...row }) => toLetter(row)),
    next: isFull ? last.seq : undefined,
  }
}

export async function findDeadLetter(
  db: Queryable,
  schema: string,
  id: string,
): Promise<DeadLetter | undefined> {
  const [row] = await db.query<StoredLetter>(
    `select ${COLUMNS} from ${schema}.dead_letter where id = $1`,
    [id],
  )
  return row && toLetter(row)
}

/** The same, and nobody else can lock or remove it until the transaction ends. */
export async function lockDeadLetter(
  tx: Queryable,
  schema: string,
  id: string,
): Promise<DeadLetter | undefined> {
  const [row] = await tx.query<StoredLetter>(
    `select ${COLUMNS} from ${schema}.dead_letter where id = $1 for update`,
    [id],
  )
  return row && toLetter(row)
}

/** Says anew why a letter is one. False where there is none any more. */
export async function explainDeadLetter(
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

/** False where there was none. */
export async function removeDeadLetter(
  db: Queryable,
  schema: string,
  id: string,
): Promise<boolean> {
  const rows = await db.query(`delete from ${schema}.dead_letter where id = $1 returning id`, [id])
  return rows.length > 0
}

/** Removes the letters to a customer, such as those to an address that was wrong. */
export async function removeLettersOf(db: Queryable, schema: string, key: string): Promise<void> {
  await db.query(
    `delete from ${schema}.dead_letter
     where source = 'outbox' and topic like 'letter:%' and key = $1`,
    [key],
  )
}

const storableReason = (reason: string) => storable(redact(reason)).slice(0, MAX_REASON_LENGTH)

/** PostgreSQL's text holds no NUL; a letter must be storable whatever its key or reason says. */
function storable(text: string): string {
  return text.replaceAll('\0', '\ufffd')
}
