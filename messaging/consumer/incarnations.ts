import type { Queryable } from '../../platform/database/database.ts'
import type { Batch, BusMessage } from '../bus.ts'

/**
 * Tells apart topics of one name. A topic that is deleted and recreated starts over at offset 0, so
 * topic, partition and offset no longer identify a message. The first topic that a service reads
 * under a name is remembered in its schema, and positions in it stay as they are in the contract
 * (`topic/partition/offset`), also for the version that was released before. Messages of any later
 * topic of that name carry its id as their incarnation.
 */
export interface IdentifiedMessage extends BusMessage {
  /** Absent in the first topic of its name. */
  readonly incarnation?: string
}

export function topicIncarnationTable(schema: string): string {
  return `
create table ${schema}.topic_incarnation (topic text primary key, first_topic_id text not null);
`
}

/** Reads the database only for topics that were not seen before. */
export function createIncarnations(database: Queryable, schema: string) {
  /** The first topic id of each name. */
  const first = new Map<string, string>()

  async function learn(unknown: readonly BusMessage[]): Promise<void> {
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
    for (const { topic, topicId } of rows) first.set(topic, topicId)
  }

  return async (batches: readonly Batch[]): Promise<IdentifiedMessage[]> => {
    // All messages of a batch come from one topic.
    const heads = batches.flatMap(({ messages }) => messages[0] ?? [])
    const unknown = heads.filter(({ topic, topicId }) => topicId && !first.has(topic))
    if (unknown.length > 0) await learn(unknown)
    return batches.flatMap(({ messages }) => messages.map(identified))
  }

  function identified(message: BusMessage): IdentifiedMessage {
    const { topic, topicId } = message
    if (topicId === undefined || topicId === first.get(topic)) return message
    return { ...message, incarnation: topicId }
  }
}
