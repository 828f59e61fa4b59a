import { type CommandOptions, createCommands } from './commands.ts'
import type { Comparison, Difference, Result, Service } from './differences.ts'
import { KINDS } from './differences.ts'
import { compareAccounts, compareLedger } from './ledger.ts'
import { compareMessages } from './messages.ts'
import { compareForgottenOrders, compareOrders } from './orders-and-payments.ts'

export interface ReconcileOptions
  extends CommandOptions,
    Pick<Comparison, 'databases' | 'bus' | 'since'> {
  /** The database that was restored. If absent, differences are reported whichever database explains them. */
  readonly restored?: Service
  readonly apply: boolean
  readonly report: (difference: Difference, result: Result) => void
}

/**
 * Compares the databases of the three services, repairs the differences if `apply` is set, and reports each
 * difference. Accounts are compared before deposits, deposits before payments, and messages last, because
 * later repairs depend on earlier ones. Rejects if a database cannot be read or written.
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
    await compareLedger(at, commands)
  }
  if (isWanted('billing') || isWanted('orders')) await compareOrders(at, commands)
  if (isWanted('orders')) await compareForgottenOrders(at, commands)
  if (isWanted('notification')) await compareMessages(at, commands)
}
