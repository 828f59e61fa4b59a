import type { Language } from './pages.ts'
import type { Results } from './results.ts'
import { type Say, table } from './tables.ts'

/** The table of the guarantees page that says what each instrument tries, and what its last recorded run came to. */
export function instrumentsTable(
  { simulate, mutants, chaos, ...others }: Results,
  say: Say,
  language: Language,
): string {
  const fill = (text: string, values: Readonly<Record<string, number | string>>) =>
    say(text).replace(/\{(\w+)\}/g, (_, name) => {
      const value = values[name]
      return typeof value === 'number' ? value.toLocaleString(language) : String(value)
    })
  const rows = [
    ['npm run simulate -- --seeds 1000', say(SIMULATE), fill(SIMULATED, simulate)],
    ['npm run crash-matrix', say(CRASH_MATRIX), fill(CRASHED, others['crash-matrix'])],
    ['npm run mutants', say(MUTANTS), fill(HUNTED, mutants)],
    ['npm run chaos -- --minutes 5', say(CHAOS), fill(CHAOTIC, chaos)],
    ['npm run test:stack', say(TEST_STACK), say(TESTED)],
  ] as const
  return table(
    ['instrument', 'what it tries', 'last recorded run'].map(say),
    rows.map(([command, ...cells]) => [`\`${command}\``, ...cells]),
  )
}

const SIMULATE =
  'any order of events; calls and messages lost, late, doubled; crashes, frozen processes, outages, a lost log'
const SIMULATED =
  '{date}: {seeds} seeds in each of {styles} styles, {violations} violations; the same seed is the same run, to the byte'
const CRASH_MATRIX =
  'a crash before, during and after each boundary in the code, read from the code itself; one that is left out fails the run'
const CRASHED =
  '{date}: {crashes} crashes, each time a scenario reaches a boundary, with one and with two processes of each service, {violations} violations'
const MUTANTS = 'whether the simulator would notice planted bugs'
const HUNTED =
  '{date}: {found} of {planted} planted bugs found, most in the first seeds; each is in [mutants.md](mutants.md)'
const CHAOS =
  'two of each service on Kafka and PostgreSQL behind proxies that delay, cut and reset; kills, frozen servers, processes frozen inside transactions, wrong clocks, a full disk'
const CHAOTIC = '{date}: {minutes} minutes in style {style}, {violations} violations'
const TEST_STACK =
  "servers killed and frozen for minutes, replicas killed under load, all of Kafka's data deleted, all groups set back to the start, the same work in each style"
const TESTED =
  'all of it at each change, servers away for 20 seconds; with `OUTAGE_SECONDS=full` for minutes'
