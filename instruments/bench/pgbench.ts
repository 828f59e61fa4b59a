import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { BY_INDEX } from '../../platform/database/database.ts'
import { locksAccount, type Recording, type Role, roleOf } from './programs/recording.ts'

/**
 * The reference of the flow benchmarks: pgbench, PostgreSQL's own benchmark, with the statements and the
 * planner settings of the services. An account and its version are read under lock and written back, as in
 * the billing service. Ids are ascending, so that they are as cheap for indexes as ours.
 */
export function pgbenchScript(recording: Recording, accounts: number): string {
  const lines = [
    '\\set order :order + 1',
    '\\set n (:client_id << 40) + :order',
    `\\set account random(1, ${accounts})`,
  ]
  for (const statements of recording.transactions) {
    lines.push('begin;')
    for (const { text, params } of statements) {
      const sql = text.replace(/\$(\d+)/g, (_, nth) => sqlOf(params[Number(nth) - 1], recording))
      lines.push(sql + (locksAccount(text) ? ' \\gset locked_' : ';'))
    }
    lines.push('commit;')
  }
  return `${lines.join('\n')}\n`
}

function sqlOf(value: unknown, recording: Recording): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return "'{}'"
    return `array[${value.map((one) => sqlOf(one, recording)).join(', ')}]`
  }
  const role = roleOf(value, recording)
  if (role) return roleSql(role)
  if (value === null || value === undefined) return 'null'
  if (value instanceof Date) return `timestamptz ${quoted(basicIso(value))}`
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  return quoted(String(value))
}

function roleSql(role: Role): string {
  switch (role.kind) {
    case 'id':
      return withSuffix(
        `('${role.place.toString(16)}' || lpad(to_hex(:n::bigint), 31, '0'))`,
        role.suffix,
      )
    case 'account':
      return withSuffix(accountSql(':account::bigint'), role.suffix)
    case 'newVersion':
      return '(:locked_version::integer + 1)'
    case 'newBalance':
      return '(:locked_balanceMinor::bigint - 6500)'
  }
}

/** The id of the n-th account, as text that PostgreSQL reads as a UUID. */
export const accountSql = (n: string) => `lpad(to_hex(${n}), 32, '0')`

const withSuffix = (sql: string, suffix: string) =>
  suffix === '' ? sql : `(${sql} || ${quoted(suffix)})`

/** Splits literals at colons, because pgbench takes a colon before a word for a variable even inside a literal. */
function quoted(text: string): string {
  const parts = text.replaceAll("'", "''").split(/(?<=:)(?=\w)/)
  const joined = parts.map((part) => `'${part}'`).join(' || ')
  return parts.length === 1 ? joined : `(${joined})`
}

/** ISO 8601 without a colon. */
const basicIso = (time: Date) => time.toISOString().replace(/[-:]/g, '')

export interface PgbenchRun {
  readonly url: string
  readonly scriptFile: string
  readonly clients: number
  readonly seconds: number
}

/** Runs pgbench in prepared mode. The rate does not include the time to connect. */
export async function runPgbench({ url, scriptFile, clients, seconds }: PgbenchRun) {
  const args = ['-n', '-M', 'prepared', '-c', String(clients), '-j', '1', '-T', String(seconds)]
  const planner = Object.entries(BY_INDEX).map(([name, value]) => `-c ${name}=${value}`)
  const child = spawn(findPgbench(), [...args, '-D', 'order=0', '-f', scriptFile, url], {
    env: { ...process.env, PGOPTIONS: planner.join(' ') },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk
    })
  }
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`pgbench exited with code ${code}: ${output.slice(-2_000)}`)
  return parsePgbench(output)
}

export interface PgbenchResult {
  readonly perSecond: number
  readonly latencyMs: number
}

/**
 * Throws if a transaction failed: pgbench does not count failed transactions, so its figures would not be
 * those of the full work.
 */
export function parsePgbench(output: string): PgbenchResult {
  const numberOf = (pattern: RegExp) => Number(pattern.exec(output)?.[1] ?? Number.NaN)
  const perSecond = numberOf(/^tps = ([\d.]+) \(without initial connection time\)/m)
  const latencyMs = numberOf(/^latency average = ([\d.]+) ms/m)
  const failed = numberOf(/^number of failed transactions: (\d+)/m) || 0
  if (!(perSecond > 0) || !(latencyMs > 0)) throw new Error(`pgbench printed no figure: ${output}`)
  if (failed > 0) throw new Error(`pgbench: ${failed} transactions failed`)
  return { perSecond, latencyMs }
}

/** Searches PATH, then the folders in which Debian installs the server, because they may not be on PATH. */
function findPgbench(): string {
  const versions = '/usr/lib/postgresql'
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter),
    ...(existsSync(versions) ? readdirSync(versions).map((v) => join(versions, v, 'bin')) : []),
  ]
  const found = folders.map((folder) => join(folder, 'pgbench')).find((file) => existsSync(file))
  if (found) return found
  throw new Error(
    'pgbench is not installed: it comes with the PostgreSQL server (Debian: postgresql)',
  )
}
