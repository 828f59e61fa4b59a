;(BigInt.prototype as any).toJSON = function () {
  return String(this)
}

import { openPglite } from '../platform/pglite.ts'
import { systemRuntime } from '../platform/runtime.ts'
import { createEmbeddedBus } from './embedded-bus.ts'

const database = await openPglite()
let now = 1_700_000_000_000
const runtime = { ...systemRuntime, now: () => now }
const timed = {
  ...database,
  async query(text: string, p: any) {
    const t = performance.now()
    const r = await database.query(text, p)
    const ms = performance.now() - t
    if (ms > 15 && !text.includes('drawn'))
      console.log('   ', ms.toFixed(1), text.trim().slice(0, 12), JSON.stringify(r).slice(0, 50))
    return r
  },
} as typeof database
const bus = await createEmbeddedBus({
  database: timed,
  runtime,
  retentionMs: 1000,
  topics: [
    { name: 'billing', partitions: 8, compacted: false },
    { name: 'balance', partitions: 8, compacted: true },
  ],
})
const value = new Uint8Array(100)
const make = (topic: string, n: number, keys: number) =>
  Array.from({ length: n }, () => ({
    topic,
    key: `key-${Math.floor(Math.random() * keys)}`,
    value,
    headers: { a: 'b'.repeat(200) },
  }))
for (let i = 0; i < 5; i++) await bus.send(make('billing', 1000, 1e5))
now += 2000
for (let i = 0; i < 200; i++) await bus.send(make('billing', 1000, 1e5))
for (let i = 0; i < 100; i++) await bus.send(make('balance', 1000, 1e5))
const time = async (what: string, f: () => Promise<unknown>) => {
  const t = performance.now()
  const r = await f()
  console.log(what, (performance.now() - t).toFixed(1), r ?? '')
}
await time('maintain: expire 5k of 205k, compact 100k', () => bus.maintain())
await time('calm', () => bus.maintain())
await bus.send(make('balance', 5000, 1e5))
await time('compact 5k fresh', () => bus.maintain())
await time('calm', () => bus.maintain())
await time('send 500', () => bus.send(make('billing', 500, 1e5)))
await time('send 1', () => bus.send(make('billing', 1, 1e5)))
const sub = await bus.subscribe('x', ['billing'])
await time('take', () => sub.take().then((b) => b.length))
const sub2 = await bus.subscribe('y', ['billing'])
await time('take', () => sub2.take().then((b) => b.length))
await time('calm', () => bus.maintain())
await bus.close()
await database.close()
