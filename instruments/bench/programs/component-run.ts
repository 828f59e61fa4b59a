import { Consumer, compatibilityPartitioner, ProduceAcks, Producer } from '@platformatic/kafka'
import { decodeEvent, eventHeaders, type PaymentEvent } from '../../../contracts/events.ts'
import type { Bus, OutgoingMessage } from '../../../messaging/bus.ts'
import { startConsumer } from '../../../messaging/consumer/consumer.ts'
import { createKafkaBus } from '../../../messaging/kafka/bus.ts'
import { encode } from '../../../messaging/kafka/records.ts'
import { createOutbox } from '../../../messaging/outbox/outbox.ts'
import { createRelay } from '../../../messaging/outbox/relay.ts'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { openPostgres } from '../../../platform/postgres/postgres.ts'
import { createLog, createTelemetry } from '../../../platform/telemetry/telemetry.ts'
import { notifyCustomers } from '../../../services/notification/reactions.ts'
import { accountId } from '../books.ts'
import { runTasks } from '../measured-process.ts'

/**
 * Runs one component of a service alone in this process, or its reference, a bare Kafka client without a database. The
 * relay sends the rows of an outbox to a topic; the consumer writes the messages of a topic into tables.
 */
export interface ComponentTask {
  readonly kind: 'relay' | 'bare producer' | 'fill' | 'apply' | 'bare consumer'
  readonly brokers: string
  readonly databaseUrl: string
  readonly topic: string
  readonly messages: number
}

export interface ComponentResult {
  readonly seconds: number
}

const ACCOUNTS = 1_000
const BATCH = 1_000
const log = createLog('error', 'bench')
const telemetry = createTelemetry('bench')

const RUNS: Readonly<Record<ComponentTask['kind'], (task: ComponentTask) => Promise<number>>> = {
  relay,
  'bare producer': bareProducer,
  fill: bareProducer,
  apply,
  'bare consumer': bareConsumer,
}

const openBus = ({ brokers }: ComponentTask): Promise<Bus> =>
  createKafkaBus({ brokers: [brokers], clientId: 'bench', runtime: systemRuntime, log })

/** Returns the milliseconds until the broker has acknowledged the last row. */
async function relay(task: ComponentTask): Promise<number> {
  const database = await openPostgres({ url: task.databaseUrl, telemetry })
  const bus = await openBus(task)
  const done = Promise.withResolvers<void>()
  let sent = 0
  const counting: Bus = {
    ...bus,
    async send(messages) {
      await bus.send(messages)
      sent += messages.length
      if (sent >= task.messages) done.resolve()
    },
  }
  const startedMs = performance.now()
  const relay = createRelay({
    database,
    log,
    telemetry,
    runtime: systemRuntime,
    soleProcess: false,
    schema: 'orders',
    outbox: createOutbox('orders'),
  })
  relay.start({}, counting)
  await done.promise
  const tookMs = performance.now() - startedMs
  await relay.close()
  await bus.close()
  await database.close()
  return tookMs
}

/** Sends the same messages in the same batches, each acknowledged before the next is sent. */
async function bareProducer(task: ComponentTask): Promise<number> {
  const messages = messagesOf(task).map((message) => encode(message).message)
  const producer = openProducer(task)
  await producer.metadata({ topics: [task.topic] })
  const startedMs = performance.now()
  for (let at = 0; at < messages.length; at += BATCH) {
    await producer.send({ messages: messages.slice(at, at + BATCH), acks: ProduceAcks.ALL })
  }
  const tookMs = performance.now() - startedMs
  await producer.close()
  return tookMs
}

const openProducer = ({ brokers }: ComponentTask) =>
  new Producer({
    clientId: 'bare',
    bootstrapBrokers: [brokers],
    idempotent: true,
    partitioner: compatibilityPartitioner,
  })

/** Messages of the size, and with the number of headers, that the services put into their outboxes. */
function messagesOf({ topic, messages }: ComponentTask): OutgoingMessage[] {
  const encoder = new TextEncoder()
  return Array.from({ length: messages }, (_, index) => {
    const account = accountId((index % ACCOUNTS) + 1)
    const orderId = systemRuntime.uuid()
    const body = { event: 'ORDER_PAID', orderId, accountId: account }
    const meta = { id: `${orderId}/ORDER_PAID`, style: 'events', amountMinor: 6_500n } as const
    const headers = eventHeaders('ORDER_PAID', 'billing', Date.now(), meta)
    return { topic, key: account, value: encoder.encode(JSON.stringify(body)), headers }
  })
}

/** Returns the milliseconds from when the consumer has joined its group until the last message is committed. */
async function apply(task: ComponentTask): Promise<number> {
  const database = await openPostgres({ url: task.databaseUrl, telemetry })
  const bus = await openBus(task)
  const outbox = createOutbox('notification')
  const done = Promise.withResolvers<void>()
  let startedMs = 0
  let applied = 0
  const timed: Bus = {
    ...bus,
    async subscribe(group, topics) {
      const subscription = await bus.subscribe(group, topics)
      startedMs = performance.now()
      return subscription
    },
  }
  const consumer = startConsumer<PaymentEvent>({
    bus: timed,
    database,
    log,
    telemetry,
    runtime: systemRuntime,
    schema: 'notification',
    group: `bench-${systemRuntime.uuid()}`,
    topics: [task.topic],
    decode: (message) => decodeEvent<PaymentEvent>({ ...message, topic: 'payment' }),
    handle: (tx, events) => {
      const context = { outbox, newId: systemRuntime.uuid, lettersPerHour: 0 }
      return notifyCustomers(tx, context, events, (notified) => {
        applied += notified.length
        if (applied >= task.messages) done.resolve()
      })
    },
  })
  await done.promise
  const tookMs = performance.now() - startedMs
  await consumer.close()
  await bus.close()
  await database.close()
  return tookMs
}

/** Reads the messages that `apply` handles, and measures the same period, but does nothing with them. */
async function bareConsumer(task: ComponentTask): Promise<number> {
  const consumer = new Consumer({
    clientId: 'bare',
    groupId: `bare-${systemRuntime.uuid()}`,
    bootstrapBrokers: [task.brokers],
  })
  let startedMs = 0
  consumer.once('consumer:group:join', () => {
    startedMs = performance.now()
  })
  const stream = await consumer.consume({ topics: [task.topic], mode: 'earliest' })
  let read = 0
  for await (const _ of stream) {
    read += 1
    if (read === task.messages) break
  }
  const tookMs = performance.now() - startedMs
  await stream.close()
  await consumer.close(true)
  return tookMs
}

runTasks(
  async (task: ComponentTask): Promise<ComponentResult> => ({
    seconds: (await RUNS[task.kind](task)) / 1_000,
  }),
)
