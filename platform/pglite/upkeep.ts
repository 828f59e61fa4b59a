import type { Session } from './session.ts'

/**
 * A checkpoint runs when the write-ahead log has grown by this many bytes. Replaying them after a crash takes
 * about a second.
 */
const CHECKPOINT_AFTER_BYTES = 32n * 1024n * 1024n

/**
 * Does the work of PostgreSQL's background processes, which PGlite does not have. Without checkpoints, the
 * write-ahead log would grow until the database is closed. Without vacuum, a table would grow with every row
 * ever inserted. Without analyze, a prepared statement would keep a plan that was made for an empty table.
 *
 * One call runs at most one checkpoint and vacuums at most one table, because all other work waits for it.
 */
export async function upkeep(session: Session): Promise<void> {
  const [log] = (await session.run(selectLogSize)).rows as { bytes: bigint }[]
  if (log && log.bytes > CHECKPOINT_AFTER_BYTES) await session.script('checkpoint')
  const [table] = (await session.run(selectNeediestTable)).rows as { name: string }[]
  if (table) await session.script(`vacuum (analyze) ${table.name}`)
}

/**
 * This query also makes PostgreSQL publish its counts of dead rows, which it delays by default, so that the
 * next query sees them.
 */
const selectLogSize = `
  select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint as bytes,
    pg_stat_force_next_flush()
  from pg_control_checkpoint()`

/** The thresholds are calculated as in autovacuum: a share of the table plus a minimum. */
const selectNeediestTable = `
  select format('%I.%I', schemaname, relname) as name
  from pg_stat_all_tables
  where schemaname <> 'pg_toast'
    and (n_dead_tup > 500 + 0.2 * n_live_tup
      or n_mod_since_analyze > 250 + 0.1 * n_live_tup
      or n_ins_since_vacuum > 5000 + 0.2 * n_live_tup)
  order by n_dead_tup desc, n_mod_since_analyze desc
  limit 1`
