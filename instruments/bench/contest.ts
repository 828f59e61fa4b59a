import type { BenchStack } from './bench-stack.ts'
import { type Spread, spreadOf } from './statistics.ts'

/**
 * One row of the benchmark: a part of Trifold against the reference with which a skeptic would compare it.
 */
export interface Bench {
  readonly name: string
  readonly ours: string
  readonly reference: string
  /** The unit of the figures of both sides. */
  readonly unit: string
  /** The ratio of our figure to the reference that a quiet machine must reach. */
  readonly reach: number
  /** The ratio that we aim for. */
  readonly aim: number
  /** True for figures such as latencies. */
  readonly lessIsBetter?: boolean
  /** Marks for the CPU milliseconds per order over all processes except the load generator. */
  readonly cpuMs?: { readonly reach: number; readonly aim: number }
  /** Takes minutes; --quick skips it unless --only names it. */
  readonly isLong?: boolean
  /** Each run includes its own warm-up, so no pair of runs is spent on warming up. */
  readonly isWarm?: boolean
  open(stack: BenchStack, pace: Pace): Promise<Contest>
}

/** A measurement without a reference, such as the memory and CPU of processes, idle and under load. */
export interface Survey {
  readonly name: string
  /** Runs only if --only names it. */
  readonly isLong?: boolean
  /** Part of --quick. */
  readonly isQuick?: boolean
  run(stack: BenchStack, pace: Pace): Promise<SurveyTable>
}

export interface SurveyTable {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
  /** Shortfalls that make --quick fail, one sentence each. */
  readonly findings?: readonly string[]
}

export interface Pace {
  /** Length of each run of each side. */
  readonly seconds: number
  readonly rounds: number
  readonly quick: boolean
  /** Length of the leak survey. */
  readonly minutes?: number
}

export interface Contest {
  ours(): Promise<Run>
  reference(): Promise<Run>
  close(): Promise<void>
}

export interface Run {
  readonly figure: number
  /** Further figures of the same run, by the suffix that their row adds to the name of the benchmark. */
  readonly also?: Readonly<Record<string, number>>
  /** Other observations, such as CPU milliseconds per order. */
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
  /** An absolute figure, compared only with marks that were set on one particular machine. */
  readonly isAbsolute?: boolean
  readonly figures: { readonly ours: Spread; readonly reference: Spread }
  readonly rounds: number
  /** Medians over the rounds. */
  readonly costs: Costs
}

const QUICK_MAX_ROUNDS = 3

/**
 * Runs Trifold and the reference in turn, so that other load on the machine affects both. Each pair gives a
 * ratio; the first pair is a warm-up and is not counted.
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
  // With --quick, a ratio far short of its mark is measured again before it counts as a shortfall.
  const isDue = (round: number) =>
    round <= pace.rounds ||
    (pace.quick && round <= QUICK_MAX_ROUNDS && outcomesOf(bench, ours, reference).some(isFarShort))
  try {
    for (let round = bench.isWarm ? 1 : 0; isDue(round); round += 1) {
      const pair = { ours: await contest.ours(), reference: await contest.reference() }
      const what = round === 0 ? 'warm-up' : `round ${round}`
      const figures = [pair.ours, pair.reference].map(({ figure }) => threeDigits(figure))
      const ratio = threeDigits(pair.ours.figure / pair.reference.figure)
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
    name: of,
    ...common,
    rounds: ours.length,
    costs,
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
    name: `${name} CPU`,
    unit: 'ms per order',
    ...marks,
    lessIsBetter: true,
    isAbsolute: true,
    ours: 'CPU time of all processes, PostgreSQL and Kafka included',
    reference: 'one millisecond',
    ratio: spread,
    figures: { ours: spread, reference: spreadOf([1]) },
    rounds: runs.length,
    costs: {},
  }
}

function mediansOf(runs: readonly Run[]): Costs {
  const kinds = new Set(runs.flatMap(({ costs = {} }) => Object.keys(costs)))
  const medians = [...kinds].map((kind) => {
    const values = runs.flatMap((run) => run.costs?.[kind] ?? [])
    return [kind, spreadOf(values).median]
  })
  return Object.fromEntries(medians)
}

/** Whether the median is as good as the mark, or better. */
export function isAtLeast({ ratio, lessIsBetter }: Outcome, mark: number): boolean {
  return lessIsBetter ? ratio.median <= mark : ratio.median >= mark
}

/**
 * Whether every round missed the mark by a factor of two. Other load on a CI machine can slow only one side
 * of a round, so a smaller shortfall is not a finding there.
 */
export function isFarShort({ ratio, reach, lessIsBetter, isAbsolute }: Outcome): boolean {
  if (isAbsolute) return false
  return lessIsBetter ? ratio.min > reach * 2 : ratio.max < reach / 2
}

/** The number with three significant digits, and thousands separators. */
export function threeDigits(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}
