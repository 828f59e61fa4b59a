import type { Queryable } from '../../platform/database/database.ts'
import type { Batch, BusMessage } from '../bus.ts'

/**
 * Distinguishes topics that had the same name at different times. A topic that is deleted and recreated
 * starts at offset 0 again, so topic, partition and offset no longer identify a message. Each service stores
 * the id of the first topic that it reads under a name. Messages of that topic keep the id that the contract
 * defines (`topic/partition/offset`), which previous versions use as well. Messages of any later topic with
 * that name carry the id of their own topic as `incarnation`.
 */
export interface IdentifiedMessage extends BusMessage {
  /** Absent for messages of the first topic with a name. */
  readonly incarnation?: string
}

export function topicIncarnationTable(schema: string): string {
  return `
create table ${schema}.topic_incarnation (topic text primary key, first_topic_id text not null);
`
}

/** Returns a function that sets `incarnation` on messages. It queries the database once per topic name. */
export function createIncarnations(database: Queryable, schema: string) {
  /** The id of the first topic of each name. */
  const firstIds = new Map<string, string>()

  async function loadFirstIds(unknown: readonly BusMessage[]): Promise<void> {
    await database.query(
      `insert into ${schema}.topic_incarnation (topic, first_topic_id)
       select * from unnest($1::text[], $2::text[]) on conflict do nothing`,
      [unknown.map(({ topic }) => topic), unknown.map(({ topicId }) => topicId)],
    )
    const rows = await database.query<{ topic: string; topicId: string }>(
      `select topic, first_topic_id as "topicId" from ${schema}.topic_incarnation
       where topic = any($1::text[])`,
      [unknown.map(({ topic }) => topic)],
    )
    for (const { topic, topicId } of rows) firstIds.set(topic, topicId)
  }

  return async (batches: readonly Batch[]): Promise<IdentifiedMessage[]> => {
    // All messages of a batch come from one topic.
    const heads = batches.flatMap(({ messages }) => messages[0] ?? [])
    const unknown = heads.filter(({ topic, topicId }) => topicId && !firstIds.has(topic))
    if (unknown.length > 0) await loadFirstIds(unknown)
    return batches.flatMap(({ messages }) => messages.map(identified))
  }

  function identified(message: BusMessage): IdentifiedMessage {
    const { topic, topicId } = message
    if (topicId === undefined || topicId === firstIds.get(topic)) return message
    return { ...message, incarnation: topicId }
  }
}
