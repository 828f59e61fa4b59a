import type { OutboxPage } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'
import type { IndexBuild } from '../../platform/database/migrate.ts'
import { redact } from '../../platform/telemetry/redact.ts'
import { pollStatements } from './polls.ts'

/**
 * The outbox: every message that a state change causes is a row here, written in the transaction of
 * that change, and leaves through the relay. A carrier says how it travels, a key which others it
 * must follow: rows of one carrier and key are delivered in the order of their ids.
 */
export type Carrier = 'broker' | 'http' | 'letter'

export interface OutboxMessage {
  readonly carrier: Carrier
  /** A topic, the path of a call, or an e-mail address. */
  readonly destination: string
  readonly key: string
  /** The same for ever, over all tries: what the receiver knows the message by. */
  readonly eventId: string
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
  /** Nobody waits for it: it may leave a moment later, together with others. */
  readonly canWait?: true
  /** The request that waits for the first try. It isn't stored, so later tries don't know of it. */
  readonly waiting?: { remainingMs(): number }
}

export interface OutboxRow extends OutboxMessage {
  readonly id: bigint
  /** Failed tries so far. */
  readonly attempts: number
}

/** A row that was just committed. */
export interface NewRow extends OutboxRow {
  /** No older row of its carrier and key was there. */
  readonly isFirst: boolean
}

/** What became of a try: gone for good, to be tried again later, or never going to succeed. */
export type Delivery =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry'; readonly error: string }
  | { readonly kind: 'poison'; readonly reason: string }

/**
 * Whether an answer says that the request itself can never succeed. Everything else may be a door
 * that is closed or a gateway that points elsewhere, and is tried again.
 */
export function isFinalRejection(status: number): boolean {
  return [400, 409, 410, 413, 415, 422].includes(status)
}

/** How long a try may take: no longer than the request that waits for it, if one still does. */
export function attemptTimeoutMs({ waiting }: OutboxRow, timeoutMs: number): number {
  const remainingMs = waiting?.remainingMs() ?? 0
  return remainingMs > 0 ? Math.min(timeoutMs, remainingMs) : timeoutMs
}

export interface Postponed {
  readonly id: bigint
  /** Until the next try, from the time on the database's clock when this is written. */
  readonly waitMs: number
  readonly error: string
}

/** What became of rows that were tried. */
export interface Tried {
  readonly done: readonly bigint[]
  readonly postponed: readonly Postponed[]
}

export interface Wanted {
  readonly lanes: readonly number[]
  readonly busyKeys: readonly string[]
  /** The most rows. */
  readonly room: number
}

/** Keys are spread over this many lanes; each lane has one relay at a time. */
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

/** What came to an outbox after it was first made: the broker's rows are looked up by their keys, too. */
export function outboxKeyIndex(schema: string): string {
  return `
drop index ${schema}.outbox_key;
create index outbox_key on ${schema}.outbox (carrier, key, id);
`
}

/**
 * What came after that: an index in which nothing can be looked up but a key. While PostgreSQL thought an
 * outbox empty, as it mostly is, it found rows by their ids in the index by key, which it read from end to
 * end for each of them.
 */
export function outboxKeyExpression(schema: string): string {
  return `
drop index ${schema}.outbox_key;
create index outbox_key on ${schema}.outbox ((carrier || ':' || key), (id + 0));
`
}

/** Where the process of an instance runs; null for instances of versions that do not say. */
export function relayMemberPlace(schema: string): string {
  return `alter table ${schema}.relay_member add column place text;\n`
}

/** Finds the calls and letters that are due, however many wait. */
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
 * What a transaction has written, kept on the transaction itself: a WeakMap's values outlive one collection
 * of garbage, and so all that was sent since the last one would be copied by each.
 */
interface Written {
  /** The lanes of its rows, by carrier. */
  readonly lanes: Map<Carrier, Set<number>>
  readonly urgent: Set<Carrier>
  readonly rows: NewRow[]
}

const WRITTEN = Symbol('written')
type Noted = Queryable & { [WRITTEN]?: Written }

export type Outbox = ReturnType<typeof createOutbox>

/** The statements of one service's outbox. */
export function createOutbox(schema: string) {
  const columns = 'id, destination, key, event_id, body, headers, attempts'
  // In the words of the index by key, so that it is looked up there and nowhere else.
  const olderOfKey = (carrier: string, row: string) =>
    `(p.carrier || ':' || p.key) = (${carrier} || ':' || ${row}.key) and (p.id + 0) < ${row}.id`
  const insert = `
insert into ${schema}.outbox
  (carrier, lane, destination, key, event_id, body, headers, created, due)
select carrier, lane, destination, key, event_id, body, headers, now(), now()
from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
  with ordinality as m (carrier, lane, destination, key, event_id, body, headers, place)
order by place
returning id, not exists (
  select from ${schema}.outbox p
  where ${olderOfKey('outbox.carrier', 'outbox')}) as is_first`
  // That delivered rows are gone need not survive the server: they would be sent again, as after any
  // crash in between, and are known by their ids. So nobody waits for the disk.
  const withoutFlush = `(select set_config('synchronous_commit', 'off', true)) = 'off'`
  const takeForBroker = `
with gone as (delete from ${schema}.outbox where carrier = 'broker' and id = any($1::bigint[]))
select ${columns} from ${schema}.outbox
where carrier = 'broker' and lane = any($3::smallint[])
  and id not in (select unnest($1::bigint[] || $2::bigint[])) and ${withoutFlush}
order by id limit $4`
  const polls = pollStatements(schema, withoutFlush)
  const unattempted = `
select id from ${schema}.outbox
where carrier = 'http' and id = any($1::bigint[]) and attempts = 0`
  const forget = `delete from ${schema}.outbox where (carrier || ':' || key) = ($1 || ':' || $2)`
  const depth = `
select carrier, count(*)::integer as rows,
  extract(epoch from now() - min(created))::float8 as "oldestSeconds"
from ${schema}.outbox group by carrier`

  return {
    /** The carriers that have rows from this transaction, each with the lanes that these are in. */
    writtenBy: (tx: Noted): ReadonlyMap<Carrier, ReadonlySet<number>> =>
      tx[WRITTEN]?.lanes ?? new Map(),

    /** Whether somebody waits for what this transaction wrote for a carrier. */
    isUrgent: (tx: Noted, carrier: Carrier): boolean => tx[WRITTEN]?.urgent.has(carrier) ?? false,

    /** The rows from this transaction, in the order in which they are to be delivered. */
    newRows: (tx: Noted, carrier: Carrier): readonly NewRow[] =>
      (tx[WRITTEN]?.rows ?? []).filter((row) => row.carrier === carrier),

    /** Writes messages within the transaction of the change that causes them. */
    async enqueue(tx: Noted, messages: readonly OutboxMessage[]): Promise<void> {
      if (messages.length === 0) return
      const lanes = messages.map((message) => laneOf(message.key))
      tx[WRITTEN] ??= { lanes: new Map(), urgent: new Set(), rows: [] }
      const written = tx[WRITTEN]
      for (const [index, { carrier, canWait }] of messages.entries()) {
        if (!canWait) written.urgent.add(carrier)
        const into = written.lanes.get(carrier) ?? new Set()
        written.lanes.set(carrier, into.add(lanes[index]!))
      }
      const rows = await tx.query<{ id: bigint; is_first: boolean }>(insert, [
        messages.map((message) => message.carrier),
        lanes,
        messages.map((message) => message.destination),
        messages.map((message) => message.key),
        messages.map((message) => message.eventId),
        messages.map((message) => message.body),
        messages.map((message) => JSON.stringify(message.headers)),
      ])
      for (const [index, message] of messages.entries()) {
        const { id, is_first: isFirst } = rows[index]!
        written.rows.push({ ...message, id, attempts: 0, isFirst })
      }
    },

    /** Removes what the broker acknowledged and reads what comes behind what is on its way, in one write. */
    async takeForBroker(
      db: Queryable,
      acknowledged: readonly bigint[],
      onTheirWay: readonly bigint[],
      lanes: readonly number[],
      limit: number,
    ): Promise<OutboxRow[]> {
      const rows = await db.query<StoredRow>(takeForBroker, [
        acknowledged,
        onTheirWay,
        lanes,
        limit,
      ])
      return rows.map((row) => toRow('broker', row))
    },

    /**
     * Removes and postpones rows that were tried, and reads up to `room` others that may be tried now: of
     * each key that is not busy its oldest rows, if the oldest is due. The cost follows the number of
     * rows that are due, not of those that wait. Rows that are due but have to wait for an older one of
     * their key are parked on the way; `parked` says how many, and where it is not 0, the rest of what is
     * due may not have been seen yet.
     */
    async takeCalls(
      db: Queryable,
      carrier: 'http' | 'letter',
      { done, postponed }: Tried,
      { lanes, busyKeys, room }: Wanted,
    ): Promise<{ rows: OutboxRow[]; parked: number }> {
      const busyIn = Map.groupBy(busyKeys, laneOf)
      const rows = await db.query<{ parked: number } & Nullable<StoredRow>>(polls.take[carrier], [
        done,
        postponed.map((row) => row.id),
        postponed.map((row) => row.waitMs),
        postponed.map((row) => redact(row.error)),
        lanes,
        // Rows that were tried just now are due as well, and would hide others.
        lanes.map((lane) => room + (busyIn.get(lane)?.length ?? 0) + done.length),
        busyKeys,
        room,
      ])
      return {
        rows: rows.flatMap((row) => (row.id === null ? [] : [toRow(carrier, row as StoredRow)])),
        parked: rows[0]!.parked,
      }
    },

    /** Those of these calls that nobody has tried yet. */
    async unattempted(db: Queryable, ids: readonly bigint[]): Promise<Set<bigint>> {
      const rows = await db.query<{ id: bigint }>(unattempted, [ids])
      return new Set(rows.map((row) => row.id))
    },

    /** Makes the first rows that wait for another try due: their destination answers again. */
    async retrySoon(
      db: Queryable,
      carrier: 'http' | 'letter',
      lanes: readonly number[],
    ): Promise<void> {
      await db.query(polls.retrySoon[carrier], [lanes])
    },

    /** Removes what still waits of a key. */
    async forget(db: Queryable, carrier: Carrier, key: string): Promise<void> {
      await db.query(forget, [carrier, key])
    },

    depth(db: Queryable): Promise<{ carrier: Carrier; rows: number; oldestSeconds: number }[]> {
      return db.query(depth)
    },
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

/** Rows that wait, by their ids, for operators: of one carrier or all, of one key or all. */
export function listOutbox(
  db: Queryable,
  schema: string,
  { limit, cursor, carrier, key }: OutboxPage,
): Promise<WaitingRow[]> {
  const carriers = carrier === undefined ? ['broker', 'http', 'letter'] : [carrier]
  const after = BigInt(cursor ?? 0)
  // Each carrier's rows are read by an index, so a page costs the same however many rows wait.
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

/** FNV-1a over the key's UTF-16 units: any spread will do, as long as it never changes. */
export function laneOf(key: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index += 1) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % LANES
}
