import type { InteractionStyle } from '../../contracts/style.ts'
import { STYLES } from '../../contracts/style.ts'
import { SERVICES } from '../simulation/world/lives.ts'
import type { Crash } from './matrix.ts'
import { SCENARIOS, type ScenarioName } from './scenarios.ts'
import type { SeamMember, Sites } from './sites.ts'

/** The names of the seam members in the report. */
const KINDS: Readonly<Record<SeamMember, string>> = {
  call: 'call',
  transaction: 'commit',
  query: 'statement',
  send: 'send',
  take: 'take',
  commit: 'offsets',
  letter: 'letter',
  notify: 'signal',
  subscribe: 'subscribe',
  ping: 'ping',
  lag: 'lag',
  script: 'script',
}

const KIND_ORDER = Object.values(KINDS)

/** One boundary of one service, with all crashes at it. */
export interface Row {
  readonly service: string
  readonly kind: string
  /** The function that crosses the boundary; for a commit, the function that does the transaction's work. */
  readonly name: string
  readonly phase: string
  readonly crashes: readonly Crash[]
}

export function rowsOf(crashes: readonly Crash[], sites: Sites): Row[] {
  const groups = Map.groupBy(crashes, ({ crossing }) => {
    const { service, member, place, of, phase } = crossing
    const kind = KINDS[member]
    const name = of ?? nameOfPlace(sites.get(service)?.get(place)?.name ?? place)
    return JSON.stringify([service, kind, name, phase])
  })
  const rows = [...groups].map(([key, of]): Row => {
    const [service, kind, name, phase] = JSON.parse(key) as [string, string, string, string]
    return { service, kind, name, phase, crashes: of }
  })
  const place = ({ service, kind, name, phase }: Row) => [
    (SERVICES as readonly string[]).indexOf(service),
    KIND_ORDER.indexOf(kind),
    name,
    ['before', 'in flight', 'after'].indexOf(phase),
  ]
  return rows.sort((a, b) => compare(place(a), place(b)))
}

function compare(a: readonly (number | string)[], b: readonly (number | string)[]): number {
  const at = a.findIndex((value, index) => value !== b[index])
  return at < 0 ? 0 : a[at]! < b[at]! ? -1 : 1
}

/** A short name of a site: `messaging/outbox/outbox.ts createOutbox enqueue query 2` becomes `outbox enqueue 2`. */
function nameOfPlace(name: string): string {
  const [file = '', ...rest] = name.split(' ')
  const own = rest.filter((word) => !/^create|^start/.test(word) && !(word in KINDS))
  return `${file.replace(/^.*\/|\.ts$/g, '')} ${own.join(' ')}`
}

const LABEL = 54
const NUMBER = 7

/** The number of crashes per boundary, scenario and style; the number after `!` had violations. */
export function tableOf(rows: readonly Row[], scenarios: readonly ScenarioName[]): string {
  const columns = scenarios.flatMap((scenario) => STYLES.map((style) => ({ scenario, style })))
  const width = NUMBER * STYLES.length
  const lines = [
    ' '.repeat(LABEL) + scenarios.map((name) => ` ${name}`.padEnd(width)).join(''),
    ' '.repeat(LABEL) + columns.map(({ style }) => style.padStart(NUMBER)).join(''),
  ]
  let service = ''
  for (const row of rows) {
    if (row.service !== service) lines.push(row.service)
    service = row.service
    const label = `  ${row.phase.padEnd(9)} ${row.kind.padEnd(9)} ${row.name}`
    const cells = columns.map((column) => cellOf(row, column).padStart(NUMBER))
    lines.push(label.slice(0, LABEL - 1).padEnd(LABEL) + cells.join(''))
  }
  return `${lines.join('\n')}\n`
}

interface Column {
  readonly scenario: ScenarioName
  readonly style: InteractionStyle
}

const isIn = ({ run }: Crash, { scenario, style }: Column) =>
  run.scenario === scenario && run.style === style

function cellOf(row: Row, column: Column): string {
  const own = row.crashes.filter((crash) => isIn(crash, column))
  if (own.length === 0) return '-'
  const harmful = own.filter(({ violations }) => violations.length > 0).length
  return harmful === 0 ? String(own.length) : `${own.length}!${harmful}`
}

/** The final states of the orders in each scenario and style, counted over all crashes. */
export function outcomesOf(crashes: readonly Crash[]): string {
  const lines = (Object.keys(SCENARIOS) as ScenarioName[]).flatMap((scenario) =>
    STYLES.flatMap((style) => {
      const own = crashes.filter((crash) => isIn(crash, { scenario, style }))
      if (own.length === 0) return []
      const counts = [...Map.groupBy(own, ({ finalStates }) => finalStates.join(' + ') || 'booked')]
        .sort(([, a], [, b]) => b.length - a.length)
        .map(([states, of]) => `${states} ${of.length}`)
      const name = `${scenario}, ${style}`.padEnd(24)
      return [`  ${name}${String(own.length).padStart(5)} crashes: ${counts.join('; ')}`]
    }),
  )
  return `${lines.join('\n')}\n`
}
