import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../platform/async/until.ts'
import { createClient } from '../../../tests/e2e/client.ts'
import { valuesOf } from '../../../tests/e2e/invariants.ts'
import { root } from '../../../tools/repository-files.ts'
import { lastLines, startKept } from '../../../tools/servers/kept-process.ts'
import { freePorts } from '../../../tools/servers/ports.ts'
import { isReady } from '../../../tools/stack/services.ts'
import type { BenchStack, NodeSettings } from '../bench-stack.ts'
import type { Bench, Contest, Pace, Run } from '../contest.ts'
import { startMeasured } from '../measured-process.ts'
import type { BarePgliteTask } from '../programs/bare-pglite.ts'
import type { Load, LoadResult } from '../programs/load.ts'

const CONNECTIONS = 256
const ACCOUNTS = 100
const DEPOSIT = 1_000_000
const PORT = 19_480
const READY_LIMIT_MS = 60_000
const SETTLE_LIMIT_MS = 120_000
const POLL_MS = 100

export const EMBEDDED: Bench = {
  name: 'embedded',
  ours: `orders settled by the all-in-one program, events, ${CONNECTIONS} connections`,
  reference: 'bare PGlite on disk: the same statements, prepared, four commits per order',
  unit: 'orders/s',
  reach: 0.5,
  aim: 1,
  open: openEmbedded,
}

async function openEmbedded(stack: BenchStack, pace: Pace): Promise<Contest> {
  await stack.serve([])
  const folders = { program: join(stack.folder, 'program'), bare: join(stack.folder, 'pglite') }
  for (const folder of Object.values(folders)) rmSync(folder, { recursive: true, force: true })
  const program = await startProgram(folders.program)
  const customers = await startMeasured<Load, LoadResult>('load.ts')
  const bare = await startMeasured<BarePgliteTask, number>('bare-pglite.ts')
  const accounts: string[] = []
  for (let n = 0; n < ACCOUNTS; n += 1) {
    accounts.push(await createClient(program.url).fundedAccount(DEPOSIT))
  }
  const { seconds } = pace
  return {
    async ours() {
      const load = { url: program.url, style: 'events', connections: CONNECTIONS }
      return settle(program.url, () => customers.run({ ...load, accounts, seconds }))
    },
    async reference() {
      return { figure: await bare.run({ folder: folders.bare, accounts: ACCOUNTS, seconds }) }
    },
    async close() {
      await Promise.all([bare.close(), customers.close(), program.stop()])
    },
  }
}

/** Starts the all-in-one program as a process; resolves when it is ready. */
export async function startProgram(folder: string, node: NodeSettings = {}) {
  const startedMs = performance.now()
  const port = await freePorts(PORT, 1)
  const logFile = `${folder}.log`
  const kept = await startKept({
    command: process.execPath,
    args: [...(node.flags ?? []), join(root, 'apps', 'all-in-one', 'main.ts')],
    // A folder without a developer's .env file.
    folder: tmpdir(),
    env: { PORT: String(port), DATA_DIR: folder, LOG_LEVEL: 'warn', ...node.env },
    logFile,
  })
  const url = `http://127.0.0.1:${port}`
  try {
    for (const service of ['order', 'billing', 'notification'] as const) {
      await until(() => isReady(url, service), { limitMs: READY_LIMIT_MS, ended: kept.ended })
    }
  } catch (cause) {
    await kept.stop()
    const last = lastLines(logFile, 10)
    throw new Error(`the program is not ready: ${(cause as Error).message}\n${last}`, { cause })
  }
  return { url, pid: kept.pid, readyMs: performance.now() - startedMs, stop: kept.stop }
}

/**
 * Settles orders. Only the program itself can open its database, so its metrics show how many orders are
 * settled.
 */
async function settle(url: string, load: () => Promise<LoadResult>): Promise<Run> {
  const before = await countsOf(url)
  const startedMs = performance.now()
  const { accepted, rejected } = await load()
  assert.deepEqual(rejected, {}, 'orders were rejected')
  for (;;) {
    const now = await countsOf(url)
    const isDone = (['approved', 'notices'] as const).every(
      (of) => now[of] - before[of] >= accepted,
    )
    const tookMs = performance.now() - startedMs
    if (isDone) return { figure: (accepted * 1_000) / tookMs }
    assert.ok(tookMs < SETTLE_LIMIT_MS, `the orders did not settle within ${SETTLE_LIMIT_MS} ms`)
    await sleep(POLL_MS)
  }
}

async function countsOf(url: string): Promise<{ approved: number; notices: number }> {
  const count = async (path: string, name: string, labels: string) => {
    const scrape = await (
      await fetch(`${url}/${path}/actuator/prometheus`, {
        headers: { 'cache-control': 'no-cache' },
      })
    ).text()
    return valuesOf(scrape, name, labels).reduce((sum, value) => sum + value, 0)
  }
  return {
    approved: await count('orders', 'trifold_orders_total', 'state="APPROVED"'),
    notices: await count('notification', 'trifold_messages_total', 'event="ORDER_PAID"'),
  }
}
