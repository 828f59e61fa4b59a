import type { Page } from '../../contracts/http.ts'
import type { Queryable } from '../../platform/database.ts'

/** The SQL of notification: statements over whole batches, in the schema `notification`. */
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
 * Writes the messages whose events are new and returns those. Each account's clock is locked first
 * and only moves on, so that its messages have strictly increasing times whoever writes them.
 */
export async function insertMessages(
  tx: Queryable,
  messages: readonly NewMessage[],
  now: number,
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
       select account, $3::timestamptz + (count - 1) * interval '1 millisecond'
       from unnest($1::uuid[], $2::integer[]) as a (account, count) order by account
       on conflict (account_id) do update set latest = greatest(
         excluded.latest,
         c.latest + (excluded.latest - $3::timestamptz) + interval '1 millisecond')
       returning account_id, latest)
     insert into notification.message (id, event_id, account_id, event, text, created)
     select m.id, m.event_id, m.account_id, m.event, m.text,
       clock.latest - (count - nth) * interval '1 millisecond'
     from unnest($4::uuid[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::integer[])
       with ordinality as m (id, event_id, account_id, event, text, nth, place)
     join unnest($1::uuid[], $2::integer[]) as a (account, count) on a.account = m.account_id
     join clock on clock.account_id = m.account_id
     order by place
     on conflict (event_id) do nothing
     returning ${MESSAGE}`,
    [
      accounts,
      counts,
      new Date(now),
      messages.map(({ id }) => id),
      messages.map(({ eventId }) => eventId),
      messages.map(({ accountId }) => accountId),
      messages.map(({ event }) => event),
      messages.map(({ text }) => text),
      nth,
    ],
  )
}

/** The messages of events that had been told before. */
export async function findByEvents(
  db: Queryable,
  eventIds: readonly string[],
): Promise<Map<string, NewMessage>> {
  if (eventIds.length === 0) return new Map()
  const rows = await db.query<NewMessage>(
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

/** Messages, oldest first, of one account or of all; the cursor is the last page's highest seq. */
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

/** Takes all messages away, texts included; that their events were told stays known. */
export async function deleteMessages(db: Queryable, now: number): Promise<void> {
  await db.query(`update notification.message set deleted = $1, text = '' where deleted is null`, [
    new Date(now),
  ])
}

export async function putContact(
  db: Queryable,
  accountId: string,
  email: string,
  now: number,
): Promise<void> {
  await db.query(
    `insert into notification.contact (account_id, email, updated) values ($1, $2, $3)
     on conflict (account_id) do update set email = excluded.email, updated = excluded.updated`,
    [accountId, email, new Date(now)],
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

/** False where there was none. */
export async function deleteContact(db: Queryable, accountId: string): Promise<boolean> {
  const rows = await db.query(
    'delete from notification.contact where account_id = $1 returning account_id',
    [accountId],
  )
  return rows.length > 0
}
