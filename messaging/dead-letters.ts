import type { Queryable } from '../platform/database.ts'

/**
 * Messages that can never succeed, stored whole beside the reason, in the schema of the service that
 * could not handle or deliver them. `source` is `broker` for what a consumer set aside, `outbox` for
 * what the relay could not deliver; there `offset` is the row's id.
 */
export interface DeadLetter {
  readonly id: string
  readonly source: 'broker' | 'outbox'
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
  readonly code: string
  readonly reason: string
  readonly created: Date
}

const MAX_REASON_LENGTH = 2000

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

/** Stores letters; one that is stored already, from an earlier delivery, stays as it is. */
export async function setAside(
  tx: Queryable,
  schema: string,
  letters: readonly DeadLetter[],
): Promise<void> {
  if (letters.length === 0) return
  await tx.query(
    `insert into ${schema}.dead_letter
       (id, source, topic, partition, "offset", key, value, headers, code, reason, created)
     select * from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::bigint[],
       $6::text[], $7::bytea[], $8::text[], $9::text[], $10::text[], $11::timestamptz[])
     on conflict do nothing`,
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
      letters.map((letter) => storable(letter.reason).slice(0, MAX_REASON_LENGTH)),
      letters.map((letter) => letter.created),
    ],
  )
}

export async function countDeadLetters(db: Queryable, schema: string): Promise<number> {
  const [row] = await db.query<{ letters: number }>(
    `select count(*)::integer as letters from ${schema}.dead_letter`,
  )
  return row!.letters
}

/** PostgreSQL's text holds no NUL; a letter must be storable whatever its key or reason says. */
function storable(text: string): string {
  return text.replaceAll('\0', '\ufffd')
}
