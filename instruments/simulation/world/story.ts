import { createHash } from 'node:crypto'
import type { Mishap, Step } from '../faults/mishaps.ts'
import type { Life } from './lives.ts'
import { START_MS } from './scheduler.ts'

export type Column = 'customer' | 'order' | 'billing' | 'notification' | 'broker'

export interface Arrow {
  readonly timeMs: number
  readonly from: Column
  readonly to: Column
  readonly text: string
}

/**
 * The record of a run. Every step goes into a fingerprint. Two runs have the same fingerprint only if they
 * are identical. If the run is traced, the messages, calls and faults are also kept as arrows of a sequence
 * diagram.
 */
export interface Story {
  step(life: Life, step: Step, mishap: Mishap | undefined): void
  /** Adds an arrow, and its text to the fingerprint. */
  record(from: Column, to: Column, text: string): void
  /** Adds a text to the fingerprint only. */
  note(text: string): void
  fingerprint(): string
  arrows(): readonly Arrow[]
}

export function createStory(now: () => number, isTraced: boolean): Story {
  const hash = createHash('sha256')
  const arrows: Arrow[] = []
  const record = (from: Column, to: Column, text: string) => {
    hash.update(`${now()} ${from} ${to} ${text}\n`)
    if (isTraced) arrows.push({ timeMs: now() - START_MS, from, to, text })
  }
  return {
    step(life, { kind, label }, mishap) {
      hash.update(`${now()} ${life.name} ${kind} ${label} ${mishap ?? ''}\n`)
      if (mishap && life.service !== 'customer') {
        record(life.service, life.service, `${life.name}: ${mishap}: ${kind} ${label}`)
      }
    },
    record,
    note: (text) => void hash.update(`${text}\n`),
    fingerprint: () => hash.copy().digest('hex'),
    arrows: () => arrows,
  }
}
