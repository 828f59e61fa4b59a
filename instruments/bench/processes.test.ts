import assert from 'node:assert/strict'
import { test } from 'node:test'
import { familyOf, parseStat, usageOf, wakeUpsOf } from './processes.ts'

const linux = process.platform !== 'linux' && 'reads /proc, which only Linux has'
const LINE =
  '4711 (node (main) x) S 42 4711 4711 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 11 0 123 987654 2500 1'

test('parses a line of /proc with parentheses and spaces in the process name', () => {
  assert.deepEqual(parseStat(LINE), { pid: 4711, parent: 42, ticks: 127, rssPages: 2500 })
})

test('a family is a process with all its descendants, and no other process', () => {
  const stat = (pid: number, parent: number) => ({ pid, parent, ticks: 0, rssPages: 0 })
  const stats = [stat(1, 0), stat(5, 2), stat(2, 1), stat(3, 1), stat(6, 5)]
  const pids = familyOf(stats, 2).map(({ pid }) => pid)
  assert.deepEqual(pids, [2, 5, 6])
  assert.deepEqual(familyOf(stats, 9), [])
})

test('this process uses memory, and CPU time while it computes', { skip: linux }, () => {
  const usage = () => usageOf({ me: process.pid }).me!
  const before = usage()
  assert.ok(before.rssBytes > 10_000_000)
  // Measured in CPU time, because on a busy machine wall-clock time can pass without any work.
  const startedMs = process.cpuUsage()
  while (process.cpuUsage(startedMs).user < 50_000) Math.sqrt(startedMs.user)
  assert.ok(usage().cpuMs > before.cpuMs)
})

test('the wake-ups of a process that waits are counted', { skip: linux }, async () => {
  const before = wakeUpsOf(process.pid)
  for (let nap = 0; nap < 5; nap += 1) await new Promise((resolve) => setTimeout(resolve, 5))
  const { mainThread, allThreads } = wakeUpsOf(process.pid)
  assert.ok(mainThread > before.mainThread)
  assert.ok(allThreads >= mainThread)
})
