import { compatibilityPartitioner, ProduceAcks, Producer } from '@platformatic/kafka'
import { coalesce } from '../../platform/async/coalesce.ts'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { OutgoingMessage } from '../bus.ts'
import { isKafkaError, isUnavailable, within } from './faults.ts'
import { chunksOf, type Encoded, encode } from './records.ts'

/** The sending half of the bus. */
export interface KafkaProducer {
  send(messages: readonly OutgoingMessage[]): Promise<void>
  /** Sends what is under way, as far as that is possible within a few seconds. */
  close(): Promise<void>
}

export interface KafkaProducerOptions {
  readonly brokers: readonly string[]
  readonly clientId: string
  readonly runtime: Runtime
  readonly log: Log
}

const MAX_SENDS_PER_BATCH = 500
const MAX_WAITING_SENDS = 50_000
const FLUSH_LIMIT_MS = 5_000
const CLOSE_LIMIT_MS = 2_000
const TRIES = 2

/**
 * One request is under way at a time; what is sent meanwhile goes together in the next, so that the
 * order of sends is the order in the log. The client tries a request again on its own (a broker that
 * restarts or freezes for a while is bridged without doubles, because it is idempotent); when it has
 * given up the send is rejected, and whoever sends again is the outer loop: the relay.
 */
export function createKafkaProducer(options: KafkaProducerOptions): KafkaProducer {
  const { runtime, log } = options
  const producer = new Producer({
    clientId: options.clientId,
    bootstrapBrokers: [...options.brokers],
    idempotent: true,
    // As Java's own client; this one's default puts half of the keys elsewhere.
    partitioner: compatibilityPartitioner,
    // With the default, which is to try for ever, some errors would never be told.
    retries: 8,
    retryDelay: 500,
    connectTimeout: 3_000,
    requestTimeout: 10_000,
  })
  const sending = new Set<Promise<void>>()
  let closed = false

  async function produce(messages: Parameters<typeof producer.send>[0]['messages']) {
    for (let tries = 1; ; tries += 1) {
      try {
        await producer.send({ messages, acks: ProduceAcks.ALL })
        return
      } catch (error) {
        if (isUnavailable(error)) throw unavailable(error)
        // The client has a new identity now: a sequence of numbers that was broken begins anew.
        if (tries === TRIES || isKafkaError(error, 'MESSAGE_TOO_LARGE')) throw error
        log.warn({ err: error }, 'Kafka refused a batch; it is sent once more')
      }
    }
  }

  const append = coalesce<readonly Encoded[], void>({
    maxBatch: MAX_SENDS_PER_BATCH,
    maxQueue: MAX_WAITING_SENDS,
    concurrency: 1,
    overflow: () => new Error('too many messages wait to be sent'),
    async run(sends) {
      const messages = sends.flat()
      const topics = [...new Set(messages.map(({ message }) => message.topic))]
      // Before anything is written, so that a topic that is not there fails its own sends only.
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
      if (!flushed) log.warn({ sends: sending.size }, 'sends were given up when the bus was closed')
      await within(CLOSE_LIMIT_MS, runtime, producer.close())
    },
  }
}

/** Tells those who share a batch that dividing it would not help. */
function unavailable(cause: unknown): Error {
  return Object.assign(new Error('Kafka cannot be reached', { cause }), { kind: 'unavailable' })
}
