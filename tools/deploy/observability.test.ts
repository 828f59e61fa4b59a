import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { parser } from '@prometheus-io/lezer-promql'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { parse as parseYaml } from 'yaml'
import { METRICS } from '../../platform/telemetry/telemetry.ts'
import { root } from '../repository-files.ts'
import { SERVICES } from '../stack/options.ts'
import { PATHS } from '../stack/services.ts'

/**
 * Checks the dashboard, the alert rules and the scrape configuration against the metrics that the services
 * report.
 */

const folder = join(root, 'deploy', 'observability')
const read = (name: string) => readFileSync(join(folder, name), 'utf8')

interface Panel {
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } }
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[]
  readonly gridPos: Readonly<Record<'x' | 'y' | 'w' | 'h', number>>
}

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly for?: string
  readonly labels?: { readonly severity?: string }
  readonly annotations?: { readonly summary?: string; readonly description?: string }
}

const dashboard = JSON.parse(read('grafana-dashboard.json')) as { readonly panels: Panel[] }
const panels = dashboard.panels.filter(({ type }) => type !== 'row')
const { groups } = parseYaml(read('alerts.yaml')) as { groups: readonly { rules: Rule[] }[] }
const rules = groups.flatMap((group) => group.rules)

/** An expression in a panel, as Grafana sends it to Prometheus. */
const sent = (expr: string) =>
  expr.replaceAll('$__rate_interval', '1m').replaceAll('$service', '.+')

const expressions = [
  ...panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => ({ of: `panel ${title}`, text: sent(expr) })),
  ),
  ...rules.map(({ alert, expr }) => ({ of: `alert ${alert}`, text: expr })),
]

/** Labels that Prometheus and the registry of a service add to every sample. */
const EVERYWHERE = ['service', 'job', 'instance']
const known = new Map([...ownSeries(), ...(await processSeries()), ...prometheusSeries()])

describe('the dashboard', () => {
  test('has a description, a unit and legends for every panel', () => {
    assert.ok(panels.length > 20)
    for (const { title, description, fieldConfig, targets = [] } of panels) {
      assert.match(description ?? '', /^[A-Z].*\.$/, title)
      assert.ok(fieldConfig?.defaults.unit, title)
      assert.ok(targets.length > 0, title)
      for (const { legendFormat } of targets) assert.ok(legendFormat, title)
    }
  })

  test('has panels with distinct titles that do not overlap', () => {
    assert.equal(new Set(panels.map(({ title }) => title)).size, panels.length)
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, n) => `${x + (n % w)}/${y + Math.floor(n / w)}`),
    )
    assert.equal(new Set(cells).size, cells.length)
  })

  test('shows every metric', () => {
    const shown = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)).join('\n')
    const missing = Object.keys(METRICS).filter((name) => !new RegExp(`\\b${name}`).test(shown))
    assert.deepEqual(missing, [])
  })

  test('uses only labels in its legends that the series of the panel have', () => {
    for (const { title, targets = [] } of panels) {
      for (const { expr, legendFormat } of targets) {
        const { labels } = namesIn(sent(expr))
        for (const label of placeholders(legendFormat, /\{\{(\w+)\}\}/g)) {
          assert.ok(labels.has(label), `${title}: ${label}`)
        }
      }
    }
  })
})

describe('the alerts', () => {
  test('have a severity, a duration, a summary and a description', () => {
    for (const { alert, labels, annotations, ...rule } of rules) {
      assert.match(alert, /^Trifold[A-Z][A-Za-z]+$/)
      assert.match(labels?.severity ?? '', /^(warning|critical)$/, alert)
      assert.match(rule.for ?? '', /^\d+m$/, alert)
      assert.ok(annotations?.summary, alert)
      assert.match(annotations?.description ?? '', /^.{40,}\.$/, alert)
    }
    assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length)
  })

  test('use only labels that the results of their expressions have', () => {
    for (const { alert, expr, annotations } of rules) {
      const { metrics, labels } = namesIn(expr)
      for (const metric of metrics) for (const label of known.get(metric) ?? []) labels.add(label)
      const text = `${annotations?.summary} ${annotations?.description}`
      for (const label of placeholders(text, /\$labels\.(\w+)/g)) {
        assert.ok(labels.has(label), `${alert}: ${label}`)
      }
    }
  })

  test('are each tested firing and not firing by alerts.test.yaml', () => {
    const { tests } = parseYaml(read('alerts.test.yaml')) as {
      tests: { name: string; promql_expr_test: { exp_samples: { labels: string }[] }[] }[]
    }
    const firing = tests.map(({ name, promql_expr_test: [before, after, ...more] }) => {
      assert.deepEqual([before?.exp_samples, more], [[], []], name)
      return after?.exp_samples.map(({ labels }) => /"(\w+)"/.exec(labels)?.[1])
    })
    assert.deepEqual(
      firing.flat(),
      rules.map(({ alert }) => alert),
    )
  })
})

describe('every expression', () => {
  test('is PromQL', () => {
    for (const { of, text } of expressions) assert.deepEqual(syntaxErrors(text), [], of)
    assert.notDeepEqual(syntaxErrors('sum by (x) (rate(a[1m])'), [])
  })

  test('uses only series that are reported and labels that they have', () => {
    for (const { of, text } of expressions) {
      const { metrics, matched, labels } = namesIn(text)
      for (const metric of metrics) assert.ok(known.has(metric), `${of}: ${metric}`)
      for (const { metric, label } of matched) {
        assert.ok(known.get(metric)?.has(label), `${of}: ${label} of ${metric}`)
      }
      const own = new Set(metrics.flatMap((metric) => [...(known.get(metric) ?? [])]))
      for (const label of labels) assert.ok(own.has(label), `${of}: ${label}`)
    }
  })
})

describe('the scrape configuration', () => {
  test("scrapes each service's metrics, and loads the alerts", () => {
    const { scrape_configs, rule_files } = parseYaml(read('prometheus.yaml')) as {
      scrape_configs: { job_name: string; metrics_path: string }[]
      rule_files: string[]
    }
    assert.deepEqual(rule_files, ['alerts.yaml'])
    assert.deepEqual(
      scrape_configs.map(({ job_name, metrics_path }) => [job_name, metrics_path]),
      SERVICES.map((service) => [`trifold-${service}`, `/${PATHS[service]}/actuator/prometheus`]),
    )
  })
})

const hasPromtool = spawnSync('promtool', ['--version']).error === undefined
const without = hasPromtool ? false : 'promtool, of the package prometheus, is not installed'

describe('promtool', { skip: without }, () => {
  const commands = [
    'check config prometheus.yaml',
    'check rules alerts.yaml',
    'test rules alerts.test.yaml',
  ]
  for (const command of commands) {
    test(command, () => {
      const { status, stdout, stderr } = spawnSync('promtool', command.split(' '), {
        cwd: folder,
        encoding: 'utf8',
      })
      assert.equal(status, 0, stdout + stderr)
    })
  }
})

/** The name and labels of a series as which a metric is scraped. */
type Series = [name: string, labels: ReadonlySet<string>]

function seriesOf(name: string, type: string, labels: readonly string[]): Series[] {
  const all = [...labels, ...EVERYWHERE]
  if (type !== 'histogram') return [[name, new Set(all)]]
  return [
    [`${name}_bucket`, new Set([...all, 'le'])],
    [`${name}_sum`, new Set(all)],
    [`${name}_count`, new Set(all)],
  ]
}

function ownSeries(): Series[] {
  return Object.entries(METRICS).flatMap(([name, { type, labels }]) => seriesOf(name, type, labels))
}

/** The series that describe the process itself. */
async function processSeries(): Promise<Series[]> {
  const register = new Registry()
  collectDefaultMetrics({ register })
  const metrics = await register.getMetricsAsJSON()
  return metrics.flatMap(({ name, type, values }) =>
    seriesOf(name, String(type), [...new Set(values.flatMap(({ labels }) => Object.keys(labels)))]),
  )
}

function prometheusSeries(): Series[] {
  return [['up', new Set(['job', 'instance'])]]
}

interface Names {
  readonly metrics: string[]
  /** The labels that select series. */
  readonly matched: { readonly metric: string; readonly label: string }[]
  /** The labels that group results. */
  readonly labels: Set<string>
}

function namesIn(expr: string): Names {
  const names: Names = { metrics: [], matched: [], labels: new Set() }
  parser.parse(expr).iterate({
    enter({ name, from, to, node }) {
      const text = expr.slice(from, to)
      if (name === 'Identifier') names.metrics.push(text)
      if (name !== 'LabelName') return
      if (node.parent?.name === 'GroupingLabels') names.labels.add(text)
      else names.matched.push({ metric: names.metrics.at(-1)!, label: text })
    },
  })
  return names
}

function syntaxErrors(expr: string): string[] {
  const errors: string[] = []
  parser.parse(expr).iterate({
    enter({ type, from }) {
      if (type.isError) errors.push(`${expr.slice(0, from)} <- here`)
    },
  })
  return errors
}

const placeholders = (text: string, pattern: RegExp) =>
  [...text.matchAll(pattern)].map(([, label]) => label as string)
