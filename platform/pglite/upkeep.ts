import type { Session } from './session.ts'

/** Replaying this much log after a crash takes about a second. */
const checkpointAfterBytes = 32n * 1024n * 1024n

/**
 * What PostgreSQL's background processes do and PGlite, which has none, leaves undone. Without
 * checkpoints its log grows until it is closed; without vacuum a table grows with all rows that it
 * ever had; without analyze a kept statement keeps the plan that suited an empty table.
 *
 * One step: at most one checkpoint and one table, because everybody waits meanwhile.
 */
export async function upkeep(session: Session): Promise<void> {
  const [log] = (await session.run(selectLogSize)).rows as { bytes: bigint }[]
  if (log && log.bytes > checkpointAfterBytes) await session.script('checkpoint')
  const [table] = (await session.run(selectNeediestTable)).rows as { name: string }[]
  if (table) await session.script(`vacuum (analyze) ${table.name}`)
}

/** Has the counts of dead rows, which PostgreSQL holds back for a while, ready for what follows. */
const selectLogSize = `
  select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint as bytes,
    pg_stat_force_next_flush()
  from pg_control_checkpoint()`

/** Thresholds in the manner of autovacuum: a share of the table over a floor. */
const selectNeediestTable = `
  select format('%I.%I', schemaname, relname) as name
  from pg_stat_all_tables
  where schemaname <> 'pg_toast'
    and (n_dead_tup > 500 + 0.2 * n_live_tup
      or n_mod_since_analyze > 250 + 0.1 * n_live_tup
      or n_ins_since_vacuum > 5000 + 0.2 * n_live_tup)
  order by n_dead_tup desc, n_mod_since_analyze desc
  limit 1`
