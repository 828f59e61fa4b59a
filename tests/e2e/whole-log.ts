import assert from 'node:assert/strict'
import type { Bus, BusMessage } from '../../messaging/bus.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { eventually } from './client.ts'

/**
 * Reads all messages of the topics, each partition in order, with a new consumer group. Messages sent during
 * the read may be missing.
 */
export async function wholeLog(bus: Bus): Promise<BusMessage[]> {
  const topics = TOPICS.map(({ name }) => name)
  const messages: BusMessage[] = []
  const subscription = await bus.subscribe(`whole-log-${crypto.randomUUID()}`, topics)
  async function read(): Promise<void> {
    for (;;) {
      const batches = await subscription.take()
      if (batches.length === 0) return
      for (const batch of batches) messages.push(...batch.messages)
      await subscription.commit(batches)
    }
  }
  const reading = read()
  try {
    const atEnd = eventually(async () => {
      const rest = (await subscription.lag()).filter((partition) => partition.messages !== 0)
      assert.deepEqual(rest, [])
    })
    await Promise.race([atEnd, reading])
  } finally {
    await subscription.close()
  }
  await reading
  return messages
}
