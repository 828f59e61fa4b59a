import { audit } from '../../apps/audit/invariants.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import { checkBalanceStream } from './checks/balance-stream.ts'
import { isExcused } from './checks/excuses.ts'
import { checkHeardOutcomes } from './checks/heard-outcomes.ts'
import { checkHistory } from './checks/history.ts'
import { type Finding, readTables, type Tables } from './checks/tables.ts'
import { checkForeign } from './faults/foreign-messages.ts'
import { drawPlan, PLAN_MS, type Planned } from './plan.ts'
import { PROFILES, type ProfileName, profileOf } from './profiles.ts'
import { checkTriggers } from './servers/database-triggers.ts'
import type { Store } from './servers/empty-store.ts'
import { createChances } from './world/chance.ts'
import { isFinal, mayRepeat, type Operation, startCustomers } from './world/customers.ts'
import { START_MS } from './world/scheduler.ts'
import type { Arrow } from './world/story.ts'
import { createWorld, type Planted, type World } from './world/world.ts'

/** One run: a seed in a style, with a profile of faults. */
export interface Run {
  readonly seed: number
  readonly style: InteractionStyle | 'mixed'
  /** Drawn from the seed if absent. */
  readonly profile?: ProfileName | undefined
  /** Names of faults to leave out. */
  readonly without?: ReadonlySet<string> | undefined
  /** Whether to keep the arrows of the run's sequence diagram. */
  readonly isTraced?: boolean | undefined
  readonly planted?: Planted | undefined
  /** Turns of the event loop after every event; by default the loop turns only while a request is in a service. */
  readonly turns?: number | undefined
}

export interface RunResult {
  readonly profile: ProfileName
  readonly violations: readonly Finding[]
  /** Names of the faults that happened. */
  readonly faults: readonly string[]
  /** Equal for two runs only if they were identical byte for byte. */
  readonly fingerprint: string
  readonly arrows: readonly Arrow[]
  readonly events: number
  /** How many operations customers started. */
  readonly operations: number
  /** Simulated time, from the start of the run to its end. */
  readonly durationMs: number
}

/** Customers who are not done by this time after the start are waiting for a response that never comes. */
export const LONGEST_FAULTS_MS = 120_000
/** The promise: all work is finished within this time after faults and requests have stopped. */
export const SETTLE_MS = 120_000
const POLL_MS = 250
const REPEAT_ROUNDS = 3

export async function simulate(store: Store, run: Run): Promise<RunResult> {
  await store.reset()
  const profile = run.profile ?? profileOf(createChances(run.seed)('profile').next())
  const world = createWorld({ ...run, profile: PROFILES[profile], store })
  const { scheduler, chances, story, faults } = world
  const plan = drawPlan(PROFILES[profile], chances('plan'))
  for (const planned of plan) {
    scheduler.after(planned.afterMs, async () => {
      if (faults.takesPlace(planned.name)) await world.strike(planned)
    })
  }
  const customers = startCustomers({
    http: world.customer,
    scheduler,
    chances,
    style: run.style,
  })
  await scheduler.runUntil(START_MS + lengthOf(plan, chances('length').happens(0.35)))
  await scheduler.runUntil(START_MS + LONGEST_FAULTS_MS, customers.areDone)
  world.heal()
  const healedMs = scheduler.now()
  const violations: Finding[] = []
  if (!customers.areDone()) {
    violations.push({ invariant: 'I4', subject: 'a customer', sentence: 'never got a response' })
  }
  await settle(world)
  // A process that was frozen until now continues with outdated state, and must do no harm.
  if (world.thaw()) await settle(world)
  // A repeated request must now get its response. It may take effect for the first time, and if its outbox
  // rows are in a lane of a dead instance, that can take longer than a customer waits, so a few rounds are
  // allowed.
  for (let rounds = 0; rounds < REPEAT_ROUNDS && customers.repeatUnanswered() > 0; rounds += 1) {
    await scheduler.runUntil(scheduler.now() + SETTLE_MS, customers.areDone)
    await settle(world)
  }
  violations.push(...(await check(world, customers.operations, healedMs)))
  return {
    profile,
    violations,
    faults: faults.happened(),
    arrows: story.arrows(),
    fingerprint: story.fingerprint(),
    events: scheduler.happened(),
    operations: customers.operations.length,
    durationMs: Math.round(scheduler.now() - START_MS),
  }
}

/** How long faults last: until every planned fault has begun or, with `toTheEnd`, has ended by itself. */
function lengthOf(plan: readonly Planned[], toTheEnd: boolean): number {
  if (plan.length === 0) return 0
  if (!toTheEnd) return PLAN_MS
  return Math.max(...plan.map(({ afterMs, durationMs }) => afterMs + durationMs))
}

/** Lets time pass until two consecutive polls find no unfinished work, or `SETTLE_MS` have passed. */
export async function settle(world: World): Promise<void> {
  const { scheduler } = world
  let calmPolls = 0
  for (const endMs = scheduler.now() + SETTLE_MS; calmPolls < 2 && scheduler.now() < endMs; ) {
    await scheduler.runUntil(scheduler.now() + POLL_MS)
    calmPolls = world.isRead() && (await isSettled(world)) ? calmPolls + 1 : 0
  }
}

async function isSettled({ databases }: World): Promise<boolean> {
  const [row] = await databases.direct.query<{ waits: boolean }>(`
    select exists (select from orders.outbox) or exists (select from billing.outbox)
      or exists (select from notification.outbox) or exists (select from orders.watch)
      or exists (select from orders.void_watch)
      or exists (select from billing.deposit where state = 'REQUESTED')
      or exists (select from orders.idempotency where status is null) as waits`)
  return !row!.waits
}

export async function check(
  world: World,
  operations: readonly Operation[],
  healedMs: number,
): Promise<Finding[]> {
  const { databases, scheduler, mailbox, lost } = world
  const { direct } = databases
  const everything = { orders: direct, billing: direct, notification: direct }
  const tables = await readTables(everything)
  const foreign = await checkForeign(direct, world.foreign, lost)
  const times = { settings: world.settings, healedMs, faults: world.faults.happened() }
  // Two identical runs must also end with identical tables.
  world.story.note(
    JSON.stringify(tables, (_, value) => (typeof value === 'bigint' ? `${value}` : value)),
  )
  const found: Finding[] = [
    ...(await audit({
      ...everything,
      letters: mailbox.letters(),
      now: Math.floor(scheduler.now()),
      settled: true,
    })),
    ...foreign.found,
    ...checkHistory(operations, withoutForeign(tables, world), mailbox.letters(), times),
    ...checkBalanceStream(world.balanceStream(), tables),
    ...(await checkTriggers(direct)),
    ...checkHeardOutcomes(tables),
    ...operations.flatMap(missingResponse),
  ]
  if (!world.isRead()) {
    found.push({ invariant: 'I9', subject: 'the log', sentence: 'has unread messages' })
  }
  return found.filter(
    (finding) => !isExcused(finding, lost) && !foreign.letters.has(finding.subject),
  )
}

/** Leaves out the deposits of the foreign program, which no customer requested. */
function withoutForeign(tables: Tables, { foreign }: World): Tables {
  const amounts = new Set(foreign.map(({ value }) => BigInt(value) * 100n))
  return { ...tables, deposits: tables.deposits.filter((one) => !amounts.has(one.amountMinor)) }
}

/** A request that may be repeated must have a final response once faults are over and all work is settled. */
function missingResponse(operation: Operation): Finding[] {
  const { intent, key, attempts } = operation
  if (!mayRepeat(operation) || attempts.some(isFinal)) return []
  const last = attempts.at(-1)?.response?.status ?? 'no response'
  const sentence = `has no final response; the last attempt got ${last}`
  return [{ invariant: 'I4', subject: `${intent.kind} ${key ?? ''}`, sentence }]
}
