import type { Language } from './pages.ts'
import type { Results } from './results.ts'
import { type Say, table } from './tables.ts'

/**
 * The table on the guarantees page that shows what each instrument tries, and the result of its last recorded
 * run.
 */
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
  'events in any order; calls and records lost, delayed or duplicated; crashes, frozen processes, outages, a lost log'
const SIMULATED =
  '{date}: {seeds} seeds in each of {styles} styles, {violations} violations; the same seed repeats the same run, byte for byte'
const CRASH_MATRIX =
  'a crash before, during and after each call to a database, broker, service or mailbox; the calls are read from the code, and a call without a crash fails the run'
const CRASHED =
  '{date}: {crashes} crashes, one each time a scenario makes such a call, with one and with two processes of each service, {violations} violations'
const MUTANTS = 'whether the simulator notices planted bugs'
const HUNTED =
  '{date}: {found} of {planted} planted bugs found, most of them with the first seeds; [mutants.md](mutants.md) lists them'
const CHAOS =
  'two replicas of each service on Kafka and PostgreSQL, behind proxies that delay, cut and reset connections; killed and frozen processes and servers, processes frozen inside transactions, wrong clocks, a full disk'
const CHAOTIC = '{date}: {minutes} minutes in style {style}, {violations} violations'
const TEST_STACK =
  "servers killed and frozen for minutes, replicas killed under load, all of Kafka's data deleted, all groups reset to the start, the same work in each style"
const TESTED =
  'on each change, with servers down for 20 seconds; with `OUTAGE_SECONDS=full`, for minutes'
