import { type Principal, serviceScope } from '../contracts/access.ts'
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
 * A request with an Idempotency-Key. The response to the first request is stored in the transaction that
 * carries out the request. Every later request from the same owner with the same key and content gets that
 * response. While the outcome of a request is unknown, its key is stored without a response. The transaction
 * that settles the outcome adds the response.
 *
 * The owner of a key is the authenticated caller. While AUTH is off, it is the profile or account in the
 * request; for a void, it is the order. A request that opens an account names none of them. Keys of such
 * requests have no owner, so callers must choose keys that no other caller uses, such as random UUIDs.
 */
export interface KeyedRequest {
  /**
   * The key as it is stored: the caller's key, or the owner and the key if another owner already uses the
   * same key.
   */
  readonly key: string
  readonly owner: string
  /**
   * The name of the call, such as `POST deposit`, followed by its content as JSON. Requests are compared by
   * this text.
   */
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
 * A problem document as a stored response. Only final problems are allowed: the stored response is sent again
 * for as long as its key is kept, so it must not tell the caller to retry.
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
 * Adds the column `owner`. The previous version neither writes nor reads it, and relies on keys being unique
 * by themselves. The key therefore stays the primary key while both versions run, and a key that another
 * owner already uses is stored with its owner as a prefix. The next version can make (owner, key) the primary
 * key.
 */
export function idempotencyOwnerColumn(schema: string): string {
  return `alter table ${schema}.idempotency add column owner text;`
}

/** The key belongs to the authenticated caller, or without one to the profile, account or order in the request. */
export function keyedRequest(
  key: string | undefined,
  call: string,
  content: object,
  caller?: Principal,
): KeyedRequest | undefined {
  if (key === undefined) return undefined
  const entries = Object.entries(content).sort(([a], [b]) => (a < b ? -1 : 1))
  const request = `${call} ${JSON.stringify(Object.fromEntries(entries))}`
  return { key, owner: caller ? ownerFor(caller) : ownerOf(request), request }
}

const ownerFor = ({ service, profileId }: Principal) =>
  service === undefined ? profileId : serviceScope(service)

/** The profile or account in a request. A void may omit the account, so the order owns its keys. */
function ownerOf(request: string): string {
  const { profileId, accountId, orderId } = contentOf(request)
  return String((request.startsWith('POST void') ? orderId : (profileId ?? accountId)) ?? '')
}

function contentOf(request: string): Readonly<Record<string, unknown>> {
  return JSON.parse(request.slice(request.indexOf('{')))
}

/** A key prefixed with its owner. A header cannot contain a line break, so no caller can send such a key. */
const withOwner = ({ owner, key }: KeyedRequest): string => `${owner}\n${key}`

/** Both keys under which a request may be stored. */
export const keysOf = (keyed: KeyedRequest): string[] => [keyed.key, withOwner(keyed)]

/**
 * Picks the stored request from the rows found for `keysOf`. If `stored` is undefined, `keyed` has the key
 * under which the request can be stored.
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
    /** Reads the requests stored under these keys. Call this in the transaction that calls `remember`. */
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
     * Stores keys with their responses, or without a response if the outcome is still open. If another
     * transaction has stored one of the keys since `find`, the insert fails as a conflict, and the caller's
     * transaction is retried.
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

    /** Stores responses under keys that have none yet. */
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

    /**
     * Deletes keys that are older than `olderThanMs`, in batches, so that no single statement runs for long.
     */
    async expire(db: Queryable, olderThanMs: number): Promise<void> {
      for (let deleted = EXPIRED_PER_STATEMENT; deleted === EXPIRED_PER_STATEMENT; ) {
        const [row] = await db.query<{ deleted: number }>(expire, [olderThanMs])
        deleted = row!.deleted
      }
    },
  }
}

/** The result of a request whose key was stored before: the stored response, or the error to respond with. */
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

/**
 * Whether two requests have the same call and content. Amounts are compared by value, because 1 and 1.0 are
 * equal.
 */
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
    // The body is already JSON. Fastify sends a string unchanged if the content type is set.
    reply.send(body as never)
    return reply
  }
  reply.type('application/problem+json')
  // Sent as bytes, because Fastify would add a charset to the content type of a string, and this content type
  // allows none.
  reply.send(new TextEncoder().encode(body) as never)
  return reply
}

/** The methods of Fastify's reply that `sendStored` needs. */
interface RawReply {
  code(status: number): unknown
  type(name: string): unknown
  send(body: never): unknown
}
