import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Database, databaseTime } from '../../platform/database/database.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { environment } from '../../platform/process/process.ts'
import {
  type AuditInput,
  type Checked,
  INVARIANTS,
  type Invariant,
  MAX_VIOLATIONS_EACH,
  type Violation,
} from './findings.ts'
import { audit } from './invariants.ts'
import { lettersIn } from './maildir.ts'

const HELP = `
npm run audit -- [--data DIR | --orders URL --billing URL --notification URL] [--settled]

Checks all invariants in the databases of the three services, whether these are in a stopped program or running.

  --data DIR          the data folder of a stopped program; DATA_DIR or "data" by default
  --orders URL, --billing URL, --notification URL
                      the PostgreSQL databases of the three services, running or not
  --settled           also check that all work is finished; use it when requests and faults have stopped
                      and the services have had time to finish
  --help              print this text

Exit code: 0 all invariants hold, 1 some invariants are violated, 2 wrong usage or an unreadable database.
`

const MAX_LINES = 100
const STATEMENT_TIMEOUT_MS = 600_000

/** A mistake in the options, which the user can correct. Any other error is a fault. */
class UsageError extends Error {}

type Opened = Omit<AuditInput, 'now' | 'settled'> & { readonly close: () => Promise<void> }

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`audit: ${error.message}\n`)
  if (error instanceof UsageError) process.stderr.write(HELP)
  return 2
})

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args)
  if (options.help) {
    process.stdout.write(HELP)
    return 0
  }
  const { close, ...input } = await openDatabases(options)
  try {
    const checks = new Map<Invariant, Map<string, number>>()
    const checked: Checked = (invariant, count, what) => {
      const counts = checks.get(invariant) ?? new Map<string, number>()
      checks.set(invariant, counts.set(what, (counts.get(what) ?? 0) + count))
    }
    const { settled } = options
    const now = await databaseTime(input.orders)
    const violations = await audit({ ...input, now, settled }, checked)
    process.stdout.write(report(violations, checks, settled))
    return violations.length === 0 ? 0 : 1
  } finally {
    await close()
  }
}

interface Options {
  readonly help: boolean
  readonly settled: boolean
  readonly data: string | undefined
  readonly urls: readonly [orders: string, billing: string, notification: string] | undefined
}

function readOptions(args: readonly string[]): Options {
  const { data, orders, billing, notification, help = false, settled = false } = parse(args)
  const given = [orders, billing, notification].filter((url) => url !== undefined)
  if (data !== undefined && given.length > 0) {
    throw new UsageError('use --data or the URLs of databases, not both')
  }
  if (!orders || !billing || !notification) {
    if (given.length > 0)
      throw new UsageError('--orders, --billing and --notification must be used together')
    return { help, settled, data, urls: undefined }
  }
  return { help, settled, data, urls: [orders, billing, notification] }
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const options = {
    data: text,
    orders: text,
    billing: text,
    notification: text,
    settled: flag,
    help: flag,
  }
  try {
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

async function openDatabases({ data, urls }: Options): Promise<Opened> {
  const { DATA_DIR, MAILDIR } = environment()
  if (urls === undefined) return openFolder(data ?? (DATA_DIR || 'data'), MAILDIR)
  const open = (url: string) =>
    openPostgres({ url, statementTimeoutMs: STATEMENT_TIMEOUT_MS, readsWholeTables: true })
  const [orders, billing, notification] = await Promise.all(urls.map(open))
  return {
    orders: orders as Database,
    billing: billing as Database,
    notification: notification as Database,
    close: async () => {
      await Promise.all([orders?.close(), billing?.close(), notification?.close()])
    },
  }
}

/**
 * Opens the one database that has all schemas. If the program crashed, opening its database recovers it, just
 * as starting the program would.
 */
async function openFolder(folder: string, maildir: string | undefined): Promise<Opened> {
  const databaseFolder = join(folder, 'database')
  if (!existsSync(join(databaseFolder, 'pgdata', 'PG_VERSION'))) {
    throw new Error(`${folder} is not a data folder: it contains no database`)
  }
  const database = await openPglite({ folder: databaseFolder })
  const close = () => database.close()
  try {
    const letters = await lettersIn(maildir || join(folder, 'mail'))
    return {
      orders: database,
      billing: database,
      notification: database,
      bus: database,
      letters,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

function report(
  violations: readonly Violation[],
  checks: ReadonlyMap<Invariant, ReadonlyMap<string, number>>,
  settled: boolean,
): string {
  const atLeast = (found: number) =>
    found >= MAX_VIOLATIONS_EACH ? `${found} or more` : `${found}`
  const table = (Object.keys(INVARIANTS) as Invariant[]).map((invariant) => {
    const found = violations.filter((violation) => violation.invariant === invariant).length
    const counts = [...(checks.get(invariant) ?? [])].map(([what, count]) => `${count} ${what}`)
    const result = found > 0 ? atLeast(found) : counts.length > 0 ? 'ok' : '-'
    const extent = counts.length > 0 ? ` (${counts.join(', ')})` : ''
    return `${invariant}  ${result.padEnd(12)}  ${INVARIANTS[invariant]}${extent}`
  })
  const lines = violations
    .slice(0, MAX_LINES)
    .map(({ invariant, subject, sentence }) => `${invariant}  ${subject} ${sentence}`)
  const more = violations.length - lines.length
  if (more > 0) lines.push(`... and ${more} more`)
  const mode = settled
    ? 'all work must be finished'
    : 'work may be in flight; --settled also checks that it is finished'
  const verdict =
    violations.length === 0 ? 'No violations' : `Violations: ${atLeast(violations.length)}`
  return `${[...table, '', ...lines, `${verdict} (${mode}).`].join('\n')}\n`
}
