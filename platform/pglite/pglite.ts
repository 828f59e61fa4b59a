import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import {
  BY_INDEX,
  type Database,
  DatabaseError,
  type Queryable,
  rolledBack,
} from '../database/database.ts'
import { pgliteClock } from './clock.ts'
import { ensureCluster, freshCluster } from './cluster.ts'
import { FlushingFiles, flushingParams, flushTree } from './flush.ts'
import { lockFolder } from './folder-lock.ts'
import { createSession, type Session } from './session.ts'
import { upkeep } from './upkeep.ts'

export interface PgliteOptions {
  /** The folder for the data, which is created if missing. Without a folder, the data is kept in memory. */
  readonly folder?: string
  /**
   * Whether a commit waits until its data is on disk, so that it survives a power cut. Off by default, and
   * without effect if there is no folder.
   */
  readonly flush?: boolean
  /** The database's clock, in epoch milliseconds. The machine's clock by default. */
  readonly now?: () => number
  /** Milliseconds between two runs of `upkeep`, which runs only after statements. */
  readonly upkeepEveryMs?: number
}

/**
 * How long consecutive statements may run before the event loop gets a turn. Timers and sockets wait during
 * that time.
 */
const MAX_TURN_MS = 10

/**
 * Opens PostgreSQL inside this process. The database has one connection, so transactions run one after the
 * other. Code inside a transaction has to use `tx`; a call on the database itself would wait forever.
 *
 * A commit survives if the process is killed. It survives a power cut only with `flush`, because PGlite by
 * itself never flushes its files to disk.
 *
 * Rejects with a plain Error if the folder is in use or does not contain a database.
 */
export async function openPglite(options: PgliteOptions = {}): Promise<Database> {
  const opened = await open(options)
  const upkeepEveryMs = options.upkeepEveryMs ?? 1_000
  const session = createSession(opened.pglite)
  const exclusively = createQueue()
  // Only this process uses the database, so all listeners are in this process.
  const listeners = new Map<string, Set<() => void>>()
  let upkeepAt = performance.now() + upkeepEveryMs
  let closing: Promise<void> | undefined

  function use<T>(work: () => Promise<T>): Promise<T> {
    if (closing) {
      return Promise.reject(new DatabaseError('the database is closed', 'unavailable'))
    }
    const result = exclusively(work)
    if (performance.now() >= upkeepAt) {
      upkeepAt = performance.now() + upkeepEveryMs
      // No caller waits for the upkeep, so its errors are ignored. If the database has failed, the next
      // statement fails as well.
      exclusively(() => upkeep(session)).catch(() => {})
    }
    return result
  }

  return {
    query: <Row>(text: string, params?: readonly unknown[]) =>
      use(async () => (await session.run(text, params)).rows as Row[]),
    transaction: (work) => use(() => runTransaction(session, work)),
    script: (text) => use(async () => void (await session.script(text))),
    build: (statement) => use(async () => void (await session.script(statement))),
    async notify(channel) {
      for (const onNotify of listeners.get(channel) ?? []) onNotify()
    },
    listen(channel, onNotify) {
      listeners.set(channel, (listeners.get(channel) ?? new Set()).add(onNotify))
      return () => void listeners.get(channel)?.delete(onNotify)
    },
    close() {
      closing ??= exclusively(() => opened.close())
      return closing
    },
  }
}

async function runTransaction<T>(session: Session, work: (tx: Queryable) => Promise<T>) {
  let over = false
  const tx: Queryable = {
    async query<Row>(text: string, params?: readonly unknown[]) {
      if (over) throw new Error('this transaction is over')
      return (await session.run(text, params)).rows as Row[]
    },
    // Does nothing more, because within a process there is no round trip to save.
    last() {
      over = true
    },
  }
  await session.script('begin')
  let result: T
  try {
    result = await work(tx)
  } catch (error) {
    over = true
    await session.script('rollback')
    throw error
  }
  over = true
  const tag = await session.script('commit')
  if (tag !== 'COMMIT') throw rolledBack()
  return result
}

/**
 * Returns a function that runs pieces of work in order, one at a time, and gives the event loop a turn every
 * MAX_TURN_MS.
 */
function createQueue(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  let turnStarted = performance.now()
  return (work) => {
    const result = last.then(async () => {
      if (performance.now() - turnStarted > MAX_TURN_MS) {
        await new Promise((resolve) => setImmediate(resolve))
        turnStarted = performance.now()
      }
      return work()
    })
    last = result.catch(() => {})
    return result
  }
}

async function open({
  folder,
  now,
  flush = false,
}: PgliteOptions): Promise<{ pglite: PGlite; close(): Promise<void> }> {
  if (folder === undefined) {
    const pglite = await start({ loadDataDir: new Blob([await freshCluster()]) }, now)
    return { pglite, close: () => pglite.close() }
  }
  mkdirSync(folder, { recursive: true })
  const lock = lockFolder(folder)
  try {
    const dataDir = join(folder, 'pgdata')
    await ensureCluster(dataDir)
    if (flush) flushTree(dataDir)
    const pglite = await start(flush ? { fs: new FlushingFiles(dataDir) } : { dataDir }, now)
    return { pglite, close: () => pglite.close().finally(() => lock.release()) }
  } catch (error) {
    lock.release()
    throw error
  }
}

async function start(
  place: { dataDir: string } | { fs: FlushingFiles } | { loadDataDir: Blob },
  now: PgliteOptions['now'],
): Promise<PGlite> {
  const lines: string[] = []
  const settings = Object.entries({
    timezone: 'UTC',
    min_wal_size: '32MB',
    shared_buffers: '16MB',
    ...BY_INDEX,
  }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  try {
    return await PGlite.create({
      ...place,
      ...(now && { extensions: { clock: pgliteClock(now) } }),
      startParams: [
        ...('fs' in place ? flushingParams(PGlite.defaultStartParams) : PGlite.defaultStartParams),
        ...settings,
      ],
      onStderr: (line) => lines.push(line) > 100,
    })
  } catch (cause) {
    throw new Error(`PGlite cannot start: ${lines.slice(-5).join(' ') || cause}`, { cause })
  }
}
