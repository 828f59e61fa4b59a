import type { InteractionStyle } from '../../../contracts/style.ts'
import type { Queryable } from '../../../platform/database/database.ts'

/** A violation: of an invariant of the audit, of `history`, of `foreign` (messages) or of a `scenario`. */
export interface Finding {
  readonly invariant: string
  readonly subject: string
  readonly sentence: string
}

/** Adds a finding; the invariant is `history` by default. */
export type Add = (subject: string, sentence: string, invariant?: string) => void

/** The rows that the checks need, as they are in the databases at the end of a run. */
export interface Tables {
  readonly accounts: readonly { id: string }[]
  readonly entries: readonly {
    accountId: string
    version: number
    kind: 'DEPOSIT' | 'PAYMENT' | 'REFUND'
    amountMinor: bigint
    balanceAfterMinor: bigint
  }[]
  readonly deposits: readonly { accountId: string; amountMinor: bigint }[]
  readonly payments: readonly {
    id: string
    orderId: string
    accountId: string | null
    amountMinor: bigint | null
    state: 'PAID' | 'REFUSED' | 'VOIDED' | 'REFUNDED'
    created: Date
  }[]
  readonly orders: readonly {
    id: string
    profileId: string
    quantity: number
    priceMinor: bigint
    state: 'PENDING' | 'APPROVED' | 'CANCELED'
    reason: string | null
    style: InteractionStyle
    created: Date
    updated: Date
  }[]
  readonly messages: readonly {
    id: string
    accountId: string
    event: string
    eventId: string
    created: Date
  }[]
}

/** Reads the tables of the three schemas, in one shared database or in a database each. */
export async function readTables(databases: {
  readonly orders: Queryable
  readonly billing: Queryable
  readonly notification: Queryable
}): Promise<Tables> {
  const { orders, billing, notification } = databases
  return {
    accounts: await billing.query('select id from billing.account'),
    entries: await billing.query(
      `select account_id as "accountId", version, kind, amount_minor as "amountMinor",
         balance_after_minor as "balanceAfterMinor"
       from billing.transfer order by account_id, version`,
    ),
    deposits: await billing.query(
      'select account_id as "accountId", amount_minor as "amountMinor" from billing.deposit',
    ),
    payments: await billing.query(
      `select id, order_id as "orderId", account_id as "accountId",
         amount_minor as "amountMinor", state, created from billing.payment`,
    ),
    orders: await orders.query(
      `select id, profile_id as "profileId", product_quantity as quantity,
         price_minor as "priceMinor", state, reason, style, created, updated from orders.orders`,
    ),
    messages: await notification.query(
      `select id, account_id as "accountId", event, event_id as "eventId", created
       from notification.message order by seq`,
    ),
  }
}
