import type { Queryable } from '../../platform/database/database.ts'
import type { Migration } from '../../platform/database/migrate.ts'
import type { BusMessage, OutgoingMessage, TopicSpec } from '../bus.ts'

/**
 * The tables and statements of the embedded bus. One process owns the database, and PGlite runs one statement at
 * a time on the event loop of that process. Each step is therefore a single statement on whole sets of rows.
 */

/** An offset in a partition: the next one to write or to read. */
export interface Position {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
}

export interface PlacedMessage extends OutgoingMessage {
  readonly partition: number
}

export function embeddedBusMigrations(schema: string): Migration[] {
  return [
    { id: 1, name: 'the log', sql: logTables(schema) },
    { id: 13, name: 'topic ids', sql: topicIds(schema) },
  ]
}

// `message.compacted` copies the flag of the topic, so that only compacted topics pay for the index by key.
const logTables = (schema: string) => `
create table ${schema}.topic (
  name text primary key,
  partitions integer not null check (partitions > 0),
  compacted boolean not null
);
create table ${schema}.partition (
  topic text not null references ${schema}.topic,
  partition integer not null,
  next_offset bigint not null default 0,
  cleaned_offset bigint not null default 0,
  primary key (topic, partition)
);
create table ${schema}.message (
  topic text not null,
  partition integer not null,
  "offset" bigint not null,
  key text not null,
  value bytea,
  headers text not null,
  time timestamptz(3) not null,
  compacted boolean not null,
  primary key (topic, partition, "offset")
);
create index message_key on ${schema}.message (topic, partition, key, "offset") where compacted;
create index message_tombstone on ${schema}.message (time) where compacted and value is null;
create table ${schema}.group_offset (
  group_name text not null,
  topic text not null,
  partition integer not null,
  next_offset bigint not null,
  primary key (group_name, topic, partition)
);
`

const topicIds = (schema: string) => `
alter table ${schema}.topic add column id uuid not null default gen_random_uuid();
`

export type EmbeddedLog = ReturnType<typeof createLog>

export function createLog(db: Queryable, schema: string) {
  const sql = { ...statements(schema), ...maintenance(schema) }
  return {
    /** Creates missing topics and adds partitions if a topic is to have more. Never removes any. */
    async declareTopics(specs: readonly TopicSpec[]): Promise<void> {
      await db.query(sql.declareTopics, [
        specs.map(({ name }) => name),
        specs.map(({ partitions }) => partitions),
        specs.map(({ compacted }) => compacted),
      ])
      await db.query(sql.declarePartitions)
    },

    /** The next offset to write in every partition. */
    ends: () => db.query<Position>(sql.ends),

    /** Writes messages in the given order. Returns the new ends of the partitions that they went to. */
    append(messages: readonly PlacedMessage[]): Promise<Position[]> {
      return db.query<Position>(sql.append, [
        messages.map(({ topic }) => topic),
        messages.map(({ partition }) => partition),
        messages.map(({ key }) => key),
        messages.map(({ value }) => value),
        messages.map(({ headers }) => JSON.stringify(headers)),
      ])
    },

    /** Reads up to `limit` messages from each position. The lists are in the order of the positions. */
    async read(from: readonly Position[], limit: number): Promise<BusMessage[][]> {
      const rows = await db.query<StoredMessage>(sql.read, [...columns(from), limit])
      const lists: BusMessage[][] = from.map(() => [])
      for (const { place, topicId, offset, key, value, headers } of rows) {
        const { topic, partition } = from[place - 1]!
        lists[place - 1]!.push({
          topic,
          topicId,
          partition,
          offset,
          key,
          value,
          headers: JSON.parse(headers) as Record<string, string>,
        })
      }
      return lists
    },

    /** Registers a group and returns its next offset in each partition of these topics. */
    joinGroup: (group: string, topics: readonly string[]) =>
      db.query<Position>(sql.joinGroup, [group, topics]),

    /** Stores new offsets of a group. An offset never decreases. */
    async moveGroup(group: string, to: readonly Position[]): Promise<void> {
      await db.query(sql.moveGroup, [group, ...columns(to)])
    },

    /**
     * Deletes messages that are older than `olderThanMs` and that all groups have read. It examines no more than
     * the oldest `limit` messages of each partition. Returns how many it deleted.
     */
    async expire(olderThanMs: number, limit: number): Promise<number> {
      const [row] = await db.query<{ deleted: number }>(sql.expire, [olderThanMs, limit])
      return row!.deleted
    },

    /**
     * Examines the next `limit` messages of each compacted partition that were not compacted before, and deletes the
     * older messages of their keys. `more` says whether any messages are left to examine.
     */
    async compact(limit: number): Promise<{ deleted: number; more: boolean }> {
      const [row] = await db.query<{ deleted: number; more: boolean }>(sql.compact, [limit])
      return row!
    },

    async ping(): Promise<void> {
      await db.query('select 1')
    },
  }
}

interface StoredMessage {
  place: number
  topicId: string
  offset: bigint
  key: string
  value: Uint8Array | null
  headers: string
}

const columns = (positions: readonly Position[]) => [
  positions.map(({ topic }) => topic),
  positions.map(({ partition }) => partition),
  positions.map(({ offset }) => offset),
]

function statements(schema: string) {
  return {
    declareTopics: `
insert into ${schema}.topic as t (name, partitions, compacted)
select * from unnest($1::text[], $2::integer[], $3::boolean[])
on conflict (name) do update set
  partitions = greatest(t.partitions, excluded.partitions), compacted = excluded.compacted`,
    declarePartitions: `
insert into ${schema}.partition (topic, partition)
select name, generate_series(0, partitions - 1) from ${schema}.topic
on conflict do nothing`,
    ends: `select topic, partition, next_offset as "offset" from ${schema}.partition`,
    append: `
with input as (
  select *, row_number() over (partition by topic, partition order by place) - 1 as step
  from unnest($1::text[], $2::integer[], $3::text[], $4::bytea[], $5::text[])
    with ordinality as m (topic, partition, key, value, headers, place)
), drawn as (
  update ${schema}.partition p set next_offset = p.next_offset + i.messages
  from (select topic, partition, count(*) as messages from input group by topic, partition) i
  join ${schema}.topic t on t.name = i.topic
  where p.topic = i.topic and p.partition = i.partition
  returning p.topic, p.partition, p.next_offset, p.next_offset - i.messages as first, t.compacted
), stored as (
  insert into ${schema}.message
    (topic, partition, "offset", key, value, headers, time, compacted)
  select i.topic, i.partition, d.first + i.step, i.key, i.value, i.headers, now(), d.compacted
  from input i join drawn d on d.topic = i.topic and d.partition = i.partition
)
select topic, partition, next_offset as "offset" from drawn`,
    read: `
select f.place::integer as place, t.id as "topicId", m."offset", m.key, m.value, m.headers
from unnest($1::text[], $2::integer[], $3::bigint[])
  with ordinality as f (topic, partition, "offset", place)
join ${schema}.topic t on t.name = f.topic
cross join lateral (
  select * from ${schema}.message m
  where m.topic = f.topic and m.partition = f.partition and m."offset" >= f."offset"
  order by m."offset" limit $4
) m
order by f.place, m."offset"`,
    joinGroup: `
with added as (
  insert into ${schema}.group_offset (group_name, topic, partition, next_offset)
  select $1, topic, partition, 0 from ${schema}.partition where topic = any($2::text[])
  on conflict do nothing
  returning topic, partition, next_offset
)
select topic, partition, next_offset as "offset" from added
union all
select topic, partition, next_offset from ${schema}.group_offset
where group_name = $1 and topic = any($2::text[])`,
    moveGroup: `
update ${schema}.group_offset g set next_offset = t."offset"
from unnest($2::text[], $3::integer[], $4::bigint[]) as t (topic, partition, "offset")
where g.group_name = $1 and g.topic = t.topic and g.partition = t.partition
  and g.next_offset < t."offset"`,
  }
}

function maintenance(schema: string) {
  return {
    // In a compacted topic only tombstones expire. The newest message of any other key stays.
    expire: `
with passed as (
  select p.topic, p.partition, t.compacted,
    case when t.compacted then least(p.cleaned_offset, min(g.next_offset))
      else coalesce(min(g.next_offset), p.next_offset) end as "offset"
  from ${schema}.partition p
  join ${schema}.topic t on t.name = p.topic
  left join ${schema}.group_offset g on g.topic = p.topic and g.partition = p.partition
  group by p.topic, p.partition, t.name
), plain as (
  delete from ${schema}.message where ctid = any (array(
    select o.ctid from passed p cross join lateral (
      select m.ctid, m.time from ${schema}.message m
      where m.topic = p.topic and m.partition = p.partition and m."offset" < p."offset"
      order by m."offset" limit $2
    ) o
    where not p.compacted and o.time < now() - $1::bigint * interval '1 ms'
  ))
  returning 1
), tombstones as (
  delete from ${schema}.message m using passed p
  where m.compacted and m.value is null and m.time < now() - $1::bigint * interval '1 ms'
    and p.compacted and m.topic = p.topic and m.partition = p.partition and m."offset" < p."offset"
  returning 1
)
select ((select count(*) from plain) + (select count(*) from tombstones))::integer as deleted`,
    // The lateral joins with a limit and the deletion by ctid make the planner use indexes, however large the log is.
    compact: `
with dirty as (
  select p.topic, p.partition, p.cleaned_offset, p.next_offset,
    least(p.next_offset, p.cleaned_offset + $1) as upto
  from ${schema}.partition p join ${schema}.topic t on t.name = p.topic
  where t.compacted and p.cleaned_offset < p.next_offset
), fresh as (
  select m.topic, m.partition, m.key, max(m."offset") as newest
  from dirty d cross join lateral (
    select m.topic, m.partition, m.key, m."offset" from ${schema}.message m
    where m.topic = d.topic and m.partition = d.partition and m."offset" >= d.cleaned_offset
    order by m."offset" limit $1
  ) m
  where m."offset" < d.upto
  group by m.topic, m.partition, m.key
), replaced as (
  delete from ${schema}.message where ctid = any (array(
    select o.ctid from fresh f cross join lateral (
      select m.ctid from ${schema}.message m
      where m.compacted and m.topic = f.topic and m.partition = f.partition and m.key = f.key
        and m."offset" < f.newest
      order by m."offset" limit $1
    ) o
  ))
  returning 1
), cleaned as (
  update ${schema}.partition p set cleaned_offset = d.upto from dirty d
  where p.topic = d.topic and p.partition = d.partition
)
select (select count(*) from replaced)::integer as deleted,
  coalesce((select bool_or(upto < next_offset) from dirty), false) as more`,
  }
}
