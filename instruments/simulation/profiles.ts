import type { Mishap, Trouble } from './faults/mishaps.ts'
import type { ClockQuality } from './world/clocks.ts'

/** The faults that can happen in a run, and how often. */
export interface Profile {
  /** Factors for the probability of each mishap at a step (`faults.ts`); 1 leaves it unchanged. */
  readonly mishaps: Readonly<Partial<Record<Mishap, number>>>
  /** The probability of each trouble at every opportunity. */
  readonly troubles: Readonly<Partial<Record<Trouble, number>>>
  /** The maximum number of planned faults of each kind. */
  readonly events: Readonly<Partial<Record<PlannedKind, number>>>
  readonly clocks: ClockQuality
}

export type PlannedKind =
  | 'crash'
  | 'freeze'
  /** A freeze that lasts until the other processes have finished all the work that they can. */
  | 'hang'
  | 'clock jump'
  | 'service down'
  | 'broker down'
  | 'broker slow'
  | 'database down'
  | 'conflicts'
  | 'rebalance'
  | 'rewind'
  | 'replay of the log'
  | 'loss of the log'
  | 'topic recreated'
  | 'foreign message'

export const PROFILES = {
  calm: { mishaps: {}, troubles: {}, events: {}, clocks: 'true' },
  network: {
    mishaps: {},
    troubles: {
      'call lost': 0.1,
      'answer lost': 0.12,
      'call slow': 0.1,
      'answer slow': 0.08,
      'call twice': 0.1,
      'message delayed': 0.1,
      'signal lost': 0.3,
      'step slow': 0.03,
    },
    events: { 'service down': 1, 'foreign message': 1 },
    clocks: 'true',
  },
  crashes: {
    mishaps: { 'crash before': 1, 'crash after': 1 },
    troubles: { 'message delayed': 0.05, 'step slow': 0.01 },
    events: { crash: 3, freeze: 1, 'service down': 1, 'foreign message': 1 },
    clocks: 'true',
  },
  broker: {
    mishaps: { fails: 0.5, unanswered: 0.5 },
    troubles: {
      'message delayed': 0.25,
      'message doubled': 0.1,
      'send in part': 0.1,
      'step slow': 0.05,
    },
    events: {
      'broker down': 2,
      'broker slow': 2,
      rebalance: 3,
      rewind: 2,
      'replay of the log': 1,
      'foreign message': 2,
    },
    clocks: 'true',
  },
  database: {
    mishaps: { 'crash after': 0.3, fails: 0.5, loses: 2, unanswered: 1 },
    troubles: { 'signal lost': 0.3, 'step slow': 0.05 },
    events: { crash: 1, 'database down': 2, 'foreign message': 1, conflicts: 5 },
    clocks: 'true',
  },
  'lost-log': {
    mishaps: { 'crash after': 0.3 },
    troubles: { 'message delayed': 0.2, 'call lost': 0.03, 'answer lost': 0.03 },
    events: { 'loss of the log': 1, 'broker down': 1, 'service down': 1 },
    clocks: 'true',
  },
  recreated: {
    mishaps: { 'crash after': 0.3, unanswered: 0.3 },
    troubles: { 'message delayed': 0.2, 'step slow': 0.02 },
    events: {
      'topic recreated': 3,
      'foreign message': 5,
      rewind: 1,
      'replay of the log': 1,
      rebalance: 1,
    },
    clocks: 'true',
  },
  freezes: {
    mishaps: { freezes: 0.5 },
    troubles: { 'message delayed': 0.1, 'step slow': 0.02 },
    events: { freeze: 2, hang: 1, rebalance: 1, crash: 1, 'foreign message': 1 },
    clocks: 'near',
  },
  clocks: {
    mishaps: { 'crash before': 0.3, 'crash after': 0.3, fails: 0.3 },
    troubles: {
      'message delayed': 0.1,
      'call lost': 0.03,
      'answer lost': 0.03,
      'signal lost': 0.2,
    },
    events: { 'clock jump': 4, crash: 2, freeze: 1, 'service down': 1, 'broker down': 1 },
    clocks: 'wrong',
  },
  storm: {
    mishaps: { 'crash before': 0.5, 'crash after': 0.7, fails: 0.3, loses: 0.5, unanswered: 0.5 },
    troubles: {
      'call lost': 0.06,
      'answer lost': 0.06,
      'call slow': 0.05,
      'answer slow': 0.05,
      'call twice': 0.05,
      'message delayed': 0.15,
      'message doubled': 0.05,
      'send in part': 0.05,
      'signal lost': 0.2,
      'step slow': 0.02,
    },
    events: {
      crash: 2,
      freeze: 2,
      'service down': 1,
      'broker down': 1,
      'database down': 1,
      rebalance: 2,
      rewind: 1,
      'replay of the log': 1,
      'foreign message': 2,
      conflicts: 1,
    },
    clocks: 'near',
  },
} as const satisfies Record<string, Profile>

export type ProfileName = keyof typeof PROFILES

export const isProfileName = (name: string): name is ProfileName => Object.hasOwn(PROFILES, name)

/**
 * The profile for a number from 0 to 1 that a seed draws; one seed in ten gets a storm, which combines most
 * faults.
 */
export function profileOf(draw: number): ProfileName {
  const shares: readonly [ProfileName, number][] = [
    ['calm', 0.05],
    ['network', 0.14],
    ['crashes', 0.12],
    ['broker', 0.13],
    ['database', 0.1],
    ['lost-log', 0.1],
    ['freezes', 0.1],
    ['recreated', 0.08],
    ['clocks', 0.08],
  ]
  let sum = 0
  for (const [name, share] of shares) {
    sum += share
    if (draw < sum) return name
  }
  return 'storm'
}
