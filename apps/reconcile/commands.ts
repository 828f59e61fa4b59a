import { createIdempotency } from '../../chassis/idempotency.ts'
import { toUnits } from '../../contracts/money.ts'
import { type InteractionStyle, STYLE_OF_UNLABELED_EVENTS } from '../../contracts/style.ts'
import { createOutbox } from '../../messaging/outbox/outbox.ts'
import type { Runtime } from '../../platform/async/runtime.ts'
import { type Database, transact } from '../../platform/database/database.ts'
import { applyCommands } from '../../services/billing/commands.ts'
import type { Command } from '../../services/billing/ledger.ts'
import { findPayments, lockAccounts } from '../../services/billing/store.ts'
import { writeMessages } from '../../services/notification/commands.ts'
import type { Notice } from '../../services/notification/message.ts'
import { type AddressedCommand, applyBatch } from '../../services/order/commands.ts'
import type { Service } from './differences.ts'

/**
 * Repairs, as the commands that the services themselves run, each in one transaction on the service's
 * own database. What it causes others to do goes into that service's outbox under the usual ids; the
 * running services deliver it, and receivers deduplicate. A command that finds its effect done changes
 * nothing, so services may work at the same time.
 */
export interface CommandOptions {
  readonly databases: Readonly<Record<Service, Database>>
  readonly runtime: Pick<Runtime, 'now' | 'uuid'>
  /** When order asks billing to confirm a void, and cancels a pending order. */
  readonly resendAfterMs: number
  readonly deadlineMs: number
  readonly lettersPerHour: number
}

/** The terms of a payment for an order. */
export interface Terms {
  readonly orderId: string
  readonly accountId: string
  readonly amountMinor: bigint
  readonly style: InteractionStyle
}

/** Each resolves with the reason where the service refused, and nothing was changed. */
export type Commands = ReturnType<typeof createCommands>

export function createCommands(options: CommandOptions) {
  const { databases, runtime } = options
  const { orders, billing, notification } = databases
  const inBilling = { outbox: createOutbox('billing'), idempotency: createIdempotency('billing') }
  const inOrders = { outbox: createOutbox('orders'), idempotency: createIdempotency('orders') }
  const ofNotification = createOutbox('notification')

  async function bill(command: Command): Promise<string | undefined> {
    const context = { ...inBilling, now: runtime.now() }
    const [applied] = await transact(billing, (tx) => applyCommands(tx, context, [{ command }]))
    if (applied?.kind !== 'applied' || applied.outcome.kind !== 'refused') return undefined
    return `billing refuses it: ${applied.outcome.code}`
  }

  return {
    createAccount: (accountId: string) =>
      bill({
        type: 'createAccount',
        accountId,
        style: STYLE_OF_UNLABELED_EVENTS,
        byMessage: false,
      }),

    /** Messages don't tell the style of a deposit; it only decides how the deposit is announced. */
    deposit: (depositId: string, accountId: string, amountMinor: bigint) =>
      bill({
        ...({ type: 'deposit', style: STYLE_OF_UNLABELED_EVENTS, byMessage: false } as const),
        ...{ depositId, accountId, amountMinor },
      }),

    voidPayment: (orderId: string, accountId: string | null, style: InteractionStyle) =>
      bill({
        ...({ type: 'void', byMessage: false, byOrder: true, paymentId: runtime.uuid() } as const),
        ...{ orderId, accountId, style },
      }),

    /** Never leaves a refusal behind, which would be final: an account that lacks money is left as it is. */
    pay: ({ orderId, accountId, amountMinor, style }: Terms) =>
      transact(billing, async (tx) => {
        const account = (await lockAccounts(tx, [accountId])).get(accountId)
        const known = (await findPayments(tx, [orderId])).get(orderId)
        if (known) return known.state === 'PAID' ? undefined : `its payment is ${known.state}`
        const balanceMinor = account?.balanceMinor ?? 0n
        if (balanceMinor < amountMinor) {
          return `account ${accountId} has ${toUnits(balanceMinor)} of ${toUnits(amountMinor)}`
        }
        const context = { ...inBilling, now: runtime.now() }
        const paymentId = runtime.uuid()
        const terms = { paymentId, orderId, accountId, amountMinor, style }
        await applyCommands(tx, context, [{ command: { ...terms, type: 'pay', byMessage: false } }])
        return undefined
      }),

    async moveOrder(command: AddressedCommand): Promise<string | undefined> {
      const { resendAfterMs, deadlineMs } = options
      const context = { ...inOrders, now: runtime.now(), resendAfterMs, deadlineMs }
      const work = { placements: [], commands: [command] }
      const { applied } = await transact(orders, (tx) => applyBatch(tx, context, work))
      if (applied[0] === 'not theirs') return `another account paid: ${command.profileId}`
      return applied[0] === 'unknown' ? 'order no longer knows it' : undefined
    },

    async writeMessage(notice: Notice): Promise<undefined> {
      const { lettersPerHour } = options
      const context = { outbox: ofNotification, newId: runtime.uuid, lettersPerHour }
      await transact(notification, (tx) => writeMessages(tx, context, [notice]))
    },
  }
}
