import type { Page } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database/database.ts'

/** The SQL of the notification service: statements on whole batches, in the schema `notification`. */
export interface NewMessage {
  readonly id: string
  readonly eventId: string
  readonly accountId: string
  readonly event: string
  readonly text: string
}

export interface StoredMessage extends NewMessage {
  readonly seq: bigint
  readonly created: Date
}

const MESSAGE = 'seq, id, event_id as "eventId", account_id as "accountId", event, text, created'
/**
 * The current time, truncated to milliseconds because times are stored in milliseconds. Adding a millisecond
 * then always gives a later stored time.
 */
const NOW = `date_trunc('milliseconds', now())`
/** The maximum number of rows that one clean-up statement reads. */
const CLEANUP_ROWS = 2_000
const TEXT_DAYS = 90

/**
 * Inserts those messages whose events are not stored yet, and returns them. Each account has a clock row,
 * which is locked first and only moves forward, so the messages of an account have strictly increasing times
 * even if several instances write them.
 */
export async function insertMessages(
  tx: Queryable,
  messages: readonly NewMessage[],
): Promise<StoredMessage[]> {
  if (messages.length === 0) return []
  const places = new Map<string, number>()
  const nth = messages.map(({ accountId }) => {
    const place = (places.get(accountId) ?? 0) + 1
    places.set(accountId, place)
    return place
  })
  const accounts = [...places.keys()].sort()
  const counts = accounts.map((account) => places.get(account) as number)
  return tx.query<StoredMessage>(
    `with clock as (
       insert into notification.account_clock as c (account_id, latest)
       select account, ${NOW} + (count - 1) * interval '1 millisecond'
       from unnest($1::uuid[], $2::integer[]) as a (account, count) order by account
       on conflict (account_id) do update set latest = greatest(
         excluded.latest,
         c.latest + (excluded.latest - ${NOW}) + interval '1 millisecond')
       returning account_id, latest)
     insert into notification.message (id, event_id, account_id, event, text, created)
     select m.id, m.event_id, m.account_id, m.event, m.text,
       clock.latest - (count - nth) * interval '1 millisecond'
     from unnest($3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::integer[])
       with ordinality as m (id, event_id, account_id, event, text, nth, place)
     join unnest($1::uuid[], $2::integer[]) as a (account, count) on a.account = m.account_id
     join clock on clock.account_id = m.account_id
     order by place
     on conflict (event_id) do nothing
     returning ${MESSAGE}`,
    [
      accounts,
      counts,
      messages.map(({ id }) => id),
      messages.map(({ eventId }) => eventId),
      messages.map(({ accountId }) => accountId),
      messages.map(({ event }) => event),
      messages.map(({ text }) => text),
      nth,
    ],
  )
}

/**
 * Locks the accounts, so that other transactions that write messages for them wait until this transaction
 * ends.
 */
export async function lockAccounts(tx: Queryable, accountIds: readonly string[]): Promise<void> {
  await tx.query(
    `select from notification.account_clock
     where account_id = any($1::uuid[]) order by account_id for update`,
    [accountIds],
  )
}

/** The messages that are stored for these events, by event id. */
export async function findByEvents(
  db: Queryable,
  eventIds: readonly string[],
): Promise<Map<string, StoredMessage>> {
  if (eventIds.length === 0) return new Map()
  const rows = await db.query<StoredMessage>(
    `select ${MESSAGE} from notification.message where event_id = any($1::text[])`,
    [eventIds],
  )
  return new Map(rows.map((row) => [row.eventId, row]))
}

export async function findMessage(db: Queryable, id: string): Promise<StoredMessage | undefined> {
  const rows = await db.query<StoredMessage>(
    `select ${MESSAGE} from notification.message where id = $1 and deleted is null`,
    [id],
  )
  return rows[0]
}

/**
 * The messages of one account or of all accounts, oldest first. The cursor is the highest `seq` on the
 * previous page.
 */
export function listMessages(
  db: Queryable,
  accountId: string | null,
  { limit, cursor }: Page,
): Promise<StoredMessage[]> {
  const after = BigInt(cursor ?? 0)
  return accountId === null
    ? db.query<StoredMessage>(
        `select ${MESSAGE} from notification.message
         where seq > $1 and deleted is null order by seq limit $2`,
        [after, limit],
      )
    : db.query<StoredMessage>(
        `select ${MESSAGE} from notification.message
         where account_id = $1 and seq > $2 and deleted is null order by seq limit $3`,
        [accountId, after, limit],
      )
}

/**
 * Removes the texts of messages older than `days` from one page of rows, or all texts on the page if `days`
 * is null. The rows stay, so that redelivered events are always deduplicated. Returns the last `seq` on the
 * page, and whether the page has a row that is too recent to be cleared.
 */
async function removeTexts(db: Queryable, after: bigint, days: number | null) {
  const [page] = await db.query<{ last: bigint | null; hasYoung: boolean | null }>(
    `with page as (
       select seq, $3::integer is null or created < now() - $3 * interval '1 day' as is_old
       from notification.message where seq > $1 order by seq limit $2),
     gone as (
       update notification.message m set deleted = now(), text = '' from page p
       where m.seq > $1 and m.seq <= (select max(seq) from page)
         and m.seq = p.seq and p.is_old and m.deleted is null)
     select max(seq) as last, not bool_and(is_old) as "hasYoung" from page`,
    [after, CLEANUP_ROWS, days],
  )
  return { last: page?.last ?? undefined, hasYoung: page?.hasYoung ?? false }
}

/** Removes the texts of all messages that exist when the removal starts, page by page. */
export async function deleteMessages(db: Queryable): Promise<void> {
  const [end] = await db.query<{ seq: bigint | null }>(
    'select max(seq) as seq from notification.message',
  )
  for (let at: bigint | undefined = 0n; at !== undefined && at < (end?.seq ?? 0n); ) {
    at = (await removeTexts(db, at, null)).last
  }
}

/**
 * Removes expired texts, page by page, starting after the `seq` that the previous clean-up returned. Returns
 * the `seq` up to which all texts are removed.
 */
export async function expireTexts(db: Queryable, after: bigint): Promise<bigint> {
  for (let at = after; ; ) {
    const { last, hasYoung } = await removeTexts(db, at, TEXT_DAYS)
    if (last === undefined || hasYoung) return at
    at = last
  }
}

export async function putContact(db: Queryable, accountId: string, email: string): Promise<void> {
  await db.query(
    `insert into notification.contact (account_id, email, updated) values ($1, $2, now())
     on conflict (account_id) do update set email = excluded.email, updated = excluded.updated`,
    [accountId, email],
  )
}

export async function findContacts(
  db: Queryable,
  accountIds: readonly string[],
): Promise<Map<string, string>> {
  if (accountIds.length === 0) return new Map()
  const rows = await db.query<{ account_id: string; email: string }>(
    'select account_id, email from notification.contact where account_id = any($1::uuid[])',
    [accountIds],
  )
  return new Map(rows.map((row) => [row.account_id, row.email]))
}

/** Deletes an account's contact. Returns whether there was one. */
export async function deleteContact(db: Queryable, accountId: string): Promise<boolean> {
  const rows = await db.query(
    'delete from notification.contact where account_id = $1 returning account_id',
    [accountId],
  )
  return rows.length > 0
}

/**
 * Adds new letters to the hourly counts of their addresses, and returns the count of each address before
 * that. Addresses are locked in alphabetical order, so that concurrent batches cannot deadlock.
 */
export async function countLetters(
  tx: Queryable,
  counts: ReadonlyMap<string, number>,
): Promise<Map<string, number>> {
  const emails = [...counts.keys()].sort()
  const rows = await tx.query<{ email: string; letters: number }>(
    `insert into notification.letter_share as s (email, hour, letters)
     select email, date_trunc('hour', now()), count
     from unnest($1::text[], $2::integer[]) as a (email, count) order by email
     on conflict (email) do update set hour = excluded.hour,
       letters = excluded.letters + case when s.hour = excluded.hour then s.letters else 0 end
     returning email, letters`,
    [emails, emails.map((email) => counts.get(email) as number)],
  )
  return new Map(rows.map(({ email, letters }) => [email, letters - (counts.get(email) as number)]))
}

/** Deletes letter counts of past hours, one page of rows per call. */
export async function deleteOldShares(db: Queryable): Promise<void> {
  await db.query(
    `delete from notification.letter_share where email = any (array(
       select email from notification.letter_share
       where hour < now() - interval '1 hour' limit $1))`,
    [CLEANUP_ROWS],
  )
}

/**
 * Removes an account's contact and the texts of its messages. The rows with the event ids stay, for
 * deduplication. Letters already in flight are still delivered.
 */
export async function forgetAccount(tx: Queryable, accountId: string): Promise<void> {
  await tx.query('delete from notification.contact where account_id = $1', [accountId])
  await tx.query(
    `update notification.message set deleted = now(), text = ''
     where account_id = $1 and deleted is null`,
    [accountId],
  )
}
