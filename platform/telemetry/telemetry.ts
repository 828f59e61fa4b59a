import { pino } from 'pino'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { droppedLogLines, logOutput } from './log-output.ts'
import { redact } from './redact.ts'

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
const LONG_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]
const SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]

/** All metrics of the services. The table of metrics in the documents is generated from this one. */
export const METRICS = {
  trifold_http_requests_total: {
    type: 'counter',
    help: 'HTTP requests that got a response, by route pattern.',
    labels: ['method', 'route', 'status'],
  },
  trifold_http_request_seconds: {
    type: 'histogram',
    help: 'Time from a request to its response.',
    labels: ['method', 'route'],
    buckets: SECONDS,
  },
  trifold_orders_total: {
    type: 'counter',
    help: 'Orders that were approved or canceled; the label reason is empty if there is no reason.',
    labels: ['style', 'state', 'reason'],
  },
  trifold_order_settle_seconds: {
    type: 'histogram',
    help: 'Time from the creation of an order to its final state.',
    labels: ['style'],
    buckets: LONG_SECONDS,
  },
  trifold_orders_stuck: {
    type: 'gauge',
    help: 'Canceled orders whose void the billing service has not confirmed after VOID_ATTEMPTS attempts.',
    labels: [],
  },
  trifold_orders_pending: {
    type: 'gauge',
    help: 'Orders that are PENDING now.',
    labels: ['style'],
  },
  trifold_orders_pending_oldest_seconds: {
    type: 'gauge',
    help: 'Age of the oldest PENDING order.',
    labels: ['style'],
  },
  trifold_asked_again_total: {
    type: 'counter',
    help: 'Requests to the billing service, for orders and deposits, that were resent.',
    labels: ['style'],
  },
  trifold_request_batch_size: {
    type: 'histogram',
    help: 'Concurrent requests that shared one transaction.',
    labels: [],
    buckets: SIZES,
  },
  trifold_requests_refused_total: {
    type: 'counter',
    help: 'Requests that were rejected because too many were waiting.',
    labels: [],
  },
  trifold_http_client_seconds: {
    type: 'histogram',
    help: 'Duration of a call to another service; outcome: the status class, such as 2xx, or none without a response.',
    labels: ['target', 'outcome'],
    buckets: SECONDS,
  },
  trifold_outbox_delivered_total: {
    type: 'counter',
    help: 'Outbox rows that were delivered.',
    labels: ['carrier'],
  },
  trifold_outbox_failures_total: {
    type: 'counter',
    help: 'Failed delivery attempts that will be retried.',
    labels: ['carrier'],
  },
  trifold_outbox_rows: {
    type: 'gauge',
    help: 'Outbox rows that wait for delivery.',
    labels: ['carrier'],
  },
  trifold_outbox_oldest_seconds: {
    type: 'gauge',
    help: 'Age of the oldest outbox row that waits for delivery.',
    labels: [],
  },
  trifold_relay_batch_size: {
    type: 'histogram',
    help: 'Outbox rows that were sent to the broker together.',
    labels: [],
    buckets: SIZES,
  },
  trifold_consumer_batch_size: {
    type: 'histogram',
    help: 'Messages that were handled in one transaction.',
    labels: ['topic'],
    buckets: SIZES,
  },
  trifold_consumer_messages_total: {
    type: 'counter',
    help: 'Messages that were handled.',
    labels: ['topic'],
  },
  trifold_consumer_retries_total: {
    type: 'counter',
    help: 'Batches that failed and were retried.',
    labels: ['topic'],
  },
  trifold_consumer_unknown_events_total: {
    type: 'counter',
    help: 'Messages that were skipped because this version does not know their event.',
    labels: ['topic'],
  },
  trifold_consumer_unknown_fields_total: {
    type: 'counter',
    help: 'Messages with fields that were ignored because this version does not know them.',
    labels: ['topic'],
  },
  trifold_consumer_lag_messages: {
    type: 'gauge',
    help: 'Messages that the consumer group has not committed yet, in partitions that this instance owns.',
    labels: ['group', 'topic', 'partition'],
  },
  trifold_consumer_topic_partitions: {
    type: 'gauge',
    help: 'Partitions of a topic that the consumer group reads, whichever instance owns them.',
    labels: ['group', 'topic'],
  },
  trifold_dead_letters_total: {
    type: 'counter',
    help: 'Messages and outbox rows that became dead letters.',
    labels: ['source'],
  },
  trifold_dead_letters: {
    type: 'gauge',
    help: 'Dead letters stored now.',
    labels: [],
  },
  trifold_payments_total: {
    type: 'counter',
    help: 'Payments that reached a state.',
    labels: ['state'],
  },
  trifold_messages_total: {
    type: 'counter',
    help: 'Notices written to customers.',
    labels: ['event'],
  },
  trifold_mail_down: {
    type: 'gauge',
    help: 'Is 1 while letters cannot be sent to the mail server or the Maildir, otherwise 0.',
    labels: [],
  },
  trifold_letters_suppressed_total: {
    type: 'counter',
    help: 'Letters that were not sent because their address had reached its limit for the hour.',
    labels: [],
  },
  trifold_ready: {
    type: 'gauge',
    help: 'Is 1 if a dependency is available, otherwise 0.',
    labels: ['dependency'],
  },
  trifold_auth_keys_age_seconds: {
    type: 'gauge',
    help: 'Seconds since the keys of the issuer of tokens were last loaded; +Inf if they never were.',
    labels: [],
  },
  trifold_auth_legacy_header_total: {
    type: 'counter',
    help: 'Requests with a token in AUTH_LEGACY_HEADER.',
    labels: [],
  },
  trifold_log_lines_dropped_total: {
    type: 'counter',
    help: 'Log lines of the process that were dropped because of a full disk or a pipe that is not read.',
    labels: [],
  },
  trifold_database_seconds: {
    type: 'histogram',
    help: 'Duration of a transaction or a single statement, including its wait for a connection; outcome: done, aborted, or the kind of error.',
    labels: ['operation', 'outcome'],
    buckets: SECONDS,
  },
  trifold_database_connections: {
    type: 'gauge',
    help: 'Connections in the pool, busy or idle.',
    labels: ['state'],
  },
  trifold_database_connections_max: {
    type: 'gauge',
    help: 'The largest number of connections that the pool may open.',
    labels: [],
  },
  trifold_database_connection_waiters: {
    type: 'gauge',
    help: 'Transactions and statements that wait for a connection.',
    labels: [],
  },
  trifold_database_connection_wait_seconds: {
    type: 'histogram',
    help: 'Time that a transaction or statement waited for a connection.',
    labels: [],
    buckets: SECONDS,
  },
} as const satisfies Record<string, Metric>

interface Metric {
  readonly type: 'counter' | 'histogram' | 'gauge'
  readonly help: string
  readonly labels: readonly string[]
  readonly buckets?: readonly number[]
}

type Metrics = typeof METRICS
type NamesOf<Type extends Metric['type']> = {
  [Name in keyof Metrics]: Metrics[Name]['type'] extends Type ? Name : never
}[keyof Metrics]
type Labels<Name extends keyof Metrics> = Record<Metrics[Name]['labels'][number], string>
/** The last parameters, preceded by the labels if the table lists labels for the metric. */
type AndLabels<Name extends keyof Metrics, Last extends unknown[]> = [
  Metrics[Name]['labels'][number],
] extends [never]
  ? [labels?: Record<string, never>, ...last: Last]
  : [labels: Labels<Name>, ...last: Last]

/** The value of a gauge: one number, or one for each set of labels. */
export type Reading<Name extends keyof Metrics> =
  | number
  | readonly { readonly labels: Labels<Name>; readonly value: number }[]

export interface Telemetry {
  count<Name extends NamesOf<'counter'>>(name: Name, ...rest: AndLabels<Name, [by?: number]>): void
  observe<Name extends NamesOf<'histogram'>>(
    name: Name,
    value: number,
    ...rest: AndLabels<Name, []>
  ): void
  /**
   * Calls `read` at each scrape. If `read` rejects or takes longer than MAX_READ_MS, the scrape leaves the
   * gauge out.
   */
  gauge<Name extends NamesOf<'gauge'>>(
    name: Name,
    read: () => Reading<Name> | Promise<Reading<Name>>,
  ): void
  scrape(): Promise<{ contentType: string; body: string }>
}

const MAX_READ_MS = 2000
let areProcessMetricsTaken = false

/**
 * Creates the metrics of one service, in a separate registry, because several services can share a process.
 * The metrics of the process itself are only in the first registry, so that sums over the services do not
 * count them twice.
 */
export function createTelemetry(service: string): Telemetry {
  const registry = new Registry()
  registry.setDefaultLabels({ service })
  const isFirst = !areProcessMetricsTaken
  areProcessMetricsTaken = true
  if (isFirst) takeProcessMetrics(registry)

  const counters = new Map<string, Counter>()
  const histograms = new Map<string, Histogram>()
  for (const [name, metric] of Object.entries<Metric>(METRICS)) {
    const options = { name, help: metric.help, labelNames: [...metric.labels] }
    const own = { ...options, registers: [registry] }
    if (metric.type === 'counter') counters.set(name, new Counter(own))
    if (metric.type === 'histogram') {
      histograms.set(name, new Histogram({ ...own, buckets: [...(metric.buckets ?? SECONDS)] }))
    }
  }
  if (isFirst) reportDroppedLines(counters.get('trifold_log_lines_dropped_total')!)

  return {
    count: (name, ...[labels, by]) => counters.get(name)!.inc({ ...labels }, by ?? 1),
    observe: (name, value, ...[labels]) => histograms.get(name)!.observe({ ...labels }, value),
    gauge(name, read) {
      registry.removeSingleMetric(name)
      const { help, labels } = METRICS[name]
      new Gauge({
        name,
        help,
        labelNames: [...labels],
        registers: [registry],
        async collect() {
          const reading = await inTime(read)
          this.reset()
          if (typeof reading === 'number') return this.set(reading)
          // A gauge without labels reports 0 after reset(), which would be wrong if there is no reading.
          if (reading === undefined && labels.length === 0) this.remove()
          for (const { labels, value } of reading ?? []) this.set({ ...labels }, value)
        },
      })
    },
    scrape: async () => ({
      contentType: registry.contentType,
      body: await registry.metrics(),
    }),
  }
}

/**
 * Registers the metrics of the process, without those of the event loop monitor, because its timer would wake
 * an idle process a hundred times a second. `nodejs_eventloop_lag_seconds` remains, because it is measured at
 * each scrape.
 */
function takeProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: NEVER_MS })
  for (const figure of ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99']) {
    register.removeSingleMetric(`nodejs_eventloop_lag_${figure}_seconds`)
  }
}

function reportDroppedLines(counter: Counter): void {
  Object.assign(counter, {
    collect() {
      counter.reset()
      counter.inc(droppedLogLines())
    },
  })
}

/** The longest delay of a timer, in milliseconds. */
const NEVER_MS = 2 ** 31 - 1

/**
 * Returns the reading, or undefined if it fails or takes too long, so that the scrape neither fails nor
 * hangs.
 */
async function inTime<T>(read: () => T | Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, MAX_READ_MS, undefined)
  })
  try {
    return await Promise.race([read(), tooLate])
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

const SECRET_HEADERS = ['authorization', 'proxy-authorization', 'cookie', 'set-cookie']

/**
 * Creates a log that writes JSON lines to standard output (platform/telemetry/log-output.ts) or to
 * `destination`. Headers with credentials are masked wherever headers are logged: as `headers`, or in a
 * request or a response. Registered secrets are masked anywhere in a line.
 */
export function createLog(
  level: string,
  service: string,
  destination: { write(line: string): void } = logOutput,
) {
  const options = {
    level,
    base: { service },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    hooks: { streamWrite: redact },
    redact: SECRET_HEADERS.flatMap((name) => [`headers["${name}"]`, `*.headers["${name}"]`]),
  }
  return pino(options, destination)
}
