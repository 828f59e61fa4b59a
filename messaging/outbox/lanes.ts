import type { Log, Runtime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { LANES } from './outbox.ts'
import { LEASE_MS, RENEW_MS } from './timing.ts'

/**
 * Divides the lanes of an outbox among the instances of a service. One relay at a time holds the lease of a
 * lane, which keeps the order of each key. A lane that moves to another instance is handed over only when
 * none of its rows is in flight. Otherwise a late row could arrive after newer rows that the other instance
 * sends, and a compacted topic would keep the late row.
 *
 * Whether a lease has expired is decided by the database's clock. The holder measures its own lease with a
 * monotonic clock. If a holder was frozen for longer than its lease, two relays can send the same rows, in
 * the same order, and receivers deduplicate them by event id.
 */
export interface Lanes {
  /** The lanes that this instance holds now; empty once its lease has expired. */
  held(): readonly number[]
  /** Changes whenever another instance may have held one of our lanes since the last value. */
  epoch(): number
  close(): Promise<void>
}

export interface LanesOptions {
  readonly database: Database
  readonly schema: string
  readonly instance: string
  readonly runtime: Runtime
  readonly log: Log
  /** True if no other process can use the database. Leases left by earlier processes then end at once. */
  readonly soleProcess: boolean
  /**
   * Where this process runs. Only one process at a time can run there, so a lease from the same place belongs
   * to a predecessor that is gone, and ends at once.
   */
  readonly place?: string
  /** The lanes that have rows in flight. */
  readonly lanesInFlight: () => readonly number[]
  /** Called when this instance has gained lanes. */
  readonly onGain: () => void
}

export function holdLanes(options: LanesOptions): Lanes {
  const { database, schema, instance, place = null, runtime, log } = options
  const closing = new AbortController()
  let lanes: readonly number[] = []
  let heldUntil = 0
  let epoch = 0

  const held = () => (runtime.monotonic() < heldUntil ? lanes : [])

  async function renew(isFirst: boolean): Promise<void> {
    // Measured from before the transaction begins, so it never ends later than the lease in the database.
    const until = runtime.monotonic() + LEASE_MS
    const claimed = await database.transaction(async (tx) => {
      // The order matters: the members are read while the rows of the lanes are locked.
      const [rows, others] = await Promise.all([
        tx.query<{ lane: number; holder: string | null }>(
          `select lane, holder from ${schema}.relay_lane order by lane for update`,
        ),
        tx.query<{ id: string }>(
          `with member as (select id, until < now() or $2 or ($3 and place = $4) as is_gone
             from ${schema}.relay_member where id <> $1),
           deleted as (delete from ${schema}.relay_member
             where id in (select id from member where is_gone)),
           self as (insert into ${schema}.relay_member (id, until, place)
             values ($1, now() + interval '${LEASE_MS} ms', $4)
             on conflict (id) do update set until = excluded.until)
           select id from member where is_gone is not true`,
          [instance, isFirst && options.soleProcess, isFirst, place],
        ),
      ])
      const ours = share(rows, instance, new Set(others.map(({ id }) => id)))
      const before = rows.filter(({ holder }) => holder === instance).map(({ lane }) => lane)
      // Stop sending from lanes that this instance gives up. Those with rows in flight stay ours in the
      // database until a later renewal.
      const heldUntilNow = held()
      lanes = heldUntilNow.filter((lane) => ours.includes(lane))
      if (lanes.length < heldUntilNow.length || heldUntilNow.length === 0) epoch += 1
      const inFlight = options.lanesInFlight()
      const kept = before.filter((lane) => !ours.includes(lane) && inFlight.includes(lane))
      const holding = [...ours, ...kept].sort((a, b) => a - b)
      if (holding.join() !== before.join()) {
        await tx.query(
          `update ${schema}.relay_lane set holder = case when lane = any($2) then $1::uuid end
           where (holder = $1) is distinct from (lane = any($2)) and (holder = $1 or lane = any($2))`,
          [instance, holding],
        )
      }
      return ours
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
        log.warn({ err: error }, 'renewing the lease of the relay lanes failed')
      }
      await runtime.sleep(RENEW_MS, closing.signal)
    }
  }

  const running = loop()
  return {
    held,
    epoch: () => epoch,
    async close() {
      closing.abort()
      await running
      lanes = []
      await database
        .query(`delete from ${schema}.relay_member where id = $1`, [instance])
        .catch((error) => log.debug({ err: error }, 'deleting the lease failed; it will expire'))
    },
  }
}

/**
 * The lanes that an instance keeps or takes over, up to its fair share: first its own, then those that no live
 * instance holds. `others` are the ids of the other live instances.
 */
export function share(
  rows: readonly { lane: number; holder: string | null }[],
  instance: string,
  others: ReadonlySet<string>,
): number[] {
  const fairShare = Math.ceil(LANES / (others.size + 1))
  const own = rows.filter(({ holder }) => holder === instance)
  const free = rows.filter(
    ({ holder }) => holder !== instance && (holder === null || !others.has(holder)),
  )
  return [...own, ...free]
    .slice(0, fairShare)
    .map(({ lane }) => lane)
    .sort((a, b) => a - b)
}
