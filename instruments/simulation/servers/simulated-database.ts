// createDatabases is long, because the databases of all processes take turns on one connection.
import {
  type Database,
  DatabaseError,
  type Queryable,
  rolledBack,
  SESSION_LIMITS,
} from '../../../platform/database/database.ts'
import type { Session } from '../../../platform/pglite/session.ts'
import type { Mishap } from '../faults/mishaps.ts'
import { type Life, laterIn, never } from '../world/lives.ts'
import type { Scheduler } from '../world/scheduler.ts'
import type { Gate, Steps } from '../world/steps.ts'

/**
 * One PGlite that all processes share, with the interleavings of a PostgreSQL server. At READ COMMITTED, each
 * statement of a transaction sees what other transactions have committed before it. So the statements of a
 * transaction run one by one, with statements of other transactions between them, until the first statement
 * that locks or writes. From that statement on, the transaction has the connection to itself until it ends.
 * This exposes code that decides on rows without locking them.
 *
 * A process that freezes in a transaction keeps its locks. If the freeze is shorter than the server lets a
 * transaction idle, it keeps the connection: all processes wait, even those of other services, which would
 * not happen on real servers. If it is longer, the transaction can never commit. It is therefore rolled back
 * at once, and only its locks remain until the server would end the session: until then, other processes of
 * its service get no lock on any row and may time out, while reads and other services go on. After the thaw,
 * the next statement or the commit of the process fails, as on a broken connection.
 */
export interface SimulatedDatabases {
  of(life: Life): Database
  /** Rolls back the transaction of a life that has ended. */
  abandon(life: Life): Promise<void>
  /** To be called when a process freezes for `durationMs`; its transaction may lose its session. */
  freeze(life: Life, durationMs: number): Promise<void>
  /** Access for the checks, without faults, steps or simulated time. */
  readonly direct: Queryable
  /** The services whose database is down, and until when. */
  down: Spell
  /** The services whose transactions all fail with serialization failures, and until when. */
  conflicting: Spell
}

interface Spell {
  readonly untilMs: number
  readonly services: ReadonlySet<Life['service']>
}

export interface DatabasesOptions {
  readonly session: Session
  readonly scheduler: Scheduler
  readonly steps: Steps
  /** Whether a notification on this channel is lost. */
  readonly losesSignal: (channel: string) => boolean
}

export function createDatabases(options: DatabasesOptions): SimulatedDatabases {
  const { session, scheduler, steps } = options
  const listeners = new Map<string, Set<() => void>>()
  const connection = createConnection(session)
  const direct: Queryable = {
    query: async <Row>(text: string, params?: readonly unknown[]) =>
      (await session.run(text, params)).rows as Row[],
  }

  const isIn = ({ untilMs, services }: Spell, life: Life) =>
    scheduler.now() < untilMs && services.has(life.service)

  function assertThere(life: Life): void {
    if (isIn(databases.down, life)) throw new DatabaseError('the server is down', 'unavailable')
  }

  const databases: SimulatedDatabases = {
    direct,
    async abandon(life) {
      const owner = connection.holder()
      if (owner?.life === life) await connection.rollback(owner)
      connection.unlock(life)
    },
    async freeze(life, durationMs) {
      const owner = connection.holder()
      if (owner?.life !== life || durationMs < IDLE_IN_TRANSACTION_MS) return
      await connection.breakOff(owner)
      scheduler.after(IDLE_IN_TRANSACTION_MS, () => connection.unlock(life))
    },
    down: { untilMs: 0, services: new Set() },
    conflicting: { untilMs: 0, services: new Set() },
    of(life) {
      const run = async (text: string, params?: readonly unknown[]) => {
        assertThere(life)
        return (await session.run(text, params)).rows
      }

      async function query<Row>(text: string, params?: readonly unknown[]): Promise<Row[]> {
        // All migrations have run, so a starting service's check for them is not simulated as a step.
        if (isPlainRead(text) && isAboutMigrations(text)) return direct.query<Row>(text, params)
        const step = { kind: 'statement', label: labelOf(text) } as const
        return (await steps.perform(
          life,
          step,
          () => run(text, params),
          faultOf,
          connection.gateFor(life, text),
        )) as Row[]
      }

      async function transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
        const owner = { life }
        let hasBegun = false
        let isOver = false
        /** Statements that are started together run in that order, and fail if an earlier one failed. */
        let last: Promise<unknown> = Promise.resolve()
        const begin = async (text: string) => {
          assertThere(life)
          if (hasBegun) return connection.assertHeldBy(owner)
          if (isPlainRead(text)) return
          hasBegun = true
          await connection.begin(owner)
        }
        const tx: Queryable = {
          async query<Row>(text: string, params?: readonly unknown[]) {
            if (isOver) throw new Error('this transaction is over')
            const work = async () => {
              await begin(text)
              return run(text, params)
            }
            const step = { kind: 'statement', label: labelOf(text) } as const
            const gate = connection.gateFor(life, text, owner)
            const rows = last.then(() => steps.perform(life, step, work, faultOf, gate))
            last = rows
            return (await rows) as Row[]
          },
        }
        try {
          const result = await work(tx)
          isOver = true
          if (hasBegun) {
            const commit = async () => {
              assertThere(life)
              if (isIn(databases.conflicting, life)) throw faultOf('loses')
              await connection.commit(owner)
            }
            await steps.perform(life, { kind: 'commit', label: life.service }, commit, faultOf)
          }
          return result
        } catch (error) {
          isOver = true
          if (life.alive) {
            // Statements that were pipelined with the failed one reach the server before the rollback.
            await last.catch(() => undefined)
            await connection.rollback(owner)
          }
          throw error
        }
      }

      return {
        query,
        transaction,
        script: (text) => transaction(async (tx) => void (await tx.query(text))),
        build: never,
        notify(channel) {
          const signal = () => {
            assertThere(life)
            if (options.losesSignal(channel)) return
            for (const listener of listeners.get(channel) ?? []) listener()
          }
          return steps.perform(life, { kind: 'signal', label: channel }, signal, faultOf)
        },
        listen(channel, onNotify) {
          const hear = () => void laterIn(life, scheduler, 1, onNotify)
          const all = listeners.get(channel) ?? new Set()
          listeners.set(channel, all.add(hear))
          const end = () => void all.delete(hear)
          life.onEnd(end)
          return end
        },
        close: async () => {},
      }
    },
  }
  return databases
}

/** A transaction, identified by this object, and the life that runs it. */
interface Owner {
  readonly life: Life
}

const { lock_timeout: LOCK_TIMEOUT_MS } = SESSION_LIMITS
/** PostgreSQL interprets 0 as no limit. */
const IDLE_IN_TRANSACTION_MS =
  SESSION_LIMITS.idle_in_transaction_session_timeout || Number.POSITIVE_INFINITY

/** The connection, which a transaction holds exclusively from its begin to its commit or rollback. */
function createConnection(session: Session) {
  let holder: Owner | undefined
  /** Frozen processes that still hold locks of a transaction that was rolled back. */
  const locking = new Set<Life>()
  let waiting: (() => unknown)[] = []

  function open(): void {
    const attempts = waiting
    waiting = []
    for (const attempt of attempts) attempt()
  }

  function release(): void {
    holder = undefined
    open()
  }

  const isLocked = ({ service }: Life) => [...locking].some((life) => life.service === service)

  function assertHeldBy(owner: Owner): void {
    if (holder !== owner) throw new DatabaseError('the connection broke', 'unavailable')
  }

  return {
    /** A gate for a statement: during a transaction it is open only to the statements of that transaction. */
    gateFor(life: Life, text: string, owner?: Owner): Gate {
      const isRead = isPlainRead(text)
      return {
        isOpen: () =>
          (holder === undefined || holder === owner) &&
          (isRead || locking.size === 0 || !isLocked(life)),
        wait: (attempt) => waiting.push(attempt),
        limitMs: isRead ? Number.POSITIVE_INFINITY : LOCK_TIMEOUT_MS,
        timeout: () =>
          new DatabaseError('canceling statement due to lock timeout', 'conflict', '55P03'),
      }
    },
    holder: () => holder,
    assertHeldBy,
    async begin(owner: Owner): Promise<void> {
      holder = owner
      await session.script('begin')
    },
    async commit(owner: Owner): Promise<void> {
      assertHeldBy(owner)
      const tag = await session.script('commit')
      release()
      if (tag !== 'COMMIT') throw rolledBack()
    },
    async rollback(owner: Owner): Promise<void> {
      if (holder !== owner) return
      await session.script('rollback')
      release()
    },
    /**
     * Rolls the transaction back and keeps its locks, so that other processes of its service cannot get them.
     */
    async breakOff(owner: Owner): Promise<void> {
      locking.add(owner.life)
      await this.rollback(owner)
    },
    unlock(life: Life): void {
      if (locking.delete(life)) open()
    },
  }
}

/** Caches a function of a statement's text. Statements are constants in the code, so the cache stays small. */
function perText<Value>(of: (text: string) => Value): (text: string) => Value {
  const known = new Map<string, Value>()
  return (text) => {
    if (!known.has(text)) known.set(text, of(text))
    return known.get(text)!
  }
}

const isPlainRead = perText(
  (text) =>
    /^\s*select\b/i.test(text) &&
    !/\bfor (no key )?update\b|\bfor (key )?share\b|_lock\(/i.test(text),
)

const isAboutMigrations = perText((text) => /to_regclass|\bmigration\b/.test(text))

function faultOf(mishap: Mishap): DatabaseError {
  if (mishap === 'loses') {
    return new DatabaseError('could not serialize access', 'conflict', '40001')
  }
  return new DatabaseError(`the connection broke (${mishap})`, 'unavailable')
}

/** A short, stable label of a statement: its verbs and tables. */
const labelOf = perText((text) => {
  const verbs = text.match(
    /\b(insert into|update|delete from|from|for update)\b( (orders|billing|notification)\.\w+)?/gi,
  )
  const label = [...new Set(verbs?.filter((verb) => /\.|for update/.test(verb)))].join(', ')
  return label || text.trim().replace(/\s+/g, ' ').slice(0, 40)
})
