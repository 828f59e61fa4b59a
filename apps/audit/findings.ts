import type { BusMessage } from '../../messaging/bus.ts'
import type { Queryable } from '../../platform/database/database.ts'

/** What an audit reads: the database of each service, and more sources if they are available. */
export interface AuditInput {
  readonly orders: Queryable
  readonly billing: Queryable
  readonly notification: Queryable
  /** The database of the embedded bus, if the embedded bus is the broker. */
  readonly bus?: Queryable
  /** The letters in the Maildir or mailbox, including duplicates. */
  readonly letters?: readonly Letter[]
  /** All messages that were ever sent to the topics, sorted by offset within each partition. */
  readonly topics?: readonly BusMessage[]
  /** The current time, in epoch milliseconds. */
  readonly now: number
  /**
   * Whether all work must be finished, because requests and faults have stopped and the services have had
   * time to finish.
   */
  readonly settled?: boolean
}

export interface Letter {
  readonly messageId: string
  readonly recipient: string
}

/** The invariants that `audit` checks, as sentences. */
export const INVARIANTS = {
  I1: 'all transfers sum to zero; a balance is the sum of its entries and never negative',
  I2: 'at most one debit per order, at most one credit per deposit',
  I3: 'an approved order has one net debit of its price; once settled, any other order has none',
  I4: 'every order is approved or canceled by its deadline',
  I5: 'every committed outcome is announced, and every announcement has a committed cause',
  I6: 'announcements to an account arrive in the order of its ledger',
  I7: 'one message per event, one letter per message',
  I8: 'no customer reads or changes the data of another customer',
  I9: 'queues and tables hold only work that is still outstanding',
} as const
export type Invariant = keyof typeof INVARIANTS

export interface Violation {
  readonly invariant: Invariant
  /** The subject of the sentence, such as `order 0198…`, `account 0198…` or `outbox of billing`. */
  readonly subject: string
  /** What is wrong, as the rest of a sentence that begins with the subject. */
  readonly sentence: string
}

/** Reports that an invariant was checked on this number of rows, of the kind that `what` names. */
export type Checked = (invariant: Invariant, count: number, what: string) => void

/** The number of violations kept for each invariant. More would not help the reader. */
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
