import { compatibilityPartitioner, ProduceAcks, Producer } from '@platformatic/kafka'
import { coalesce } from '../../platform/async/coalesce.ts'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { OutgoingMessage } from '../bus.ts'
import { isKafkaError, isUnavailable, within } from './faults.ts'
import { chunksOf, type Encoded, encode } from './records.ts'
import type { KafkaSecurity } from './security.ts'

/** Sends messages to Kafka. */
export interface KafkaProducer {
  send(messages: readonly OutgoingMessage[]): Promise<void>
  /** Waits a few seconds for the sends in flight, and gives up on the rest. */
  close(): Promise<void>
}

export interface KafkaProducerOptions {
  readonly brokers: readonly string[]
  readonly security: KafkaSecurity
  readonly clientId: string
  readonly runtime: Runtime
  readonly log: Log
}

const MAX_SENDS_PER_BATCH = 500
const MAX_WAITING_SENDS = 50_000
const FLUSH_LIMIT_MS = 5_000
const CLOSE_LIMIT_MS = 2_000
const ATTEMPTS = 2

/**
 * One request at a time is in flight. Messages sent during that time share the next request, so the order of sends
 * is the order in the log. The client itself retries a request; as it is an idempotent producer, this bridges a
 * restart or a short freeze of the broker without duplicates. When the client gives up, `send` rejects, and the
 * caller (the relay) has to send the messages again.
 */
export function createKafkaProducer(options: KafkaProducerOptions): KafkaProducer {
  const { runtime, log } = options
  const producer = new Producer({
    clientId: options.clientId,
    bootstrapBrokers: [...options.brokers],
    ...options.security,
    idempotent: true,
    // The partitioner of Kafka's Java client. This client's default partitioner puts half of the keys into
    // other partitions.
    partitioner: compatibilityPartitioner,
    // By default the client retries forever, and would never report some errors.
    retries: 8,
    retryDelay: 500,
    connectTimeout: 3_000,
    requestTimeout: 10_000,
  })
  const sending = new Set<Promise<void>>()
  let closed = false

  async function produce(messages: Parameters<typeof producer.send>[0]['messages']) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await producer.send({ messages, acks: ProduceAcks.ALL })
        return
      } catch (error) {
        if (isUnavailable(error)) throw unavailable(error)
        // By now the client has a new producer id, so a gap in its sequence numbers does not matter any more.
        if (attempt === ATTEMPTS || isKafkaError(error, 'MESSAGE_TOO_LARGE')) throw error
        log.warn({ err: error }, 'Kafka rejected a batch; sending it once more')
      }
    }
  }

  const append = coalesce<readonly Encoded[], void>({
    maxBatch: MAX_SENDS_PER_BATCH,
    maxQueue: MAX_WAITING_SENDS,
    overflow: () => new Error('too many messages are waiting to be sent'),
    async run(sends) {
      const messages = sends.flat()
      const topics = [...new Set(messages.map(({ message }) => message.topic))]
      // Checked before the messages are written, so that a missing topic fails only the sends to that topic.
      await producer.metadata({ topics, retries: 0 }).catch((error) => {
        throw isUnavailable(error) ? unavailable(error) : error
      })
      for (const chunk of chunksOf(messages)) await produce(chunk)
      return sends.map(() => undefined)
    },
  })

  return {
    async send(messages) {
      if (closed) throw new Error('the bus is closed')
      if (messages.length === 0) return
      const sent = append(messages.map(encode))
      sending.add(sent)
      await sent.finally(() => sending.delete(sent))
    },
    async close() {
      closed = true
      const flushed = await within(FLUSH_LIMIT_MS, runtime, Promise.allSettled(sending))
      if (!flushed) log.warn({ sends: sending.size }, 'gave up unfinished sends to close the bus')
      await within(CLOSE_LIMIT_MS, runtime, producer.close())
    },
  }
}

/** Marks an error as `unavailable`, so that `coalesce` does not split the batch, which would not help. */
function unavailable(cause: unknown): Error {
  return Object.assign(new Error('Kafka cannot be reached', { cause }), { kind: 'unavailable' })
}
