import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ProfileName } from './profiles.ts'
import type { SeedResult, SeedStyle } from './workers.ts'

/** The results of many runs, summed up for `reports/simulation.json`. */
export interface Tally {
  add(found: SeedResult): void
  /** Runs with a violation. */
  readonly violated: readonly SeedResult[]
  /** One line of progress: runs done, speed, violations. */
  line(): string
  /** Writes the results so far; returns the path of the file. */
  write(): Promise<string>
}

export interface TallyOptions {
  readonly from: number
  readonly seeds: number
  readonly styles: readonly SeedStyle['style'][]
  readonly workers: number
}

const FOLDER = join(import.meta.dirname, '..', '..', 'reports')

export function createTally(options: TallyOptions): Tally {
  const started = new Date()
  const startedMs = performance.now()
  const runs: Record<string, number> = Object.fromEntries(options.styles.map((one) => [one, 0]))
  const profiles: Partial<Record<ProfileName, number>> = {}
  const violated: SeedResult[] = []
  const sums = { runs: 0, events: 0, operations: 0, simulatedMs: 0 }
  const seconds = () => (performance.now() - startedMs) / 1000
  const perSecond = () => Number((sums.runs / seconds()).toFixed(2))

  return {
    violated,
    add(found) {
      const { style, profile, violations, events, operations, durationMs } = found
      runs[style] = (runs[style] ?? 0) + 1
      profiles[profile] = (profiles[profile] ?? 0) + 1
      sums.runs += 1
      sums.events += events
      sums.operations += operations
      sums.simulatedMs += durationMs
      if (violations.length > 0) violated.push(found)
    },
    line() {
      const all = options.seeds * options.styles.length
      return (
        `${sums.runs} of ${all} runs in ${Math.round(seconds())} s, ${perSecond()} a second, ` +
        `${Math.round(sums.simulatedMs / 1000)} simulated seconds, violations: ${violated.length}`
      )
    },
    async write() {
      const report = {
        started,
        seconds: Math.round(seconds()),
        ...options,
        runs,
        runsPerSecond: perSecond(),
        profiles,
        events: sums.events,
        operations: sums.operations,
        simulatedSeconds: Math.round(sums.simulatedMs / 1000),
        violated,
      }
      const file = join(FOLDER, 'simulation.json')
      await mkdir(FOLDER, { recursive: true })
      await writeFile(file, `${JSON.stringify(report, null, 2)}\n`)
      return file
    },
  }
}
