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
 * A request with an Idempotency-Key. The response to the first request is stored in the transaction of its effect.
 * Every later request of the same owner with the same key and content gets that response. A key without a response
 * belongs to a request whose outcome is not known yet: the transaction that settles the outcome stores the response.
 *
 * The owner is the profile or account in the request or, for a void, the order. A request that opens an account names
 * none of them, so its keys have no owner, and callers must choose keys that no other caller uses, such as random
 * UUIDs.
 */
export interface KeyedRequest {
  /** The key as it is stored: the caller's key, or owner and key if another owner already has the same key. */
  readonly key: string
  readonly owner: string
  /** The call, such as `POST deposit`, and its content as one text, by which requests are compared. */
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
 * A problem document as a stored response. Only final problems are allowed: a stored response is sent for as long as
 * its key is kept, so it must not invite the caller to retry.
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
 * Adds the owner. The previous version neither writes nor reads it, and relies on keys being unique by themselves. The
 * key therefore stays the primary key while both versions run, and a key that another owner already has is stored with
 * its owner as a prefix. The next version can make (owner, key) the primary key.
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

/** A void may omit the account, so its keys belong to the order. */
function ownerOf(request: string): string {
  const { profileId, accountId, orderId } = contentOf(request)
  return String((request.startsWith('POST void') ? orderId : (profileId ?? accountId)) ?? '')
}

function contentOf(request: string): Readonly<Record<string, unknown>> {
  return JSON.parse(request.slice(request.indexOf('{')))
}

/** A header cannot contain a line break, so no caller can send a key of this form. */
const withOwner = ({ owner, key }: KeyedRequest): string => `${owner}\n${key}`

/** Every key under which a request may be stored. */
export const keysOf = (keyed: KeyedRequest): string[] => [keyed.key, withOwner(keyed)]

/**
 * Finds the stored request among those found under `keysOf`. If there is none, `keyed` is the request with the key to
 * store it under.
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

const EXPIRED_PER_STATEMENT = 2_000

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
  order by created limit ${EXPIRED_PER_STATEMENT}),
gone as (
  delete from ${schema}.idempotency
  where key = any (array(select key from oldest)) returning 1)
select count(*)::integer as deleted from gone`

  return {
    /** Reads what is stored under these keys. Call it in the transaction that calls `remember`. */
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

    /**
     * Stores keys with their responses, or without one while the outcome is open. If another transaction has stored a
     * key since `find`, this is a conflict, and the caller's transaction is retried.
     */
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

    /** Stores the responses of keys that have none yet. */
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

    /** Deletes keys older than `olderThanMs`, in batches, so that no statement runs for long. */
    async expire(db: Queryable, olderThanMs: number): Promise<void> {
      for (let deleted = EXPIRED_PER_STATEMENT; deleted === EXPIRED_PER_STATEMENT; ) {
        const [row] = await db.query<{ deleted: number }>(expire, [olderThanMs])
        deleted = row!.deleted
      }
    },
  }
}

/** The result of a request whose key is stored already: the stored response, or the error to respond with. */
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

/** Whether two requests have the same content. Amounts are compared by value, because 1 and 1.0 are equal. */
function isSame(one: string, other: string): boolean {
  return one === other || canonical(one) === canonical(other)
}

function canonical(request: string): string {
  const content = contentOf(request)
  const amount = 'amount' in content ? parseAmount(String(content.amount)) : undefined
  const call = request.slice(0, request.indexOf('{'))
  return `${call}${JSON.stringify({ ...content, ...(amount && { amount: String(amount) }) })}`
}

/** Sends a stored response byte for byte. */
export function sendStored<Reply extends RawReply>(reply: Reply, response: StoredResponse): Reply {
  const { status, body } = response
  reply.code(status)
  if (status < 400) {
    reply.type('application/json; charset=utf-8')
    // The body is JSON already. Fastify sends text unchanged once it has a content type.
    reply.send(body as never)
    return reply
  }
  reply.type('application/problem+json')
  // As bytes, because Fastify would add a charset to the content type of text, and this type has none.
  reply.send(new TextEncoder().encode(body) as never)
  return reply
}

/** The part of Fastify's reply that `sendStored` needs. */
interface RawReply {
  code(status: number): unknown
  type(name: string): unknown
  send(body: never): unknown
}
