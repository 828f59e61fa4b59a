import { type CommandOptions, createCommands } from './commands.ts'
import type { Comparison, Difference, Result, Service } from './differences.ts'
import { KINDS } from './differences.ts'
import { compareMessages } from './messages.ts'
import { compareAccounts, compareMoneyTold } from './money-told.ts'
import { compareForgottenOrders, compareOrders } from './orders-and-payments.ts'

export interface ReconcileOptions
  extends CommandOptions,
    Pick<Comparison, 'databases' | 'bus' | 'since'> {
  /** The database that went back in time: only its differences count. Without it all of them do. */
  readonly restored?: Service
  readonly apply: boolean
  readonly report: (difference: Difference, result: Result) => void
}

/**
 * Compares what the three services know of each other's work, repairs the differences on demand, and
 * reports each. Accounts come before deposits, deposits before payments, and messages last, so that a
 * repair finds what it builds on. Rejects when a database does.
 */
export async function reconcile(options: ReconcileOptions): Promise<void> {
  const { restored, apply, report } = options
  const commands = createCommands(options)
  const at: Comparison = {
    ...options,
    async found(difference, repair) {
      if (restored !== undefined && KINDS[difference.kind].restored !== restored) return
      if (!apply || repair === undefined) return report(difference, { kind: 'listed' })
      const why = await repair()
      report(difference, why === undefined ? { kind: 'repaired' } : { kind: 'failed', why })
    },
  }
  const isWanted = (service: Service) => restored === undefined || restored === service
  if (isWanted('billing')) {
    await compareAccounts(at, commands)
    await compareMoneyTold(at, commands)
  }
  if (isWanted('billing') || isWanted('orders')) await compareOrders(at, commands)
  if (isWanted('orders')) await compareForgottenOrders(at, commands)
  if (isWanted('notification')) await compareMessages(at, commands)
}
