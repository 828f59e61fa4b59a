import { createTopics } from '../../../apps/topics/main.ts'
import type { BenchStack } from '../bench-stack.ts'
import { inDatabase } from '../books.ts'
import type { Bench, Contest, Pace } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { ComponentResult, ComponentTask } from '../programs/component-run.ts'

/** The two sides of the broker: the relay that empties an outbox, and the consumer that fills tables. */
export const COMPONENT_BENCHES: readonly Bench[] = [
  {
    name: 'relay',
    ours: 'outbox rows to Kafka, by the relay alone',
    reference: 'bare producer: same messages, batches and acknowledgements',
    unit: 'messages/s',
    reach: 0.5,
    aim: 0.8,
    open: (stack, pace) => openComponent(stack, pace, ['relay', 'bare producer']),
  },
  {
    name: 'apply',
    ours: 'messages applied by the consumer of notification',
    reference: 'bare consumer that reads the same log',
    unit: 'messages/s',
    reach: 0.15,
    aim: 0.3,
    open: (stack, pace) => openComponent(stack, pace, ['apply', 'bare consumer']),
  },
]

const PARTITIONS = 6
const MESSAGES_PER_SECOND_OF_PACE = 15_000

async function openComponent(
  stack: BenchStack,
  pace: Pace,
  [own, bare]: readonly [ComponentTask['kind'], ComponentTask['kind']],
): Promise<Contest> {
  await stack.serve([])
  const topic = `bench-${own}`
  await createTopics(stack.brokers, [{ name: topic, partitions: PARTITIONS, compacted: false }])
  const messages = MESSAGES_PER_SECOND_OF_PACE * pace.seconds
  const { brokers, urls } = stack
  const databaseUrl = own === 'relay' ? urls.order : urls.notification
  const process = await startMeasured<ComponentTask, ComponentResult>('component-run.ts')
  const run = async (kind: ComponentTask['kind']) => {
    const { seconds } = await process.run({ kind, brokers, databaseUrl, topic, messages })
    return { figure: messages / seconds }
  }
  if (own === 'apply') await run('fill')
  return {
    async ours() {
      if (own === 'relay') await fillOutbox(databaseUrl, topic, messages)
      else await emptyMessages(databaseUrl)
      return run(own)
    },
    reference: () => run(bare),
    close: process.close,
  }
}

/** Inserts the outbox rows that the billing service writes for a payment. */
async function fillOutbox(url: string, topic: string, rows: number): Promise<void> {
  await inDatabase(url, async (client) => {
    await client.query('truncate orders.outbox')
    await client.query(
      `insert into orders.outbox
         (carrier, lane, destination, key, event_id, body, headers, created, due)
       select 'broker', n % 8, $1, account, "order" || '/ORDER_PAID',
         format('{"event":"ORDER_PAID","orderId":"%s","accountId":"%s"}', "order", account),
         format('{"ce_id":"%s/ORDER_PAID","ce_type":"ORDER_PAID","ce_source":"/trifold/billing",'
           '"ce_time":"2026-01-01T00:00:00.000Z","ce_specversion":"1.0",'
           '"content-type":"application/json","x-interaction-style":"events","x-amount":"65"}', "order"),
         now(), now()
       from (select n, gen_random_uuid() as "order",
           lpad(to_hex(n % 1000 + 1), 32, '0')::uuid as account
         from generate_series(1, ${rows}) as n) as o
       order by n`,
      [topic],
    )
    await client.query('analyze orders.outbox')
    await client.query('checkpoint')
  })
}

async function emptyMessages(url: string): Promise<void> {
  await inDatabase(url, async (client) => {
    await client.query('truncate notification.message, notification.account_clock')
    await client.query('checkpoint')
  })
}
