import type { InteractionStyle } from '../../contracts/style.ts'
import { type Finding, readTables } from '../simulation/checks/tables.ts'
import { PROFILES } from '../simulation/profiles.ts'
import { check, LONGEST_FAULTS_MS, settle } from '../simulation/run.ts'
import type { Store } from '../simulation/servers/empty-store.ts'
import type { Deployment } from '../simulation/world/deployment.ts'
import { START_MS } from '../simulation/world/scheduler.ts'
import type { Arrow } from '../simulation/world/story.ts'
import { createWorld, type Planted } from '../simulation/world/world.ts'
import { type Crossing, createBoundaries } from './boundaries.ts'
import {
  disallowedResults,
  finalStatesOf,
  SCENARIOS,
  type Scenario,
  type ScenarioName,
} from './scenarios.ts'
import { createStage } from './stage.ts'

/** A scenario in a style, with one or two processes of each service. */
export interface Cell {
  readonly scenario: ScenarioName
  readonly style: InteractionStyle
  readonly instances: 1 | 2
}

export interface CrashRun extends Cell {
  /** The index of the crossing at which a process dies; if absent, no process dies. */
  readonly crashAt?: number | undefined
  /** Whether a process dies a second time when that boundary is next reached. */
  readonly twice?: boolean | undefined
  readonly isTraced?: boolean | undefined
}

export interface CrashResult {
  readonly crossings: readonly Crossing[]
  readonly deaths: number
  readonly violations: readonly Finding[]
  /** The final state of each order, oldest first. */
  readonly finalStates: readonly string[]
  readonly arrows: readonly Arrow[]
  readonly fingerprint: string
}

/** An arbitrary seed: it only determines how long steps take and how soon a dead process restarts. */
const SEED = 1

/**
 * Runs a scenario until all work has settled, and checks the result. A test can plant a bug by replacing
 * parts of the services, to see that the checks find the bug.
 */
export async function runCell(
  store: Store,
  run: CrashRun,
  bug: NonNullable<Planted['parts']> = (_, parts) => parts,
): Promise<CrashResult> {
  const { style, isTraced } = run
  const scenario: Scenario = SCENARIOS[run.scenario]
  await store.reset()
  const boundaries = createBoundaries({ ...run, failingLetters: scenario.failingLetters })
  const planted: Planted = {
    ...boundaries.planted,
    parts: (service, parts, life) =>
      boundaries.planted.parts(service, bug(service, parts, life), life),
  }
  const world = createWorld({
    seed: SEED,
    style,
    store,
    isTraced,
    profile: PROFILES.calm,
    planted,
    deployment: deploymentOf(run),
  })
  const { scheduler } = world
  const stage = createStage(world, style)
  const violations: Finding[] = []
  const wrong = (subject: string, sentence: string) =>
    violations.push({ invariant: 'scenario', subject, sentence })
  let isOver = false
  const acting = scenario.act(stage).then(
    () => {
      isOver = true
    },
    (error: Error) => {
      isOver = true
      wrong('a customer', error.message)
    },
  )
  await scheduler.runUntil(START_MS + LONGEST_FAULTS_MS, () => isOver)
  if (isOver) await acting
  else wrong('a customer', 'never got a response')
  world.heal()
  const healedMs = scheduler.now()
  await settle(world)
  violations.push(...(await check(world, stage.operations, healedMs)))
  const { direct } = world.databases
  const tables = await readTables({ orders: direct, billing: direct, notification: direct })
  for (const sentence of disallowedResults(scenario, style, tables)) wrong(run.scenario, sentence)
  return {
    crossings: boundaries.crossings,
    deaths: boundaries.deaths(),
    violations,
    finalStates: finalStatesOf(tables),
    arrows: world.story.arrows(),
    fingerprint: world.story.fingerprint(),
  }
}

function deploymentOf({ style, instances }: Cell): Deployment {
  return {
    instances,
    isSoleProcess: instances === 1,
    settings: { style, orderDeadlineMs: 60_000, callTimeoutMs: 500, resendAfterMs: 500 },
  }
}
