import { Admin } from '@platformatic/kafka'
import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Bus } from '../bus.ts'
import { createKafkaProducer } from './producer.ts'
import type { KafkaSecurity } from './security.ts'
import { createKafkaSubscription, type KafkaSubscription } from './subscription.ts'

export interface KafkaBusOptions {
  /** `host:port` of some of the brokers. The client learns the others from them. */
  readonly brokers: readonly string[]
  /** How to connect to the brokers; by default in plain text, without a login. */
  readonly security?: KafkaSecurity
  /** The name of this program in the broker's logs and metrics, without spaces. */
  readonly clientId: string
  /**
   * Where this process runs: letters, digits and `._-`. A new group member replaces a member with the same
   * place.
   */
  readonly place?: string
  readonly runtime: Runtime
  readonly log: Log
  /** The most messages that one take returns, over all its partitions. */
  readonly maxBatchMessages?: number
}

const MAX_BATCH_MESSAGES = 500
const PING_TIMEOUT_MS = 3_000

/**
 * The bus on Apache Kafka. The bus opens even if no broker can be reached; its calls then reject until a
 * broker can be reached. Topics must exist: using a topic does not create it.
 */
export async function createKafkaBus(options: KafkaBusOptions): Promise<Bus> {
  const {
    brokers,
    clientId,
    runtime,
    log,
    security = {},
    maxBatchMessages = MAX_BATCH_MESSAGES,
  } = options
  const place = options.place === undefined ? {} : { place: options.place }
  const producer = createKafkaProducer({ brokers, security, clientId, runtime, log })
  const subscriptions = new Set<KafkaSubscription>()
  // Pings have their own connection, so that they never wait behind a slow request.
  const admin = new Admin({
    clientId,
    bootstrapBrokers: [...brokers],
    retries: 0,
    ...security,
    connectTimeout: PING_TIMEOUT_MS,
    requestTimeout: PING_TIMEOUT_MS,
  })
  let closed: Promise<void> | undefined

  function assertOpen(): void {
    if (closed) throw new Error('the bus is closed')
  }

  async function close(): Promise<void> {
    await Promise.all([...subscriptions].map((subscription) => subscription.close()))
    await producer.close()
    await admin.close().catch((error) => log.debug({ err: error }, 'closing a connection failed'))
  }

  return {
    send: (messages) => producer.send(messages),

    async subscribe(group, topics) {
      assertOpen()
      const common = { brokers, security, clientId, ...place, maxBatchMessages, runtime, log }
      const subscription = createKafkaSubscription({ ...common, group, topics })
      subscriptions.add(subscription)
      try {
        await subscription.open()
        assertOpen()
      } catch (error) {
        subscriptions.delete(subscription)
        await subscription.close()
        throw error
      }
      return {
        ...subscription,
        async close() {
          subscriptions.delete(subscription)
          await subscription.close()
        },
      }
    },

    async ping() {
      assertOpen()
      await admin.metadata({ topics: [], forceUpdate: true })
    },

    close() {
      closed ??= close()
      return closed
    },
  }
}
