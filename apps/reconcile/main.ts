import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import Type from 'typebox'
import { toUnits } from '../../contracts/money.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { openPglite } from '../../platform/pglite/pglite.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { readConfig } from '../../platform/process/config.ts'
import { environment } from '../../platform/process/process.ts'
import { notificationConfig } from '../../services/notification/config.ts'
import { orderConfig } from '../../services/order/config.ts'
import {
  type Difference,
  KINDS,
  type Kind,
  type Result,
  SERVICES,
  type Service,
} from './differences.ts'
import { reconcile } from './reconcile.ts'

const HELP = `
npm run reconcile -- [--data DIR | --orders URL --billing URL --notification URL]
                     [--restored SERVICE] [--since TIME] [--apply] [--json FILE]

Compares the databases of the three services after one of them was restored to an earlier time, and lists
every difference. With --apply it makes the repairs that are possible, with the services' own commands.

  --data DIR           the data folder of a stopped program; DATA_DIR or "data" by default
  --orders URL, --billing URL, --notification URL
                       the PostgreSQL databases of the three services, running or not
  --restored SERVICE   orders, billing or notification: the database that was restored; only differences
                       that its restore explains are listed and repaired
  --since TIME         skip rows that last changed before this time, such as 2026-11-30T08:00:00Z; use a time
                       one hour before the time to which the database was restored
  --apply              repair the differences
  --json FILE          write each difference as a line of JSON to a new file
  --help               print this text

Exit code: 0 nothing differs or everything was repaired, 1 differences remain, 2 wrong usage or a database
cannot be read.
`

const STATEMENT_TIMEOUT_MS = 600_000
/** How many differences of each kind are printed. --json writes all of them. */
const MAX_LINES = 20

class UsageError extends Error {}

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`reconcile: ${error.message}\n`)
  if (error instanceof UsageError) process.stderr.write(HELP)
  return 2
})

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args)
  if (options.help) {
    process.stdout.write(HELP)
    return 0
  }
  const config = readConfig(Type.Object({ ...orderConfig, ...notificationConfig }), environment())
  const { close, ...databases } = await openDatabases(options)
  const json = options.json === undefined ? undefined : openSync(options.json, 'wx')
  const summary = createSummary()
  try {
    await reconcile({
      ...databases,
      ...options,
      runtime: systemRuntime,
      resendAfterMs: config.RESEND_AFTER_MS,
      deadlineMs: config.ORDER_DEADLINE_MS,
      lettersPerHour: config.LETTERS_PER_HOUR,
      report(difference, result) {
        summary.add(difference, result)
        if (json !== undefined) writeSync(json, `${jsonOf(difference, result)}\n`)
      },
    })
  } finally {
    if (json !== undefined) closeSync(json)
    await close()
  }
  process.stdout.write(summary.text(options.apply))
  return summary.remaining() === 0 ? 0 : 1
}

function readOptions(args: readonly string[]) {
  const { data, orders, billing, notification, since, restored, json, ...flags } = parse(args)
  const urls = [orders, billing, notification].filter((url) => url !== undefined)
  if (data !== undefined && urls.length > 0) {
    throw new UsageError('use --data or the URLs of databases, not both')
  }
  if (urls.length % 3 !== 0) {
    throw new UsageError('--orders, --billing and --notification must be used together')
  }
  if (restored !== undefined && !isService(restored)) {
    throw new UsageError(`--restored must be one of ${SERVICES.join(', ')}`)
  }
  const time = since === undefined ? null : new Date(since)
  if (time !== null && Number.isNaN(time.getTime())) {
    throw new UsageError(`--since must be a time, such as 2026-11-30T08:00:00Z, not ${since}`)
  }
  const { apply = false, help = false } = flags
  return { data, urls, ...(restored && { restored }), since: time, json, apply, help }
}

function isService(name: string): name is Service {
  return SERVICES.some((service) => service === name)
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const options = {
    data: text,
    orders: text,
    billing: text,
    notification: text,
    restored: text,
    since: text,
    json: text,
    apply: flag,
    help: flag,
  }
  try {
    return parseArgs({ args: [...args], options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

interface Opened {
  readonly databases: Readonly<Record<Service, Database>>
  readonly bus?: Database
  readonly close: () => Promise<void>
}

async function openDatabases({ data, urls }: ReturnType<typeof readOptions>): Promise<Opened> {
  if (urls.length === 0) return openFolder(data ?? (environment().DATA_DIR || 'data'))
  const open = (url: string) =>
    openPostgres({ url, statementTimeoutMs: STATEMENT_TIMEOUT_MS, readsWholeTables: true })
  const [orders, billing, notification] = (await Promise.all(urls.map(open))) as [
    Database,
    Database,
    Database,
  ]
  return {
    databases: { orders, billing, notification },
    async close() {
      await Promise.all([orders.close(), billing.close(), notification.close()])
    },
  }
}

/** Opens the one database that has the schemas of all services and of the bus. */
async function openFolder(folder: string): Promise<Opened> {
  const databaseFolder = join(folder, 'database')
  if (!existsSync(join(databaseFolder, 'pgdata', 'PG_VERSION'))) {
    throw new Error(`${folder} is not a data folder: it contains no database`)
  }
  const database = await openPglite({ folder: databaseFolder })
  return {
    databases: { orders: database, billing: database, notification: database },
    bus: database,
    close: () => database.close(),
  }
}

type Reported = readonly [difference: Difference, result: Result]

function createSummary() {
  const counts = new Map<Kind, number>()
  const kept = new Map<Kind, Reported[]>()
  let remaining = 0
  return {
    add(difference: Difference, result: Result): void {
      const { kind } = difference
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
      if (result.kind !== 'repaired') remaining += 1
      const some = kept.get(kind) ?? []
      if (some.length < MAX_LINES) kept.set(kind, [...some, [difference, result]])
    },
    remaining: () => remaining,
    text(isApplied: boolean): string {
      const parts = [...counts].map(([kind, count]) => section(kind, count, kept.get(kind)!))
      if (parts.length === 0) return 'Nothing differs.\n'
      const all = [...counts.values()].reduce((sum, count) => sum + count)
      const found = `Differences: ${all}`
      const repaired = `, repaired: ${all - remaining}, remaining: ${remaining}`
      const hint = '. Nothing was changed; --apply repairs them.'
      return `${parts.join('\n')}\n${found}${isApplied ? `${repaired}.` : hint}\n`
    },
  }
}

function section(kind: Kind, count: number, some: readonly Reported[]): string {
  const { found, repair } = KINDS[kind]
  const lines = some.map(([difference, result]) => `  ${lineOf(difference, result)}\n`)
  const more = count > some.length ? `  ... and ${count - some.length} more\n` : ''
  const action = repair === null ? 'cannot be repaired' : `--apply: ${repair}`
  return `${kind}  ${count} ${found} (${action})\n${lines.join('')}${more}`
}

function lineOf({ id, accountId, amountMinor, detail }: Difference, result: Result): string {
  const parts = [id]
  if (accountId !== null && accountId !== id) parts.push(`account ${accountId}`)
  if (amountMinor !== undefined) parts.push(String(toUnits(amountMinor)))
  if (detail) parts.push(detail)
  if (result.kind === 'repaired') parts.push('repaired')
  if (result.kind === 'failed') parts.push(`NOT REPAIRED: ${result.why}`)
  return parts.join('  ')
}

function jsonOf({ amountMinor, ...difference }: Difference, result: Result): string {
  const { kind: outcome, ...why } = result
  const amount = amountMinor === undefined ? {} : { amount: toUnits(amountMinor) }
  return JSON.stringify({ ...difference, ...amount, result: outcome, ...why })
}
