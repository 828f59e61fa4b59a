import type { Migration } from '../../platform/database/migrate.ts'

interface Rule {
  readonly forbids: RegExp
  /**
   * Whether the statement is allowed on tables that the same migration creates, which no other version uses
   * yet.
   */
  readonly isAllowedOnNewTables: boolean
  readonly advice: string
}

/** Retention keeps these tables small, so building an index on them takes only an instant. */
const SMALL_TABLES = ['dead_letter']

const TABLE = String.raw`(?:only )?(?:\w+\.)?(?<table>\w+)`
const VOLATILE = String.raw`(?:default\s+(?:gen_random_uuid|random|clock_timestamp|nextval)|\b(?:big|small)?serial\b|generated)`

/** Statements that would block the running version, rewrite a large table, or remove something that it reads. */
const RULES: readonly Rule[] = [
  {
    forbids: new RegExp(String.raw`create (?:unique )?index (?:\w+ )?on ${TABLE}`),
    isAllowedOnNewTables: true,
    advice: 'build an index on an existing table with `index`, which does not block writers',
  },
  {
    forbids: new RegExp(String.raw`alter table ${TABLE}\b[^;]*\badd (?:column )?[^;]*${VOLATILE}`),
    isAllowedOnNewTables: true,
    advice:
      'a default that differs from row to row rewrites the table: add the column without a default',
  },
  {
    forbids: new RegExp(
      String.raw`alter table ${TABLE}\b[^;]*\balter (?:column )?\w+ (?:set data )?type\b`,
    ),
    isAllowedOnNewTables: true,
    advice:
      'a new type rewrites the table, and the previous version reads the old one: add a column',
  },
  {
    forbids: new RegExp(String.raw`alter table ${TABLE}\b[^;]*\bset not null\b`),
    isAllowedOnNewTables: true,
    advice:
      'this scans the table under an exclusive lock: add a check constraint that is not valid, then validate it',
  },
  {
    forbids: new RegExp(String.raw`\b(?:update|delete from) ${TABLE}\b(?! set data)`),
    isAllowedOnNewTables: true,
    advice: 'change rows in batches in the service, not in a migration',
  },
  {
    forbids: /\bdrop (?:table|column|schema)\b|\brename\b/,
    isAllowedOnNewTables: false,
    advice: 'the previous version still uses what this removes: remove it one release later',
  },
]

/** One sentence for each rule that a migration breaks. */
export function brokenRules({ id, name, sql = '' }: Migration): string[] {
  const text = sql.replaceAll(/--.*$/gm, ' ').replaceAll(/\s+/g, ' ').toLowerCase()
  const created = [...text.matchAll(/create table (?:if not exists )?(?:\w+\.)?(\w+)/g)]
  const exempt = new Set([...SMALL_TABLES, ...created.map(([, table]) => table!)])
  return RULES.flatMap(({ forbids, isAllowedOnNewTables, advice }) => {
    const found = [...text.matchAll(new RegExp(forbids, 'g'))]
    const isBroken = found.some(
      ({ groups }) => !isAllowedOnNewTables || !exempt.has(groups?.table ?? ''),
    )
    return isBroken ? [`migration ${id} (${name}): ${advice}`] : []
  })
}
