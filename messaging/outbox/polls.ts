/** Much longer than the retry delay of the row in front, so that a backlog behind it is rarely read. */
const PARKED_FOR = '1 minute'
/** The most rows of one key that a poll returns. */
const ROWS_PER_KEY = 16
/** Rows of each lane that are made due when a delivery succeeds again. */
const RETRIED_PER_LANE = 100

/**
 * The statements of `takeCalls` and `retrySoon`. Only calls commit asynchronously: if a crash loses a deletion,
 * the receiver of a call deduplicates the repeat, but a mail server would deliver a letter twice.
 */
export const pollStatements = (schema: string, asyncCommit: string) => ({
  take: {
    http: takeCalls(schema, 'http', asyncCommit),
    letter: takeCalls(schema, 'letter', 'null'),
  },
  retrySoon: { http: retryPostponed(schema, 'http'), letter: retryPostponed(schema, 'letter') },
})

/**
 * `due` reads candidates by the index on due times, so rows that wait for a retry are not touched. A
 * candidate that follows an older row of its key is parked: its due time is moved into the future. The
 * statement that deletes the older row makes the parked row due again, even if this process already has the
 * parked row in memory: the process may die, and its successor must not wait until the parking time is over.
 *
 * All parts of the statement see the table as it was before the statement. Rows that it deletes or postpones
 * are therefore excluded by id, and the caller keeps the keys of postponed rows in `busyKeys`.
 */
function takeCalls(schema: string, carrier: 'http' | 'letter', asyncCommit: string): string {
  // Uses the expressions of the index `outbox_key`, so that the planner uses that index and no other.
  const isOfKey = (key: string) => `(p.carrier || ':' || p.key) = ('${carrier}:' || ${key})`
  return `
with deleted as (
  delete from ${schema}.outbox where carrier = '${carrier}' and id = any($1::bigint[])
  returning key, ${asyncCommit}),
postponed as (
  update ${schema}.outbox o set
    attempts = o.attempts + 1, due = now() + f.wait_ms * interval '1 ms', last_error = f.error
  from unnest($2::bigint[], $3::integer[], $4::text[]) as f (id, wait_ms, error)
  where o.carrier = '${carrier}' and o.id = any($2::bigint[]) and o.id = f.id
  returning ${asyncCommit}),
due as materialized (
  select c.id, c.key, exists (
    select from ${schema}.outbox p
    where ${isOfKey('c.key')} and (p.id + 0) < c.id and p.id <> all($1::bigint[])) as is_behind
  from unnest($5::smallint[], $6::integer[]) as l (lane, candidates) cross join lateral (
    select id, key from ${schema}.outbox
    where carrier = '${carrier}' and lane = l.lane and due <= now()
    order by due limit l.candidates) as c
  where c.id <> all($1::bigint[] || $2::bigint[])),
parked as (
  update ${schema}.outbox set due = now() + interval '${PARKED_FOR}'
  where carrier = '${carrier}' and id = any (array(select id from due where is_behind))),
woken as (
  update ${schema}.outbox set due = now()
  where carrier = '${carrier}' and id = any (array(
    select next.id from (select distinct key from deleted) as d cross join lateral (
      select p.id, p.due from ${schema}.outbox p
      where ${isOfKey('d.key')} and p.id <> all($1::bigint[])
      order by (p.id + 0) limit 1) as next
    where next.due > now() and next.id <> all($2::bigint[])))
  returning id, key, lane),
heads as (
  select id, key from due where not is_behind
  union all select id, key from woken where lane = any($5::smallint[]))
select s.parked, t.* from (
  select count(*) filter (where is_behind)::integer as parked from due) as s
left join lateral (
  select p.id, p.destination, p.key, p.event_id, p.body, p.headers, p.attempts
  from heads h cross join lateral (
    select * from ${schema}.outbox p
    where ${isOfKey('h.key')} and (p.id + 0) >= h.id
    order by (p.id + 0) limit ${ROWS_PER_KEY}) as p
  where h.key <> all($7::text[])
  order by p.id limit $8) as t on true`
}

/**
 * Limited to the rows that can be attempted soon: the other postponed rows become due within seconds anyway.
 */
function retryPostponed(schema: string, carrier: 'http' | 'letter'): string {
  return `
update ${schema}.outbox set due = now()
where carrier = '${carrier}' and id = any (array(
  select p.id from unnest($1::smallint[]) as l (lane) cross join lateral (
    select id, attempts from ${schema}.outbox
    where carrier = '${carrier}' and lane = l.lane and due > now()
    order by due limit ${RETRIED_PER_LANE}) as p
  where p.attempts > 0))`
}
