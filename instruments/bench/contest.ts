import type { BenchStack } from './bench-stack.ts'
import { type Spread, spreadOf } from './statistics.ts'

/** One question of the benchmark: something of ours against what a sceptic would hold against it. */
export interface Bench {
  readonly name: string
  readonly ours: string
  readonly reference: string
  /** What the figures are, of either side. */
  readonly unit: string
  /** Ratios of ours to the reference: to be reached on a quiet machine, and aimed at. */
  readonly reach: number
  readonly aim: number
  /** Where less is better, such as a latency. */
  readonly lessIsBetter?: boolean
  /** CPU milliseconds per order over all processes, the customers' own aside. */
  readonly cpuMs?: { readonly reach: number; readonly aim: number }
  /** Needs minutes, and so is left out of --quick unless it is named. */
  readonly isLong?: boolean
  /** Each of its runs warms up by itself. */
  readonly isWarm?: boolean
  open(stack: BenchStack, pace: Pace): Promise<Contest>
}

/** What has no reference to be compared with: what processes take, idle and at work. */
export interface Survey {
  readonly name: string
  /** Only where it is named. */
  readonly isLong?: boolean
  /** Part of --quick. */
  readonly isQuick?: boolean
  run(stack: BenchStack, pace: Pace): Promise<SurveyTable>
}

export interface SurveyTable {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
  /** What makes --quick fail, one sentence each. */
  readonly findings?: readonly string[]
}

export interface Pace {
  /** Of each round of each side. */
  readonly seconds: number
  readonly rounds: number
  readonly quick: boolean
  /** Of what takes as long as it is told. */
  readonly minutes?: number
}

export interface Contest {
  ours(): Promise<Run>
  reference(): Promise<Run>
  close(): Promise<void>
}

export interface Run {
  readonly figure: number
  /** Further figures of the same run, by what they are called behind the name of the benchmark. */
  readonly also?: Readonly<Record<string, number>>
  /** What else was seen, in milliseconds per order and the like. */
  readonly costs?: Costs
}

export type Costs = Readonly<Record<string, number>>

export interface Outcome {
  readonly name: string
  readonly ours: string
  readonly reference: string
  readonly unit: string
  readonly ratio: Spread
  readonly reach: number
  readonly aim: number
  readonly lessIsBetter: boolean
  /** Compared with nothing but its marks, which are of a certain machine. */
  readonly isAbsolute?: boolean
  readonly figures: { readonly ours: Spread; readonly reference: Spread }
  readonly rounds: number
  /** The median of each. */
  readonly costs: Costs
}

const QUICK_MOST_ROUNDS = 3

/**
 * Ours and the reference in turn: what else goes on on the machine hits both, and each pair is a ratio.
 * The first pair warms up and is not counted.
 */
export async function alternate(
  bench: Bench,
  stack: BenchStack,
  pace: Pace,
  say: (line: string) => void,
): Promise<Outcome[]> {
  const contest = await bench.open(stack, pace)
  const ours: Run[] = []
  const reference: Run[] = []
  // With --quick, a ratio that is far off is measured again before it counts.
  const isDue = (round: number) =>
    round <= pace.rounds ||
    (pace.quick &&
      round <= QUICK_MOST_ROUNDS &&
      outcomesOf(bench, ours, reference).some(isFarShort))
  try {
    for (let round = bench.isWarm ? 1 : 0; isDue(round); round += 1) {
      const pair = { ours: await contest.ours(), reference: await contest.reference() }
      const what = round === 0 ? 'warm-up' : `round ${round}`
      const figures = [pair.ours, pair.reference].map(({ figure }) => inShort(figure))
      const ratio = inShort(pair.ours.figure / pair.reference.figure)
      say(`${bench.name}: ${what}: ${figures.join(' to ')} ${bench.unit}, ratio ${ratio}`)
      if (round === 0) continue
      ours.push(pair.ours)
      reference.push(pair.reference)
    }
  } finally {
    await contest.close()
  }
  return outcomesOf(bench, ours, reference)
}

function outcomesOf(bench: Bench, ours: readonly Run[], reference: readonly Run[]): Outcome[] {
  const { name, unit, reach, aim, lessIsBetter = false } = bench
  const common = { ours: bench.ours, reference: bench.reference, unit, reach, aim, lessIsBetter }
  const outcomeOf = (of: string, figure: (run: Run) => number, costs: Costs): Outcome => ({
    ...{ name: of, ...common, rounds: ours.length, costs },
    ratio: spreadOf(ours.map((run, index) => figure(run) / figure(reference[index]!))),
    figures: { ours: spreadOf(ours.map(figure)), reference: spreadOf(reference.map(figure)) },
  })
  const more = Object.keys(ours[0]!.also ?? {}).map((key) => ({
    ...outcomeOf(`${name} ${key}`, (run) => run.also![key]!, {}),
    ours: `the same, ${key}`,
  }))
  const first = outcomeOf(name, ({ figure }) => figure, mediansOf(ours))
  return [first, ...more, ...(bench.cpuMs ? [cpuOf(bench, bench.cpuMs, ours)] : [])]
}

function cpuOf({ name }: Bench, marks: NonNullable<Bench['cpuMs']>, runs: readonly Run[]): Outcome {
  const spread = spreadOf(runs.map(({ costs }) => costs!.all!))
  return {
    ...{
      name: `${name} CPU`,
      unit: 'ms per order',
      ...marks,
      lessIsBetter: true,
      isAbsolute: true,
    },
    ours: 'CPU time of all processes, PostgreSQL and Kafka included',
    reference: 'one millisecond',
    ratio: spread,
    figures: { ours: spread, reference: spreadOf([1]) },
    ...{ rounds: runs.length, costs: {} },
  }
}

function mediansOf(runs: readonly Run[]): Costs {
  const kinds = new Set(runs.flatMap(({ costs = {} }) => Object.keys(costs)))
  const medians = [...kinds].map((kind) => {
    const seen = runs.flatMap((run) => run.costs?.[kind] ?? [])
    return [kind, spreadOf(seen).median]
  })
  return Object.fromEntries(medians)
}

/** Whether the median is as good as the mark, or better. */
export function isAtLeast({ ratio, lessIsBetter }: Outcome, mark: number): boolean {
  return lessIsBetter ? ratio.median <= mark : ratio.median >= mark
}

/**
 * A CI machine is not quiet, and other work can slow one side of a round alone. So only a ratio that is twice as bad as
 * its mark in every round is a finding there.
 */
export function isFarShort({ ratio, reach, lessIsBetter, isAbsolute }: Outcome): boolean {
  if (isAbsolute) return false
  return lessIsBetter ? ratio.min > reach * 2 : ratio.max < reach / 2
}

/** Three digits that mean something, as a person writes them. */
export function inShort(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}
