import { isDeepStrictEqual } from 'node:util'
import { STYLES } from '../../contracts/style.ts'
import { openThreads, type Threads } from '../simulation/workers.ts'
import type { Crossing } from './boundaries.ts'
import type { Cell, CrashRun } from './run.ts'
import { SCENARIOS, type ScenarioName } from './scenarios.ts'
import type { Answer } from './worker.ts'

/** What came of a crash. */
export interface Crash extends Pick<Answer, 'violations' | 'ends' | 'deaths'> {
  readonly run: CrashRun
  readonly crossing: Crossing
}

export interface MatrixOptions {
  readonly cells: readonly Cell[]
  /** One crash at each boundary, of whichever cells come to it, rather than one at each crossing. */
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
 * Runs every cell once as it is and notes the boundaries that it comes to, then once more for each
 * crossing that is to be crashed at. Up to its crash a run is the run that was noted.
 */
export async function crashAll(options: MatrixOptions): Promise<void> {
  const { cells, isTwice, workers, onPlanned, onCrash } = options
  const module = new URL('./worker.ts', import.meta.url)
  const threads = openThreads<CrashRun, Answer>(module, workers)
  try {
    const noted = await note(threads, cells)
    const planned = (options.isQuick ? oneOfEach(noted) : everyOne(noted)).map((one) => ({
      ...one,
      twice: isTwice,
    }))
    onPlanned(planned.length)
    await threads.ask(planned.values(), (run, answer) => onCrash(crashOf(run, answer, noted)))
  } finally {
    await threads.close()
  }
}

function crashOf(run: CrashRun, answer: Answer, noted: Noted): Crash {
  const crossings = noted.get(run)!.slice(0, run.crashAt! + 1)
  const { violations, ends, deaths } = answer
  if (deaths === 0 || !isDeepStrictEqual(answer.crossings, crossings)) {
    throw new Error(`${nameOf(run)}: crossing ${run.crashAt} is another in the second run`)
  }
  return { run, crossing: crossings.at(-1)!, violations, ends, deaths }
}

/** What cells come to when nothing dies. */
interface Noted {
  readonly all: readonly { readonly cell: Cell; readonly crossings: readonly Crossing[] }[]
  get(cell: Cell): readonly Crossing[] | undefined
}

type CrashThreads = Threads<CrashRun, Answer>

async function note(threads: CrashThreads, cells: readonly Cell[]): Promise<Noted> {
  const byName = new Map<string, readonly Crossing[]>()
  await threads.ask(cells.values(), (cell, { violations, crossings }) => {
    const [first] = violations
    if (first) {
      throw new Error(`${nameOf(cell)}: without a crash, ${first.subject} ${first.sentence}`)
    }
    byName.set(nameOf(cell), crossings)
  })
  return {
    all: cells.map((cell) => ({ cell, crossings: byName.get(nameOf(cell))! })),
    get: (cell) => byName.get(nameOf(cell)),
  }
}

type Planned = CrashRun & { readonly crashAt: number }

const everyOne = ({ all }: Noted): Planned[] =>
  all.flatMap(({ cell, crossings }) =>
    crossings.map((_, crashAt): Planned => ({ ...cell, crashAt })),
  )

/** Each boundary in one of the cells that come to it, in turn, so that each cell has its share. */
function oneOfEach({ all }: Noted): Planned[] {
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
