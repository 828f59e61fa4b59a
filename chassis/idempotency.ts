import { parseAmount } from '../contracts/money.ts'
import {
  Fault,
  type FinalProblemCode,
  PROBLEMS,
  type ProblemDetails,
  problemBody,
} from '../contracts/problems.ts'
import type { Queryable } from '../platform/database/database.ts'

/**
 * Idempotency-Key: the first request's answer is stored in the transaction of its effect and given
 * again to every request of the same owner with the same key and content. A key without an answer
 * belongs to a request whose outcome is not known yet; whoever settles that outcome stores the answer.
 *
 * The owner is the profile, account or, of a void, the order in the request. Opening an account names neither, so its keys
 * have no owner, and callers must choose keys that nobody else uses, such as random UUIDs.
 */
export interface KeyedRequest {
  /** As it is stored: the caller's key, or its owner and that key where the key alone is taken. */
  readonly key: string
  readonly owner: string
  /** Call and content in one text. */
  readonly request: string
}

export interface StoredRequest extends KeyedRequest {
  readonly response: StoredResponse | null
}

export interface StoredResponse {
  readonly status: number
  /** JSON. */
  readonly body: string
}

/**
 * A problem as an answer that can be stored. Only final problems qualify: a stored answer is sent
 * again for as long as its key is kept, so it must not invite the caller to retry.
 */
export function problemResponse(
  code: FinalProblemCode,
  details: ProblemDetails = {},
): StoredResponse {
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

/**
 * The previous version neither writes nor reads the owner, and knows keys as unique by themselves. So
 * the key stays the primary key while both run, and a key that another owner has is stored with its
 * owner before it. The next version can make (owner, key) the primary key.
 */
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
  const request = `${call} ${JSON.stringify(Object.fromEntries(entries))}`
  return { key, owner: ownerOf(request), request }
}

/** A void may leave out the account, so its keys belong to the order. */
function ownerOf(request: string): string {
  const { profileId, accountId, orderId } = contentOf(request)
  return String((request.startsWith('POST void') ? orderId : (profileId ?? accountId)) ?? '')
}

function contentOf(request: string): Readonly<Record<string, unknown>> {
  return JSON.parse(request.slice(request.indexOf('{')))
}

/** No header can contain a line break, so no caller can send such a key. */
const withOwner = ({ owner, key }: KeyedRequest): string => `${owner}\n${key}`

/** Every key under which a request may be stored. */
export const keysOf = (keyed: KeyedRequest): string[] => [keyed.key, withOwner(keyed)]

/**
 * What is stored for a request, among what was found under its keys; where there is nothing, the
 * request with the key to store it under.
 */
export function lookUp(
  known: ReadonlyMap<string, StoredRequest>,
  keyed: KeyedRequest,
): { readonly stored: StoredRequest | undefined; readonly keyed: KeyedRequest } {
  const plain = known.get(keyed.key)
  const owned = known.get(withOwner(keyed))
  if (owned) return { stored: owned, keyed: owned }
  if (plain === undefined || plain.owner === keyed.owner) return { stored: plain, keyed }
  return { stored: undefined, keyed: { ...keyed, key: withOwner(keyed) } }
}

const EXPIRED_AT_ONCE = 2_000

export type Idempotency = ReturnType<typeof createIdempotency>

export function createIdempotency(schema: string) {
  const find = `
select key, owner, request, status, body from ${schema}.idempotency where key = any($1::text[])`
  const insert = `
insert into ${schema}.idempotency (key, request, status, body, owner, created)
select key, request, status, body, owner, now()
from unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[])
  as k (key, request, status, body, owner)`
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
    async find(tx: Queryable, keys: readonly string[]): Promise<Map<string, StoredRequest>> {
      if (keys.length === 0) return new Map()
      const rows = await tx.query<{
        key: string
        owner: string | null
        request: string
        status: number | null
        body: string | null
      }>(find, [keys])
      return new Map(
        rows.map(({ key, owner, request, status, body }) => {
          const response = status === null ? null : { status, body: body ?? 'null' }
          return [key, { key, owner: owner ?? ownerOf(request), request, response }]
        }),
      )
    },

    /** Stores keys with their answers, or without where the outcome is still open. A key that
     * another transaction stored meanwhile is a conflict: the caller's transaction starts again. */
    async remember(tx: Queryable, entries: readonly StoredRequest[]): Promise<void> {
      if (entries.length === 0) return
      await tx.query(insert, [
        entries.map(({ key }) => key),
        entries.map(({ request }) => request),
        entries.map(({ response }) => response?.status ?? null),
        entries.map(({ response }) => response?.body ?? null),
        entries.map(({ owner }) => owner),
      ])
    },

    /** Stores the answers of keys whose outcome was open. */
    async complete(
      tx: Queryable,
      responses: readonly (StoredResponse & { readonly key: string })[],
    ): Promise<void> {
      if (responses.length === 0) return
      await tx.query(complete, [
        responses.map(({ key }) => key),
        responses.map(({ status }) => status),
        responses.map(({ body }) => body),
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
export type RepeatResult =
  | { readonly kind: 'repeated'; readonly response: StoredResponse }
  | { readonly kind: 'refused'; readonly fault: Fault }

export function repeatResult(
  keyed: KeyedRequest,
  stored: { readonly request: string; readonly response: StoredResponse | null },
): RepeatResult {
  const { request, response } = stored
  if (!isSame(request, keyed.request)) {
    return { kind: 'refused', fault: new Fault('IDEMPOTENCY_KEY_REUSED') }
  }
  if (response === null) return { kind: 'refused', fault: new Fault('IDEMPOTENCY_KEY_IN_PROGRESS') }
  return { kind: 'repeated', response }
}

/** Whether two requests ask for the same; an amount can be written in several ways. */
function isSame(one: string, other: string): boolean {
  return one === other || canonical(one) === canonical(other)
}

function canonical(request: string): string {
  const content = contentOf(request)
  const amount = 'amount' in content ? parseAmount(String(content.amount)) : undefined
  const call = request.slice(0, request.indexOf('{'))
  return `${call}${JSON.stringify({ ...content, ...(amount && { amount: String(amount) }) })}`
}

/** Sends a stored answer as it was; what an HTTP reply must be able to do is spelled out here. */
export function sendStored<Reply extends RawReply>(reply: Reply, response: StoredResponse): Reply {
  const { status, body } = response
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
