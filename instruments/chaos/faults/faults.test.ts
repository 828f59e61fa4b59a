import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { until } from '../../../platform/async/until.ts'
import type { Restartable } from '../../../tools/servers/restartable.ts'
import { letHappen } from './faults.ts'
import { startProxy } from './proxy.ts'
import type { Planned } from './schedule.ts'
import type { Sessions } from './sessions.ts'
import { mountSmallDisk } from './small-disk.ts'
import { wrongClock } from './wrong-clock.ts'

const HOUR_MS = 3_600_000

/** A server that notes what is done to it. */
function notedServer(startMs = 0) {
  const done: string[] = []
  const note =
    (what: string, lastsMs = 0) =>
    async () => {
      await new Promise((resolve) => setTimeout(resolve, lastsMs))
      done.push(what)
    }
  const server: Restartable = {
    ...{ pid: 1, ended: new Promise<number>(() => undefined) },
    ...{ stop: note('stop'), kill: note('kill'), start: note('start', startMs) },
    ...{ freeze: note('freeze'), thaw: note('thaw') },
  }
  return { server, done }
}

async function run(
  planned: readonly Planned[],
  startMs = 0,
  signal = new AbortController().signal,
  say: (line: string) => void = () => undefined,
  sessions: Partial<Sessions> = {},
) {
  const kafka = notedServer(startMs)
  const order = notedServer()
  const proxy = await startProxy(1)
  const stack = {
    processes: new Map([
      ['Kafka', kafka.server],
      ['order 1', order.server],
    ] as const),
    ways: new Map([['order → Kafka', proxy] as const]),
    disk: 'none',
    sessions: sessions as Sessions,
    setClock: (replica: string, offsetMs: number) => {
      order.done.push(`clock of ${replica} ${offsetMs}`)
    },
    isReady: async () => {
      order.done.push('ready')
      return true
    },
  }
  const struck = await letHappen({ stack, schedule: planned, signal, say })
  await proxy.close()
  return { struck, done: kafka.done, doneToOrder: order.done }
}

const quietly = [new AbortController().signal, () => undefined] as const

const kill = (afterMs: number, forMs: number): Planned => ({
  ...{ fault: { kind: 'kill', target: 'Kafka' }, afterMs, forMs },
})
const freeze = (afterMs: number, forMs: number): Planned => ({
  ...{ fault: { kind: 'freeze', target: 'Kafka' }, afterMs, forMs },
})
const cut = (afterMs: number, forMs: number): Planned => ({
  fault: { kind: 'toxic', target: 'order → Kafka', toxic: { kind: 'cut' }, share: 0.5 },
  ...{ afterMs, forMs },
})

test('each fault begins at its time, lasts, and is told with what it was', async () => {
  const begunMs = Date.now()
  const { struck, done } = await run([freeze(20, 60), cut(40, 50)])
  assert.deepEqual(done, ['freeze', 'thaw'])
  const byTarget = struck.toSorted((a, b) => (a.target < b.target ? -1 : 1))
  assert.deepEqual(
    byTarget.map(({ target, name, detail }) => [target, name, detail]),
    [
      ['Kafka', 'freeze', ''],
      ['order → Kafka', 'cut', 'half of the connections'],
    ],
  )
  const [first, second] = byTarget as [(typeof struck)[0], (typeof struck)[0]]
  // Clocks of whole milliseconds, and timers, may be early by one each.
  assert.ok(first.beganMs >= begunMs + 18 && first.endedMs - first.beganMs >= 58)
  assert.ok(second.beganMs >= begunMs + 38 && second.beganMs <= first.endedMs)
})

test('what comes next for a target waits until it is back', async () => {
  const { struck, done } = await run([kill(0, 10), freeze(20, 10)], 80)
  assert.deepEqual(done, ['kill', 'start', 'freeze', 'thaw'])
  assert.ok(struck[1]!.beganMs >= struck[0]!.endedMs)
})

test('all is put right when the run is given up, and nothing else begins', async () => {
  const given = new AbortController()
  const begun: string[] = []
  // An hour each: the run would not end by itself within the test.
  const { struck, done } = await run(
    [kill(0, HOUR_MS), cut(10, HOUR_MS), cut(HOUR_MS, 1)],
    0,
    given.signal,
    (line) => {
      if (begun.push(line) === 2) given.abort()
    },
  )
  assert.deepEqual(done, ['kill', 'start'])
  assert.equal(struck.length, 2)
})

const freezeInTransaction = (outlastsSession: boolean): Planned => ({
  fault: { kind: 'freeze in transaction', target: 'order 1', outlastsSession },
  ...{ afterMs: 0, forMs: 10 },
})

test('a replica is frozen at one moment after another until it has a transaction open', async () => {
  const open = [0, 0, 1]
  const sessions = { idleTransactions: async () => open.shift() ?? 0 }
  const { struck, doneToOrder } = await run([freezeInTransaction(false)], 0, ...quietly, sessions)
  const miss = ['freeze', 'thaw']
  assert.deepEqual(doneToOrder, [...miss, ...miss, 'freeze', 'thaw'])
  assert.equal(struck[0]!.violation, undefined)
})

test('a transaction that a frozen replica keeps open for longer than the time-out is a violation', async () => {
  const sessions = { idleTransactions: async () => 1 }
  const { struck } = await run([freezeInTransaction(true)], 0, ...quietly, sessions)
  assert.match(struck[0]!.violation ?? '', /still open past its time-out/)
})

const hourAhead: Planned = {
  fault: { kind: 'wrong clock', target: 'order 1', offsetMs: HOUR_MS },
  ...{ afterMs: 0, forMs: 10 },
}

test('a replica works with a wrong clock, and starts with the right one after it was killed again', async () => {
  const sessions = { leasedMs: async () => 10_000 }
  const { struck, doneToOrder } = await run([hourAhead], 0, ...quietly, sessions)
  assert.deepEqual(doneToOrder, [
    ...['kill', `clock of order 1 ${HOUR_MS}`, 'start', 'ready'],
    ...['kill', 'clock of order 1 0', 'start'],
  ])
  assert.equal(struck[0]!.detail, '1 h ahead')
  assert.equal(struck[0]!.violation, undefined)
})

test('lanes that a dead replica with a wrong clock leaves leased for longer are a violation', async () => {
  const sessions = { leasedMs: async () => HOUR_MS }
  const { struck } = await run([hourAhead], 0, ...quietly, sessions)
  assert.match(struck[0]!.violation ?? '', /leased for 3600 s/)
})

test('a process with a wrong clock reads it everywhere, and its timers are right', () => {
  const source = `
    const begun = performance.now()
    await new Promise((resolve) => setTimeout(resolve, 1))
    const isPrompt = performance.now() - begun < ${HOUR_MS}
    const date = new Date()
    console.log(JSON.stringify([isPrompt, Date.now(), date.getTime(), Date.parse(Date()),
      new Date(5).getTime(), date instanceof Date]))`
  const env = { ...process.env, NODE_OPTIONS: wrongClock(-HOUR_MS) }
  const args = ['--input-type=module', '-e', source]
  const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', env })
  const [isPrompt, now, date, text, given, isDate] = JSON.parse(stdout)
  assert.deepEqual([isPrompt, given, isDate], [true, 5, true])
  for (const shown of [now, date, text]) {
    const offMs = Date.now() - HOUR_MS - shown
    assert.ok(offMs >= 0 && offMs < 60_000, `off by ${offMs} ms`)
  }
})

const folder = await mkdtemp(join(tmpdir(), 'trifold-small-disk-'))
const disk = mountSmallDisk(join(folder, 'disk'))

test('a full disk takes no byte more, until it is freed', {
  skip: typeof disk === 'string' && disk,
}, async () => {
  assert.ok(typeof disk !== 'string')
  try {
    const write = () => writeFile(join(disk.folder, 'some'), 'x'.repeat(10_000))
    await write()
    await rm(join(disk.folder, 'some'))
    disk.fill()
    await assert.rejects(write(), { code: 'ENOSPC' })
    disk.free()
    await write()
  } finally {
    disk.close()
    await rm(folder, { recursive: true, force: true })
  }
})

test('a full disk is unmounted when the process that mounted it is killed', {
  skip: typeof disk === 'string' && disk,
}, async (t) => {
  const own = await mkdtemp(join(tmpdir(), 'trifold-small-disk-'))
  t.after(() => rm(own, { recursive: true, force: true }))
  const source = `
    const { mountSmallDisk } = await import(${JSON.stringify(import.meta.resolve('./small-disk.ts'))})
    console.log(mountSmallDisk(${JSON.stringify(own)}).folder)
    setInterval(() => undefined, 1_000)`
  const mounting = spawn(process.execPath, ['--input-type=module', '-e', source])
  await once(mounting.stdout, 'data')
  const isMounted = async () => (await readFile('/proc/mounts', 'utf8')).includes(own)
  assert.ok(await isMounted())
  mounting.kill('SIGKILL')
  await until(async () => !(await isMounted()), { limitMs: 30_000 })
})
