import { decodeEvent, eventHeaders } from '../contracts/events.ts'
import { migrate } from '../platform/migrate.ts'
import { openPglite } from '../platform/pglite.ts'
import { systemRuntime } from '../platform/runtime.ts'
import { startConsumer } from './consumer.ts'
import { deadLetterTable } from './dead-letters.ts'
import { createEmbeddedBus } from './embedded-bus.ts'

const database = await openPglite(process.argv[2] ? { folder: process.argv[2] } : {})
const bus = await createEmbeddedBus({
  database,
  runtime: systemRuntime,
  topics: [{ name: 'billing', partitions: 8, compacted: false }],
})
await migrate(database, 'x', [
  {
    id: 1,
    name: 'x',
    sql: deadLetterTable('x') + 'create table x.t (id text primary key, o uuid)',
  },
])
const enc = new TextEncoder()
const accounts = Array.from({ length: 1000 }, () => crypto.randomUUID())
const make = (n: number) =>
  Array.from({ length: n }, () => {
    const accountId = accounts[Math.floor(Math.random() * 1000)]!
    return {
      topic: 'billing',
      key: accountId,
      value: enc.encode(
        JSON.stringify({
          event: 'ORDER_CREATED',
          orderId: crypto.randomUUID(),
          accountId,
          price: 195,
        }),
      ),
      headers: eventHeaders('ORDER_CREATED', 'order', Date.now(), {
        id: systemRuntime.uuid(),
        style: 'events',
        traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      }),
    }
  })
const log = { debug() {}, info() {}, warn: console.log, error: console.log }
for (const write of [false, true]) {
  let n = 0,
    batches = 0,
    done = Promise.withResolvers<void>()
  const N = 50000
  const consumer = startConsumer<any>({
    bus,
    database,
    schema: 'x',
    group: `g${write}`,
    topics: ['billing'],
    decode: decodeEvent as never,
    runtime: systemRuntime,
    log,
    async handle(tx, events) {
      if (write)
        await tx.query(
          'insert into x.t select * from unnest($1::text[], $2::uuid[]) on conflict do nothing',
          [events.map((e) => e.meta.id), events.map((e) => e.body.orderId)],
        )
      batches++
      n += events.length
      return {
        afterCommit: () => {
          if (n >= (write ? 2 : 1) * N) done.resolve()
        },
      }
    },
  })
  const chunks = Array.from({ length: N / 500 }, () => make(500))
  const t = performance.now()
  for (const c of chunks) await bus.send(c)
  const sendMs = performance.now() - t
  await done.promise
  const ms = performance.now() - t
  console.log({
    write,
    sendMs: Math.round(sendMs),
    perSecond: Math.round((n / ms) * 1000),
    meanBatch: Math.round(n / batches),
  })
  await consumer.close()
}
await bus.close()
await database.close()
