import { once } from 'node:events'
import { Consumer, compatibilityPartitioner, ProduceAcks, Producer } from '@platformatic/kafka'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { openPostgres } from '../../../platform/postgres/postgres.ts'
import { accountId } from '../books.ts'
import { runTasks } from '../measured-process.ts'
import { openSpan, type Quietest, type Span, type Timed } from '../quiet-seconds.ts'
import { type Recording, recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

/**
 * Only the steps for which an order in `events` has to wait from POST to APPROVED, one after the other, on
 * idle servers: the commit that places the order, a message through the broker, the commit of the payment, a
 * message back, and the commit that approves the order. Runs in a separate process.
 */
export interface PathTask extends Span {
  readonly databaseUrl: string
  readonly brokers: string
  readonly topic: string
  readonly accounts: number
}

async function measurePath(task: PathTask): Promise<Quietest> {
  const recording = await recordOrder('events')
  const database = await openPostgres({ url: task.databaseUrl, maxConnections: 2 })
  const broker = await openBroker(task)
  const orders: Timed[] = []
  const span = openSpan(task)
  while (!span.isOver()) {
    const account = accountId((orders.length % task.accounts) + 1)
    const order = newOrder(recording, account, systemRuntime.uuid)
    const startedMs = performance.now()
    for (const [nth, statements] of transactionsOf(recording).entries()) {
      if (nth > 0) await broker.pass(account)
      await database.transaction((tx) => replay(tx, statements, recording, order))
    }
    orders.push({ startedMs, tookMs: performance.now() - startedMs })
  }
  const quietest = span.quietest(orders)
  await broker.close()
  await database.close()
  return quietest
}

/** The transactions that place, pay and approve the order. The notice to the customer is written in parallel. */
function transactionsOf({ transactions }: Recording) {
  return transactions.filter((one) => one.some(({ text }) => /\b(orders|billing)\./.test(text)))
}

async function openBroker({ brokers, topic }: PathTask) {
  const bootstrapBrokers = [brokers]
  const partitioner = compatibilityPartitioner
  const producer = new Producer({
    clientId: 'path',
    bootstrapBrokers,
    idempotent: true,
    partitioner,
  })
  const groupId = `path-${systemRuntime.uuid()}`
  const consumer = new Consumer({ clientId: 'path', groupId, bootstrapBrokers })
  const stream = await consumer.consume({ topics: [topic], mode: 'latest' })
  const value = Buffer.alloc(400, 'x')

  /** Sends a message; resolves when the broker has acknowledged it and the consumer has read it. */
  async function pass(key: string): Promise<void> {
    const read = once(stream, 'data')
    const messages = [{ topic, key: Buffer.from(key), value }]
    await producer.send({ messages, acks: ProduceAcks.ALL })
    await read
  }

  // The consumer must have reached the end of the log before the first measurement. It may miss the first
  // message.
  const isAtEnd = pass('first')
  const sending = setInterval(() => {
    const messages = [{ topic, key: Buffer.from('next'), value }]
    void producer.send({ messages, acks: ProduceAcks.ALL })
  }, 200)
  await isAtEnd
  clearInterval(sending)
  return {
    pass,
    async close() {
      await producer.close()
      await stream.close()
      await consumer.close(true)
    },
  }
}

runTasks(measurePath)
