import { once } from 'node:events'
import { Consumer, compatibilityPartitioner, ProduceAcks, Producer } from '@platformatic/kafka'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { openPostgres } from '../../../platform/postgres/postgres.ts'
import { accountId } from '../books.ts'
import { answerTasks } from '../measured-process.ts'
import { openSpan, type Quietest, type Span, type Timed } from '../quiet-seconds.ts'
import { type Recording, recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

/**
 * What an order of `events` has to wait for on its way from POST to APPROVED, and nothing else, on idle
 * servers: the commit of order, a message through the broker, the commit of billing, a message back, and
 * the commit that approves it, one after the other. A process of its own.
 */
export interface WayTask extends Span {
  readonly databaseUrl: string
  readonly brokers: string
  readonly topic: string
  readonly accounts: number
}

/** How long each way took. */
async function go(task: WayTask): Promise<Quietest> {
  const recording = await recordOrder('events')
  const database = await openPostgres({ url: task.databaseUrl, maxConnections: 2 })
  const broker = await openBroker(task)
  const ways: Timed[] = []
  const span = openSpan(task)
  while (!span.isOver()) {
    const account = accountId((ways.length % task.accounts) + 1)
    const order = newOrder(recording, account, systemRuntime.uuid)
    const begunMs = performance.now()
    for (const [nth, statements] of commitsOnTheWay(recording).entries()) {
      if (nth > 0) await broker.pass(account)
      await database.transaction((tx) => replay(tx, statements, recording, order))
    }
    ways.push({ begunMs, tookMs: performance.now() - begunMs })
  }
  const quietest = span.quietest(ways)
  await broker.close()
  await database.close()
  return quietest
}

/** Of placing, paying and approving; the message to the customer is beside the way. */
function commitsOnTheWay({ transactions }: Recording) {
  return transactions.filter((one) => one.some(({ text }) => /\b(orders|billing)\./.test(text)))
}

async function openBroker({ brokers, topic }: WayTask) {
  const bootstrapBrokers = [brokers]
  const partitioner = compatibilityPartitioner
  const producer = new Producer({
    ...{ clientId: 'way', bootstrapBrokers, idempotent: true, partitioner },
  })
  const groupId = `way-${systemRuntime.uuid()}`
  const consumer = new Consumer({ clientId: 'way', groupId, bootstrapBrokers })
  const stream = await consumer.consume({ topics: [topic], mode: 'latest' })
  const value = Buffer.alloc(400, 'x')

  /** A message, acknowledged by the broker and read by a consumer. */
  async function pass(key: string): Promise<void> {
    const read = once(stream, 'data')
    const messages = [{ topic, key: Buffer.from(key), value }]
    await producer.send({ messages, acks: ProduceAcks.ALL })
    await read
  }

  // The consumer has to stand at the end of the log before anything is timed.
  const isAtEnd = pass('first')
  const again = setInterval(() => {
    const messages = [{ topic, key: Buffer.from('again'), value }]
    void producer.send({ messages, acks: ProduceAcks.ALL })
  }, 200)
  await isAtEnd
  clearInterval(again)
  return {
    pass,
    async close() {
      await producer.close()
      await stream.close()
      await consumer.close(true)
    },
  }
}

answerTasks(go)
