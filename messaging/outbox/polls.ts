/** Long against the retries of the row in front, so that a backlog costs little while it waits. */
const PARKED_FOR = '1 minute'
const OF_A_KEY_AT_ONCE = 16
/** Of each lane. */
const RETRIED_AT_ONCE = 100

/** What `takeCalls` and `retrySoon` of an outbox run; only calls may do without a flush to disk. */
export const pollStatements = (schema: string, withoutFlush: string) => ({
  take: { http: takeCalls(schema, 'http', withoutFlush), letter: takeCalls(schema, 'letter') },
  retrySoon: { http: retryPostponed(schema, 'http'), letter: retryPostponed(schema, 'letter') },
})

/**
 * In `due`, candidates are read by the index on due times, so rows that wait for another try are not
 * touched. A candidate behind an older row of its key is parked: its due time moves away, and it is woken
 * by the statement that removes that row, even while it is in flight itself: its process may die, and the
 * next one must not wait until the time below has passed. All parts see the outbox as it was before the statement, so rows that it removes or postpones
 * are named by id, and the caller keeps the keys of postponed rows busy.
 */
function takeCalls(schema: string, carrier: 'http' | 'letter', condition = 'true'): string {
  // In the words of the index by key, so that it is looked up there and nowhere else.
  const isOfKey = (key: string) => `(p.carrier || ':' || p.key) = ('${carrier}:' || ${key})`
  return `
with gone as (
  delete from ${schema}.outbox where carrier = '${carrier}' and id = any($1::bigint[]) returning key),
later as (
  update ${schema}.outbox o set
    attempts = o.attempts + 1, due = now() + f.wait_ms * interval '1 ms', last_error = f.error
  from unnest($2::bigint[], $3::integer[], $4::text[]) as f (id, wait_ms, error)
  where o.carrier = '${carrier}' and o.id = any($2::bigint[]) and o.id = f.id),
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
    select next.id from (select distinct key from gone) as g cross join lateral (
      select p.id, p.due from ${schema}.outbox p
      where ${isOfKey('g.key')} and p.id <> all($1::bigint[])
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
    order by (p.id + 0) limit ${OF_A_KEY_AT_ONCE}) as p
  where h.key <> all($7::text[]) and ${condition}
  order by p.id limit $8) as t on true`
}

/** Only as many as can be tried soon: the others are due within seconds anyway. */
function retryPostponed(schema: string, carrier: 'http' | 'letter'): string {
  return `
update ${schema}.outbox set due = now()
where carrier = '${carrier}' and id = any (array(
  select p.id from unnest($1::smallint[]) as l (lane) cross join lateral (
    select id, attempts from ${schema}.outbox
    where carrier = '${carrier}' and lane = l.lane and due > now()
    order by due limit ${RETRIED_AT_ONCE}) as p
  where p.attempts > 0))`
}
