import { createIdempotency } from '../../chassis/idempotency.ts'
import { toUnits } from '../../contracts/money.ts'
import { type InteractionStyle, STYLE_OF_UNLABELED_EVENTS } from '../../contracts/style.ts'
import { createOutbox } from '../../messaging/outbox/outbox.ts'
import type { Runtime } from '../../platform/async/runtime.ts'
import { type Database, transact } from '../../platform/database/database.ts'
import { applyCommands as applyBillingCommands } from '../../services/billing/commands.ts'
import type { Command } from '../../services/billing/ledger.ts'
import { findPayments, lockAccounts } from '../../services/billing/store.ts'
import { applyCommands as applyNotices } from '../../services/notification/commands.ts'
import type { Notice } from '../../services/notification/message.ts'
import {
  type AddressedCommand,
  applyCommands as applyOrderCommands,
} from '../../services/order/commands.ts'
import type { Service } from './differences.ts'

/**
 * Repairs are the commands that the services themselves run, each in one transaction on the database of its
 * service. The messages of a command go into the outbox of that service under the usual ids. The running
 * service sends them, and receivers deduplicate them. A command that has already taken effect changes
 * nothing, so the services may run during a repair.
 */
export interface CommandOptions {
  readonly databases: Readonly<Record<Service, Database>>
  readonly runtime: Pick<Runtime, 'now' | 'uuid'>
  /** RESEND_AFTER_MS and ORDER_DEADLINE_MS of the order service. */
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

/** Each command resolves with undefined, or with the reason if it was refused and so changed nothing. */
export type Commands = ReturnType<typeof createCommands>

export function createCommands(options: CommandOptions) {
  const { databases, runtime } = options
  const { orders, billing, notification } = databases
  const inBilling = { outbox: createOutbox('billing'), idempotency: createIdempotency('billing') }
  const inOrders = { outbox: createOutbox('orders'), idempotency: createIdempotency('orders') }
  const notificationOutbox = createOutbox('notification')

  async function bill(command: Command): Promise<string | undefined> {
    const context = { ...inBilling, now: runtime.now() }
    const [applied] = await transact(billing, (tx) =>
      applyBillingCommands(tx, context, [{ command }]),
    )
    if (applied?.kind !== 'applied' || applied.outcome.kind !== 'refused') return undefined
    return `the billing service refused the command: ${applied.outcome.code}`
  }

  return {
    createAccount: (accountId: string) =>
      bill({
        type: 'createAccount',
        accountId,
        style: STYLE_OF_UNLABELED_EVENTS,
        byMessage: false,
      }),

    /**
     * The style of the original deposit is unknown, but the style only decides how the deposit is announced.
     */
    deposit: (depositId: string, accountId: string, amountMinor: bigint) =>
      bill({
        type: 'deposit',
        style: STYLE_OF_UNLABELED_EVENTS,
        byMessage: false,
        depositId,
        accountId,
        amountMinor,
      }),

    voidPayment: (orderId: string, accountId: string | null, style: InteractionStyle) =>
      bill({
        type: 'void',
        byMessage: false,
        byOrder: true,
        paymentId: runtime.uuid(),
        orderId,
        accountId,
        style,
      }),

    /**
     * Pays for an order, unless the account cannot cover the price, because a stored refusal would be final.
     */
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
        await applyBillingCommands(tx, context, [
          { command: { ...terms, type: 'pay', byMessage: false } },
        ])
        return undefined
      }),

    async applyToOrder(command: AddressedCommand): Promise<string | undefined> {
      const { resendAfterMs, deadlineMs } = options
      const context = { ...inOrders, now: runtime.now(), resendAfterMs, deadlineMs }
      const [applied] = await transact(orders, (tx) => applyOrderCommands(tx, context, [command]))
      if (applied?.kind === 'not theirs') {
        return `the order was paid by another account: ${command.profileId}`
      }
      return applied?.kind === 'unknown' ? 'the order no longer exists' : undefined
    },

    async writeMessage(notice: Notice): Promise<undefined> {
      const { lettersPerHour } = options
      const context = { outbox: notificationOutbox, newId: runtime.uuid, lettersPerHour }
      await transact(notification, (tx) => applyNotices(tx, context, [notice]))
    },
  }
}
