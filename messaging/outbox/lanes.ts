import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { LANES } from './outbox.ts'

/**
 * Shares out the lanes of an outbox among the instances of a service, by leases: a lane has one
 * relay at a time, so that a key keeps its order. A lane that another is to have is handed over when
 * nothing of it is on its way any more: what is sent late would else come after what the other sends, and
 * be the last word of a topic that keeps only that. Leases are compared by the database's clock, and each
 * holder counts its own on a clock that never jumps. Where a holder was frozen beyond its lease, two
 * relays may deliver the same rows: in the same order, and to receivers that know a message by its id.
 */
export interface Lanes {
  /** The lanes that this instance holds now. */
  held(): readonly number[]
  /** Changes whenever lanes that were held may have been another's since. */
  term(): number
  close(): Promise<void>
}

const LEASE_MS = 10_000
const RENEW_MS = 2_500

export interface LanesOptions {
  readonly database: Database
  readonly schema: string
  readonly instance: string
  readonly runtime: Runtime
  readonly log: Log
  /** True where no other process can have the database: leases of the dead end at once. */
  readonly soleProcess: boolean
  /** Where this process runs. The lease of a process that was there before ends at once, because it is gone. */
  readonly place?: string
  /** The lanes of which something is on its way. */
  readonly onItsWay: () => readonly number[]
  /** Called when lanes were gained. */
  readonly onGain: () => void
}

export function holdLanes(options: LanesOptions): Lanes {
  const { database, schema, instance, place = null, runtime, log } = options
  const closing = new AbortController()
  let lanes: readonly number[] = []
  let heldUntil = 0
  let term = 0

  const held = () => (runtime.monotonic() < heldUntil ? lanes : [])

  async function renew(isFirst: boolean): Promise<void> {
    // Counted from before the transaction begins, and so never longer than the lease in the database.
    const until = runtime.monotonic() + LEASE_MS
    const claimed = await database.transaction(async (tx) => {
      // In this order: who is there is asked under the lock of the lanes.
      const [rows, others] = await Promise.all([
        tx.query<{ lane: number; holder: string | null }>(
          `select lane, holder from ${schema}.relay_lane order by lane for update`,
        ),
        tx.query<{ id: string }>(
          `with member as (select id, until < now() or $2 or ($3 and place = $4) as is_gone
             from ${schema}.relay_member where id <> $1),
           gone as (delete from ${schema}.relay_member
             where id in (select id from member where is_gone)),
           me as (insert into ${schema}.relay_member (id, until, place)
             values ($1, now() + interval '${LEASE_MS} ms', $4)
             on conflict (id) do update set until = excluded.until)
           select id from member where is_gone is not true`,
          [instance, isFirst && options.soleProcess, isFirst, place],
        ),
      ])
      const mine = share(rows, instance, new Set(others.map(({ id }) => id)))
      const before = rows.filter(({ holder }) => holder === instance).map(({ lane }) => lane)
      // Nothing more is begun in those that go.
      const had = held()
      lanes = had.filter((lane) => mine.includes(lane))
      if (lanes.length < had.length || had.length === 0) term += 1
      const onItsWay = options.onItsWay()
      const kept = before.filter((lane) => !mine.includes(lane) && onItsWay.includes(lane))
      const holding = [...mine, ...kept].sort((a, b) => a - b)
      if (holding.join() !== before.join()) {
        await tx.query(
          `update ${schema}.relay_lane set holder = case when lane = any($2) then $1::uuid end
           where (holder = $1) is distinct from (lane = any($2)) and (holder = $1 or lane = any($2))`,
          [instance, holding],
        )
      }
      return mine
    })
    const gained = claimed.some((lane) => !lanes.includes(lane))
    lanes = claimed
    heldUntil = until
    if (gained) options.onGain()
  }

  async function loop(): Promise<void> {
    let isFirst = true
    while (!closing.signal.aborted) {
      try {
        await renew(isFirst)
        isFirst = false
      } catch (error) {
        log.warn({ err: error }, 'the lease of the relay lanes could not be renewed')
      }
      await runtime.sleep(RENEW_MS, closing.signal)
    }
  }

  const running = loop()
  return {
    held,
    term: () => term,
    async close() {
      closing.abort()
      await running
      lanes = []
      await database
        .query(`delete from ${schema}.relay_member where id = $1`, [instance])
        .catch((error) => log.debug({ err: error }, 'the lease was left to expire'))
    },
  }
}

/** The lanes that an instance keeps or takes: its own and those of the dead, up to a fair share. */
export function share(
  rows: readonly { lane: number; holder: string | null }[],
  instance: string,
  others: ReadonlySet<string>,
): number[] {
  const fair = Math.ceil(LANES / (others.size + 1))
  const own = rows.filter(({ holder }) => holder === instance)
  const free = rows.filter(
    ({ holder }) => holder !== instance && (holder === null || !others.has(holder)),
  )
  return [...own, ...free]
    .slice(0, fair)
    .map(({ lane }) => lane)
    .sort((a, b) => a - b)
}
