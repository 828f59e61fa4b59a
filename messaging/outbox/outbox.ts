import type { OutboxPage } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'
import type { IndexBuild } from '../../platform/database/migrate.ts'
import { redact } from '../../platform/telemetry/redact.ts'
import { pollStatements } from './polls.ts'

/**
 * The outbox: every message that a state change causes is a row of this table, written in the transaction of
 * that change. The relay sends the rows, each through its carrier. Rows with the same carrier and key are
 * delivered in the order of their ids.
 */
export type Carrier = 'broker' | 'http' | 'letter'

export interface OutboxMessage {
  readonly carrier: Carrier
  /** A topic for `broker`, a path for `http`, an e-mail address for `letter`. */
  readonly destination: string
  readonly key: string
  /** Is the same in all attempts, so that the receiver can deduplicate the message. */
  readonly eventId: string
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
  /**
   * No request waits for this row, so the relay can hold it for a moment and send it together with others.
   */
  readonly canWait?: true
  /**
   * The request that waits for the first attempt. It is not stored, so only rows sent from memory have it.
   */
  readonly waiting?: { remainingMs(): number }
}

export interface OutboxRow extends OutboxMessage {
  readonly id: bigint
  /** Failed attempts so far. */
  readonly attempts: number
}

/** A call or letter that was just committed. */
export interface NewRow extends OutboxRow {
  /** Whether the outbox has no older row with its carrier and key. */
  readonly isFirst: boolean
}

/** The result of an attempt: delivered, failed but worth a retry, or never going to succeed. */
export type Delivery =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry'; readonly error: string }
  | { readonly kind: 'poison'; readonly reason: string }

/**
 * Whether a status code says that the request itself can never succeed. Any other error may come from a
 * service that is down or from a misconfigured gateway, and is retried.
 */
export function isFinalRejection(status: number): boolean {
  return [400, 409, 410, 413, 415, 422].includes(status)
}

/** How long an attempt may take: `timeoutMs`, or less if a request is still waiting and its caller gives up sooner. */
export function attemptTimeoutMs({ waiting }: OutboxRow, timeoutMs: number): number {
  const remainingMs = waiting?.remainingMs() ?? 0
  return remainingMs > 0 ? Math.min(timeoutMs, remainingMs) : timeoutMs
}

export interface Postponed {
  readonly id: bigint
  /**
   * Milliseconds until the next attempt, by the database's clock, from the moment when this result is
   * written.
   */
  readonly waitMs: number
  readonly error: string
}

/** The results of attempts: ids of rows to delete, and rows to try again later. */
export interface Attempted {
  readonly done: readonly bigint[]
  readonly postponed: readonly Postponed[]
}

export interface PollOptions {
  readonly lanes: readonly number[]
  /** Keys whose rows are being delivered: none of their other rows are returned. */
  readonly busyKeys: readonly string[]
  /** The largest number of rows to return. */
  readonly room: number
}

/** Keys are hashed to this many lanes. One relay at a time holds a lane. */
export const LANES = 8

export function outboxTables(schema: string): string {
  return `
create table ${schema}.outbox (
  carrier text not null check (carrier in ('broker', 'http', 'letter')),
  id bigint generated always as identity,
  lane smallint not null,
  destination text not null,
  key text not null,
  event_id text not null,
  body text not null,
  headers text not null,
  created timestamptz(3) not null,
  attempts integer not null default 0,
  due timestamptz(3) not null,
  last_error text,
  primary key (carrier, id)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
create index outbox_key on ${schema}.outbox (carrier, key, id) where carrier <> 'broker';
create table ${schema}.relay_member (id uuid primary key, until timestamptz(3) not null);
create table ${schema}.relay_lane (lane smallint primary key, holder uuid);
insert into ${schema}.relay_lane (lane) select generate_series(0, ${LANES - 1});
`
}

/** A later migration: rows for the broker are also looked up by key, so the index covers all carriers. */
export function outboxKeyIndex(schema: string): string {
  return `
drop index ${schema}.outbox_key;
create index outbox_key on ${schema}.outbox (carrier, key, id);
`
}

/**
 * The migration after that: an index on expressions, which the planner can use only for look-ups by key. An
 * outbox is empty most of the time, and while PostgreSQL estimated that it was empty, it looked up ids in the
 * index on (carrier, key, id) and scanned the whole index for each id.
 */
export function outboxKeyExpression(schema: string): string {
  return `
drop index ${schema}.outbox_key;
create index outbox_key on ${schema}.outbox ((carrier || ':' || key), (id + 0));
`
}

/** `place` is where the process of an instance runs. It is null for instances of versions that do not report it. */
export function relayMemberPlace(schema: string): string {
  return `alter table ${schema}.relay_member add column place text;\n`
}

/** Finds the calls and letters that are due, at a cost that does not depend on how many are waiting. */
export const outboxDueIndex: IndexBuild = {
  name: 'outbox_due',
  table: 'outbox',
  definition: "(carrier, lane, due) where carrier <> 'broker'",
}

interface StoredRow {
  id: bigint
  destination: string
  key: string
  event_id: string
  body: string
  headers: string
  attempts: number
}

type Nullable<Row> = { [Column in keyof Row]: Row[Column] | null }

const toRow = (carrier: Carrier, row: StoredRow): OutboxRow => ({
  carrier,
  id: row.id,
  destination: row.destination,
  key: row.key,
  eventId: row.event_id,
  body: row.body,
  headers: JSON.parse(row.headers) as Record<string, string>,
  attempts: row.attempts,
})

/**
 * The outbox rows that a transaction has written. They are kept on the transaction object itself, because
 * values of a WeakMap survive one garbage collection, and V8 would then copy all rows written since the
 * previous collection.
 */
interface Written {
  /** The lanes of its rows, by carrier. */
  readonly lanes: Map<Carrier, Set<number>>
  /** Carriers with at least one row that must not wait. */
  readonly urgent: Set<Carrier>
  /** Its calls and letters. */
  readonly rows: NewRow[]
}

const WRITTEN = Symbol('written')
type Transaction = Queryable & { [WRITTEN]?: Written }

export type Outbox = ReturnType<typeof createOutbox>

/** The operations on one service's outbox. */
export function createOutbox(schema: string) {
  const statements = outboxStatements(schema)

  return {
    /** The carriers for which this transaction wrote rows, each with the lanes of those rows. */
    writtenBy: (tx: Transaction): ReadonlyMap<Carrier, ReadonlySet<number>> =>
      tx[WRITTEN]?.lanes ?? new Map(),

    /** Whether this transaction wrote rows for a carrier that must not wait. */
    isUrgent: (tx: Transaction, carrier: Carrier): boolean =>
      tx[WRITTEN]?.urgent.has(carrier) ?? false,

    /** The calls or letters that this transaction wrote, in the order of delivery. */
    newRows: (tx: Transaction, carrier: Carrier): readonly NewRow[] =>
      (tx[WRITTEN]?.rows ?? []).filter((row) => row.carrier === carrier),

    /** Writes messages in the transaction of the change that causes them. */
    async enqueue(tx: Transaction, messages: readonly OutboxMessage[]): Promise<void> {
      if (messages.length === 0) return
      const lanes = messages.map((message) => laneOf(message.key))
      tx[WRITTEN] ??= { lanes: new Map(), urgent: new Set(), rows: [] }
      const written = tx[WRITTEN]
      for (const [index, { carrier, canWait }] of messages.entries()) {
        if (!canWait) written.urgent.add(carrier)
        const ofCarrier = written.lanes.get(carrier) ?? new Set()
        written.lanes.set(carrier, ofCarrier.add(lanes[index]!))
      }
      const rows = await tx.query<{ id: bigint; is_first: boolean }>(statements.insert, [
        messages.map((message) => message.carrier),
        lanes,
        messages.map((message) => message.destination),
        messages.map((message) => message.key),
        messages.map((message) => message.eventId),
        messages.map((message) => message.body),
        messages.map((message) => JSON.stringify(message.headers)),
      ])
      for (const [index, message] of messages.entries()) {
        if (message.carrier === 'broker') continue
        const { id, is_first: isFirst } = rows[index]!
        written.rows.push({ ...message, id, attempts: 0, isFirst })
      }
    },

    /** Deletes acknowledged rows and reads the next rows that are not in flight, in one statement. */
    async takeForBroker(
      db: Queryable,
      acknowledged: readonly bigint[],
      inFlight: readonly bigint[],
      lanes: readonly number[],
      limit: number,
    ): Promise<OutboxRow[]> {
      const rows = await db.query<StoredRow>(statements.takeForBroker, [
        acknowledged,
        inFlight,
        lanes,
        limit,
      ])
      return rows.map((row) => toRow('broker', row))
    },

    /**
     * Deletes delivered rows, postpones failed ones, and reads up to `room` rows to attempt next: for each key
     * that is not busy, its oldest rows, if the oldest is due. The cost depends on the number of rows that are
     * due, not on the number of rows in the table. Rows that are due but follow an older row of their key are
     * parked; `parked` is their number. If it is not 0, there may be more due rows that this poll did not
     * reach, so poll again.
     */
    async takeCalls(
      db: Queryable,
      carrier: 'http' | 'letter',
      { done, postponed }: Attempted,
      { lanes, busyKeys, room }: PollOptions,
    ): Promise<{ rows: OutboxRow[]; parked: number }> {
      const busyByLane = Map.groupBy(busyKeys, laneOf)
      const rows = await db.query<{ parked: number } & Nullable<StoredRow>>(
        statements.take[carrier],
        [
          done,
          postponed.map((row) => row.id),
          postponed.map((row) => row.waitMs),
          postponed.map((row) => redact(row.error)),
          lanes,
          // Candidates per lane. Rows of busy keys and rows deleted by this statement are still due in its
          // snapshot, so they are added to the limit: otherwise they would take up the room of other rows.
          lanes.map((lane) => room + (busyByLane.get(lane)?.length ?? 0) + done.length),
          busyKeys,
          room,
        ],
      )
      return {
        rows: rows.flatMap((row) => (row.id === null ? [] : [toRow(carrier, row as StoredRow)])),
        parked: rows[0]!.parked,
      }
    },

    /** Returns the ids of the given calls that have not been attempted yet. */
    async unattempted(db: Queryable, ids: readonly bigint[]): Promise<Set<bigint>> {
      const rows = await db.query<{ id: bigint }>(statements.unattempted, [ids])
      return new Set(rows.map((row) => row.id))
    },

    /** Makes postponed rows due at once. Called when a delivery succeeds again after failures. */
    async retrySoon(
      db: Queryable,
      carrier: 'http' | 'letter',
      lanes: readonly number[],
    ): Promise<void> {
      await db.query(statements.retrySoon[carrier], [lanes])
    },

    /** Deletes all waiting rows of a key. */
    async forget(db: Queryable, carrier: Carrier, key: string): Promise<void> {
      await db.query(statements.forget, [carrier, key])
    },

    depth(db: Queryable): Promise<{ carrier: Carrier; rows: number; oldestSeconds: number }[]> {
      return db.query(statements.depth)
    },
  }
}

function outboxStatements(schema: string) {
  // Deleting delivered rows does not have to be durable: if a crash of the server loses the deletion, the rows
  // are sent again and receivers deduplicate them. An asynchronous commit saves the wait for the disk.
  const asyncCommit = `(select set_config('synchronous_commit', 'off', true))`
  return {
    ...pollStatements(schema, asyncCommit),
    // `is_first` uses the expressions of the index `outbox_key`, so that the planner uses that index and no other.
    insert: `
insert into ${schema}.outbox
  (carrier, lane, destination, key, event_id, body, headers, created, due)
select carrier, lane, destination, key, event_id, body, headers, now(), now()
from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
  with ordinality as m (carrier, lane, destination, key, event_id, body, headers, place)
order by place
returning id, carrier <> 'broker' and not exists (
  select from ${schema}.outbox p
  where (p.carrier || ':' || p.key) = (outbox.carrier || ':' || outbox.key)
    and (p.id + 0) < outbox.id) as is_first`,
    takeForBroker: `
with deleted as (
  delete from ${schema}.outbox where carrier = 'broker' and id = any($1::bigint[])
  returning ${asyncCommit})
select id, destination, key, event_id, body, headers, attempts from ${schema}.outbox
where carrier = 'broker' and lane = any($3::smallint[])
  and id not in (select unnest($1::bigint[] || $2::bigint[]))
order by id limit $4`,
    unattempted: `
select id from ${schema}.outbox
where carrier = 'http' and id = any($1::bigint[]) and attempts = 0`,
    forget: `delete from ${schema}.outbox where (carrier || ':' || key) = ($1 || ':' || $2)`,
    depth: `
select carrier, count(*)::integer as rows,
  extract(epoch from now() - min(created))::float8 as "oldestSeconds"
from ${schema}.outbox group by carrier`,
  }
}

export interface WaitingRow {
  readonly id: bigint
  readonly carrier: Carrier
  readonly destination: string
  readonly key: string
  readonly eventId: string
  readonly attempts: number
  readonly due: Date
  readonly lastError: string | null
  readonly created: Date
}

/** A page of waiting rows in the order of their ids, for operators; optionally of one carrier or one key only. */
export function listOutbox(
  db: Queryable,
  schema: string,
  { limit, cursor, carrier, key }: OutboxPage,
): Promise<WaitingRow[]> {
  const carriers = carrier === undefined ? ['broker', 'http', 'letter'] : [carrier]
  const after = BigInt(cursor ?? 0)
  // The rows of each carrier are read by an index, so the cost of a page does not depend on the size of the table.
  const page = (condition: string, order: string) => `
select r.* from unnest($1::text[]) as c (carrier) cross join lateral (
  select id, o.carrier, destination, key, event_id as "eventId", attempts, due,
    last_error as "lastError", created
  from ${schema}.outbox o where ${condition} order by ${order} limit $3) as r
order by r.id limit $3`
  return key === undefined
    ? db.query(page('o.carrier = c.carrier and o.id > $2', 'o.id'), [carriers, after, limit])
    : db.query(
        page(
          "(o.carrier || ':' || o.key) = (c.carrier || ':' || $4) and (o.id + 0) > $2",
          '(o.id + 0)',
        ),
        [carriers, after, limit, key],
      )
}

/** FNV-1a over the key's UTF-16 code units. Any hash would do, but it must never change between versions. */
export function laneOf(key: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index += 1) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % LANES
}
