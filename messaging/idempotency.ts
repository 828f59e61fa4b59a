import {
  Fault,
  type FinalProblemCode,
  PROBLEMS,
  type ProblemDetails,
  problemBody,
} from '../contracts/problems.ts'
import type { Queryable } from '../platform/database.ts'

/**
 * Idempotency-Key: the first request's answer is stored in the transaction of its effect and given
 * again to every request with the same key and content. A key without an answer belongs to a request
 * whose outcome is not known yet; whoever settles that outcome stores the answer.
 */
export interface KeyedRequest {
  readonly key: string
  /** Method, path and content in one canonical text: another text under the same key is refused. */
  readonly request: string
}

export interface StoredAnswer {
  readonly status: number
  /** JSON. */
  readonly body: string
}

/**
 * A problem as an answer that can be stored. Only final problems qualify: a stored answer is sent
 * again for as long as its key is kept, so it must not invite the caller to retry.
 */
export function problemAnswer(code: FinalProblemCode, details: ProblemDetails = {}): StoredAnswer {
  return { status: PROBLEMS[code].status, body: JSON.stringify(problemBody(code, details)) }
}

export function idempotencyTable(schema: string): string {
  return `
create table ${schema}.idempotency (
  key text primary key,
  request text not null,
  status integer,
  body text,
  created timestamptz(3) not null
);
create index idempotency_created on ${schema}.idempotency (created);
`
}

/** Rows that the previous version writes have no owner; see `ownerOf`. */
export function idempotencyOwnerColumn(schema: string): string {
  return `alter table ${schema}.idempotency add column owner text;`
}

export function keyedRequest(
  key: string | undefined,
  call: string,
  content: object,
): KeyedRequest | undefined {
  if (key === undefined) return undefined
  const entries = Object.entries(content).sort(([a], [b]) => (a < b ? -1 : 1))
  return { key, request: `${call} ${JSON.stringify(Object.fromEntries(entries))}` }
}

const EXPIRED_AT_ONCE = 2_000

export type Idempotency = ReturnType<typeof createIdempotency>

export function createIdempotency(schema: string) {
  const find = `
select key, request, status, body from ${schema}.idempotency where key = any($1::text[])`
  const insert = `
insert into ${schema}.idempotency (key, request, status, body, created)
select key, request, status, body, now()
from unnest($1::text[], $2::text[], $3::integer[], $4::text[]) as k (key, request, status, body)`
  const complete = `
update ${schema}.idempotency i set status = a.status, body = a.body
from unnest($1::text[], $2::integer[], $3::text[]) as a (key, status, body)
where i.key = any($1::text[]) and i.key = a.key and i.status is null`
  const expire = `
with oldest as (
  select key from ${schema}.idempotency
  where created < now() - $1::bigint * interval '1 ms'
  order by created limit ${EXPIRED_AT_ONCE}),
gone as (
  delete from ${schema}.idempotency
  where key = any (array(select key from oldest)) returning 1)
select count(*)::integer as deleted from gone`

  return {
    /** What is stored under these keys; read it in the transaction that will `remember`. */
    async find(
      tx: Queryable,
      keys: readonly string[],
    ): Promise<Map<string, KeyedRequest & { readonly answer: StoredAnswer | null }>> {
      if (keys.length === 0) return new Map()
      const rows = await tx.query<{
        key: string
        request: string
        status: number | null
        body: string | null
      }>(find, [keys])
      return new Map(
        rows.map(({ key, request, status, body }) => [
          key,
          { key, request, answer: status === null ? null : { status, body: body ?? 'null' } },
        ]),
      )
    },

    /** Stores keys with their answers, or without where the outcome is still open. A key that
     * another transaction stored meanwhile is a conflict: the caller's transaction starts again. */
    async remember(
      tx: Queryable,
      entries: readonly (KeyedRequest & { readonly answer: StoredAnswer | null })[],
    ): Promise<void> {
      if (entries.length === 0) return
      await tx.query(insert, [
        entries.map(({ key }) => key),
        entries.map(({ request }) => request),
        entries.map(({ answer }) => answer?.status ?? null),
        entries.map(({ answer }) => answer?.body ?? null),
      ])
    },

    /** Stores the answers of keys whose outcome was open. */
    async complete(
      tx: Queryable,
      answers: readonly (StoredAnswer & { readonly key: string })[],
    ): Promise<void> {
      if (answers.length === 0) return
      await tx.query(complete, [
        answers.map(({ key }) => key),
        answers.map(({ status }) => status),
        answers.map(({ body }) => body),
      ])
    },

    /** Deletes keys older than that, a batch per transaction, so that no statement runs for long. */
    async expire(db: Queryable, olderThanMs: number): Promise<void> {
      for (let deleted = EXPIRED_AT_ONCE; deleted === EXPIRED_AT_ONCE; ) {
        const [row] = await db.query<{ deleted: number }>(expire, [olderThanMs])
        deleted = row!.deleted
      }
    },
  }
}

/** What a request is told whose key was stored before: the first answer, or why there is none. */
export type Repetition =
  | { readonly kind: 'repeated'; readonly answer: StoredAnswer }
  | { readonly kind: 'refused'; readonly fault: Fault }

export function repeat(
  keyed: KeyedRequest,
  stored: { readonly request: string; readonly answer: StoredAnswer | null },
): Repetition {
  const { request, answer } = stored
  if (request !== keyed.request) {
    return { kind: 'refused', fault: new Fault('IDEMPOTENCY_KEY_REUSED') }
  }
  if (answer === null) return { kind: 'refused', fault: new Fault('IDEMPOTENCY_KEY_IN_PROGRESS') }
  return { kind: 'repeated', answer }
}

/** Sends a stored answer as it was; what an HTTP reply must be able to do is spelled out here. */
export function sendStored<Reply extends RawReply>(reply: Reply, answer: StoredAnswer): Reply {
  const { status, body } = answer
  reply.code(status)
  if (status < 400) {
    reply.type('application/json; charset=utf-8')
    // Text that has a type is sent as it is: it is finished JSON.
    reply.send(body as never)
    return reply
  }
  reply.type('application/problem+json')
  // As bytes: Fastify adds a charset to the type of text, and this type has none.
  reply.send(new TextEncoder().encode(body) as never)
  return reply
}

interface RawReply {
  code(status: number): unknown
  type(name: string): unknown
  send(body: never): unknown
}
