import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { until } from '../../platform/async/until.ts'
import { startMeasured } from './measured-process.ts'
import type { Load, LoadResult } from './programs/load.ts'

const IDLE_LOAD: Load = {
  url: 'http://127.0.0.1:1',
  style: 'events',
  connections: 0,
  accounts: [],
  seconds: 0,
}

test('a measured process returns the result of a task, and ends when it is closed', async () => {
  const load = await startMeasured<Load, LoadResult>('load.ts')
  assert.equal((await load.run(IDLE_LOAD)).accepted, 0)
  await load.close()
})

test('a measured process ends in the middle of a task if the benchmark is killed', async (t) => {
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const connected = once(silent, 'connection')
  t.after(async () => {
    silent.close()
    const [socket] = await connected
    socket.destroy()
  })
  const { port } = silent.address() as AddressInfo
  const load = { ...IDLE_LOAD, url: `http://127.0.0.1:${port}`, connections: 1, accounts: ['a'] }
  const source = `
    const { startMeasured } = await import(${JSON.stringify(import.meta.resolve('./measured-process.ts'))})
    const load = await startMeasured('load.ts')
    load.run(${JSON.stringify({ ...load, seconds: 3_600 })})
    console.log(load.pid)`
  const folder = await mkdtemp(join(tmpdir(), 'trifold-bench-'))
  t.after(() => rm(folder, { recursive: true }))
  const program = join(folder, 'bench.mjs')
  await writeFile(program, source)
  const bench = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [pid] = await once(bench.stdout, 'data')
  await connected
  bench.kill('SIGKILL')
  await until(async () => !isRunning(Number(pid)), { limitMs: 30_000 })
})

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
