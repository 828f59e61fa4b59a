import { isDeepStrictEqual } from 'node:util'
import { STYLES } from '../../contracts/style.ts'
import { openThreads, type Threads } from '../simulation/workers.ts'
import type { Crossing } from './boundaries.ts'
import type { Cell, CrashRun } from './run.ts'
import { SCENARIOS, type ScenarioName } from './scenarios.ts'
import type { WorkerResult } from './worker.ts'

/** A run with a crash, and its result. */
export interface Crash extends Pick<WorkerResult, 'violations' | 'finalStates' | 'deaths'> {
  readonly run: CrashRun
  readonly crossing: Crossing
}

export interface MatrixOptions {
  readonly cells: readonly Cell[]
  /** Crash once at each boundary, in one of the cells that reach it, rather than once at each crossing. */
  readonly isQuick: boolean
  readonly isTwice: boolean
  readonly workers: number
  readonly onPlanned: (crashes: number) => void
  readonly onCrash: (crash: Crash) => void
}

export const allCells = (instances: readonly Cell['instances'][] = [1, 2]): Cell[] =>
  instances.flatMap((count) =>
    (Object.keys(SCENARIOS) as ScenarioName[]).flatMap((scenario) =>
      STYLES.map((style): Cell => ({ scenario, style, instances: count })),
    ),
  )

export const nameOf = ({ scenario, style, instances }: Cell) =>
  `${scenario}, ${style}, ${instances === 1 ? 'one process' : 'two processes'} of each service`

/**
 * Runs every cell once without a crash and records its crossings, then once more for each planned crash. Each
 * of these runs is identical to the recorded run until its crash.
 */
export async function crashAll(options: MatrixOptions): Promise<void> {
  const { cells, isTwice, workers, onPlanned, onCrash } = options
  const module = new URL('./worker.ts', import.meta.url)
  const threads = openThreads<CrashRun, WorkerResult>(module, workers)
  try {
    const recorded = await record(threads, cells)
    const planned = (options.isQuick ? onePerBoundary(recorded) : onePerCrossing(recorded)).map(
      (one) => ({
        ...one,
        twice: isTwice,
      }),
    )
    onPlanned(planned.length)
    await threads.run(planned.values(), (run, result) => onCrash(crashOf(run, result, recorded)))
  } finally {
    await threads.close()
  }
}

function crashOf(run: CrashRun, result: WorkerResult, recorded: Recorded): Crash {
  const crossings = recorded.get(run)!.slice(0, run.crashAt! + 1)
  const { violations, finalStates, deaths } = result
  if (deaths === 0 || !isDeepStrictEqual(result.crossings, crossings)) {
    throw new Error(
      `${nameOf(run)}: the run differs from the recorded one before crossing ${run.crashAt}`,
    )
  }
  return { run, crossing: crossings.at(-1)!, violations, finalStates, deaths }
}

/** The crossings of each cell in a run without a crash. */
interface Recorded {
  readonly all: readonly { readonly cell: Cell; readonly crossings: readonly Crossing[] }[]
  get(cell: Cell): readonly Crossing[] | undefined
}

type CrashThreads = Threads<CrashRun, WorkerResult>

async function record(threads: CrashThreads, cells: readonly Cell[]): Promise<Recorded> {
  const byName = new Map<string, readonly Crossing[]>()
  await threads.run(cells.values(), (cell, { violations, crossings }) => {
    const [first] = violations
    if (first) {
      throw new Error(
        `${nameOf(cell)}: violation without a crash: ${first.subject} ${first.sentence}`,
      )
    }
    byName.set(nameOf(cell), crossings)
  })
  return {
    all: cells.map((cell) => ({ cell, crossings: byName.get(nameOf(cell))! })),
    get: (cell) => byName.get(nameOf(cell)),
  }
}

type Planned = CrashRun & { readonly crashAt: number }

const onePerCrossing = ({ all }: Recorded): Planned[] =>
  all.flatMap(({ cell, crossings }) =>
    crossings.map((_, crashAt): Planned => ({ ...cell, crashAt })),
  )

/** One crash per boundary. The cells that reach it take turns, so that each cell has its share of the crashes. */
function onePerBoundary({ all }: Recorded): Planned[] {
  const places = new Map<string, Planned[]>()
  for (const { cell, crossings } of all) {
    const known = new Set<string>()
    for (const [crashAt, { service, place, of = '', phase }] of crossings.entries()) {
      const boundary = `${service} ${place} ${of} ${phase}`
      if (known.has(boundary)) continue
      known.add(boundary)
      places.set(boundary, [...(places.get(boundary) ?? []), { ...cell, crashAt }])
    }
  }
  return [...places.values()].map((planned, index) => planned[index % planned.length]!)
}
