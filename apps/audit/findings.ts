import type { BusMessage } from '../../messaging/bus.ts'
import type { Queryable } from '../../platform/database/database.ts'

/** The books of a deployment: the database of each service, and what is known beside them. */
export interface Books {
  readonly orders: Queryable
  readonly billing: Queryable
  readonly notification: Queryable
  /** The embedded log, where that is the broker. */
  readonly bus?: Queryable
  /** Letters that were found where letters go, each as often as it was found. */
  readonly letters?: readonly Letter[]
  /** All that the topics ever got, each partition in its sequence; where there is a way to read it. */
  readonly topics?: readonly BusMessage[]
  /** Epoch milliseconds. */
  readonly now: number
  /** Faults and requests have stopped, and everything had its time: all must be final. */
  readonly settled?: boolean
}

export interface Letter {
  readonly messageId: string
  readonly recipient: string
}

/** The invariants, as their names and sentences; `audit` is what they say as code. */
export const INVARIANTS = {
  I1: 'all transfers sum to zero; a balance is the sum of its entries and never negative',
  I2: 'at most one debit per order, at most one credit per deposit',
  I3: 'an approved order has one net debit of its price, any other none once settled',
  I4: 'every order is approved or canceled within its time',
  I5: 'every committed outcome is announced, every announcement has a committed cause',
  I6: 'announcements about one account come in the order of its ledger',
  I7: 'one message per event, one letter per message',
  I8: 'nobody reads or changes what belongs to somebody else',
  I9: 'queues and tables hold nothing but work that is truly outstanding',
} as const
export type Invariant = keyof typeof INVARIANTS

export interface Violation {
  readonly invariant: Invariant
  /** What it is about: `order 0198…`, `account 0198…`, `outbox of billing`. */
  readonly subject: string
  /** What is wrong with the subject; read after it. */
  readonly sentence: string
}

/** Told how much of what an invariant was checked on. */
export type Checked = (invariant: Invariant, count: number, what: string) => void

/** So many violations of one invariant are kept: whoever has more has enough to read. */
export const MAX_VIOLATIONS_EACH = 1_000

export interface Findings {
  readonly violations: readonly Violation[]
  readonly checked: Checked
  add(invariant: Invariant, subject: string, sentence: string): void
}

export function createFindings(checked: Checked = () => {}): Findings {
  const violations: Violation[] = []
  const counts = new Map<Invariant, number>()
  return {
    violations,
    checked,
    add(invariant, subject, sentence) {
      const count = (counts.get(invariant) ?? 0) + 1
      counts.set(invariant, count)
      if (count <= MAX_VIOLATIONS_EACH) violations.push({ invariant, subject, sentence })
    },
  }
}
