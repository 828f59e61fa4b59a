import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { until } from '../../../platform/async/until.ts'
import type { Restartable } from '../../../tools/servers/restartable.ts'
import { injectFaults } from './faults.ts'
import { startProxy } from './proxy.ts'
import type { Planned } from './schedule.ts'
import type { Sessions } from './sessions.ts'
import { mountSmallDisk } from './small-disk.ts'
import { wrongClock } from './wrong-clock.ts'

const HOUR_MS = 3_600_000

/** A server that records the faults that are injected into it. */
function recordingServer(startMs = 0) {
  const done: string[] = []
  const note =
    (what: string, lastsMs = 0) =>
    async () => {
      await new Promise((resolve) => setTimeout(resolve, lastsMs))
      done.push(what)
    }
  const server: Restartable = {
    pid: 1,
    ended: new Promise<number>(() => undefined),
    stop: note('stop'),
    kill: note('kill'),
    start: note('start', startMs),
    freeze: note('freeze'),
    thaw: note('thaw'),
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
  const kafka = recordingServer(startMs)
  const order = recordingServer()
  const proxy = await startProxy(1)
  const stack = {
    processes: new Map([
      ['Kafka', kafka.server],
      ['order 1', order.server],
    ] as const),
    proxies: new Map([['order → Kafka', proxy] as const]),
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
  const injected = await injectFaults({ stack, schedule: planned, signal, say })
  await proxy.close()
  return { injected, done: kafka.done, doneToOrder: order.done }
}

const quietly = [new AbortController().signal, () => undefined] as const

const kill = (afterMs: number, forMs: number): Planned => ({
  fault: { kind: 'kill', target: 'Kafka' },
  afterMs,
  forMs,
})
const freeze = (afterMs: number, forMs: number): Planned => ({
  fault: { kind: 'freeze', target: 'Kafka' },
  afterMs,
  forMs,
})
const cut = (afterMs: number, forMs: number): Planned => ({
  fault: { kind: 'toxic', target: 'order → Kafka', toxic: { kind: 'cut' }, share: 0.5 },
  afterMs,
  forMs,
})

test('each fault begins on time, lasts as planned, and is returned with its details', async () => {
  const startedMs = Date.now()
  const { injected, done } = await run([freeze(20, 60), cut(40, 50)])
  assert.deepEqual(done, ['freeze', 'thaw'])
  const byTarget = injected.toSorted((a, b) => (a.target < b.target ? -1 : 1))
  assert.deepEqual(
    byTarget.map(({ target, name, detail }) => [target, name, detail]),
    [
      ['Kafka', 'freeze', ''],
      ['order → Kafka', 'cut', 'half of the connections'],
    ],
  )
  const [first, second] = byTarget as [(typeof injected)[0], (typeof injected)[0]]
  // The clock has whole milliseconds, so it and the timer can each be early by one millisecond.
  assert.ok(first.beganMs >= startedMs + 18 && first.endedMs - first.beganMs >= 58)
  assert.ok(second.beganMs >= startedMs + 38 && second.beganMs <= first.endedMs)
})

test('the next fault of a target waits until the target has recovered', async () => {
  const { injected, done } = await run([kill(0, 10), freeze(20, 10)], 80)
  assert.deepEqual(done, ['kill', 'start', 'freeze', 'thaw'])
  assert.ok(injected[1]!.beganMs >= injected[0]!.endedMs)
})

test('aborting the run repairs all faults and begins no new one', async () => {
  const aborting = new AbortController()
  const lines: string[] = []
  // An hour each, so that the run does not end by itself within the test.
  const { injected, done } = await run(
    [kill(0, HOUR_MS), cut(10, HOUR_MS), cut(HOUR_MS, 1)],
    0,
    aborting.signal,
    (line) => {
      if (lines.push(line) === 2) aborting.abort()
    },
  )
  assert.deepEqual(done, ['kill', 'start'])
  assert.equal(injected.length, 2)
})

const freezeInTransaction = (outlastsSession: boolean): Planned => ({
  fault: { kind: 'freeze in transaction', target: 'order 1', outlastsSession },
  afterMs: 0,
  forMs: 10,
})

test('a replica is frozen again and again until it has a transaction open', async () => {
  const open = [0, 0, 1]
  const sessions = { idleTransactions: async () => open.shift() ?? 0 }
  const { injected, doneToOrder } = await run([freezeInTransaction(false)], 0, ...quietly, sessions)
  const miss = ['freeze', 'thaw']
  assert.deepEqual(doneToOrder, [...miss, ...miss, 'freeze', 'thaw'])
  assert.equal(injected[0]!.violation, undefined)
})

test('a transaction that a frozen replica holds open past the time-out is a violation', async () => {
  const sessions = { idleTransactions: async () => 1 }
  const { injected } = await run([freezeInTransaction(true)], 0, ...quietly, sessions)
  assert.match(injected[0]!.violation ?? '', /still open past its time-out/)
})

const hourAhead: Planned = {
  fault: { kind: 'wrong clock', target: 'order 1', offsetMs: HOUR_MS },
  afterMs: 0,
  forMs: 10,
}

test('a replica is restarted with a wrong clock, and later with the right one', async () => {
  const sessions = { leasedMs: async () => 10_000 }
  const { injected, doneToOrder } = await run([hourAhead], 0, ...quietly, sessions)
  assert.deepEqual(doneToOrder, [
    ...['kill', `clock of order 1 ${HOUR_MS}`, 'start', 'ready'],
    ...['kill', 'clock of order 1 0', 'start'],
  ])
  assert.equal(injected[0]!.detail, '1 h ahead')
  assert.equal(injected[0]!.violation, undefined)
})

test('lanes that a dead replica leaves leased for longer than a lease lasts are a violation', async () => {
  const sessions = { leasedMs: async () => HOUR_MS }
  const { injected } = await run([hourAhead], 0, ...quietly, sessions)
  assert.match(injected[0]!.violation ?? '', /leased for 3600 s/)
})

test('a wrong clock affects every form of Date, but no timer', () => {
  const source = `
    const startedMs = performance.now()
    await new Promise((resolve) => setTimeout(resolve, 1))
    const isPrompt = performance.now() - startedMs < ${HOUR_MS}
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

test('a full disk accepts no more bytes until it is freed', {
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
