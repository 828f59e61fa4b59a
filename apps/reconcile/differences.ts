import type { Database } from '../../platform/database/database.ts'

/**
 * The kinds of differences between three databases, one of which was restored to an earlier time. `restored`
 * is the database whose restore explains the difference. `repair` says what --apply does; it is null if the
 * difference cannot be repaired.
 */
export const KINDS = {
  ACCOUNT_MISSING: {
    restored: 'billing',
    found: 'accounts that the billing service does not have',
    repair: 'created under their ids',
  },
  DEPOSIT_MISSING: {
    restored: 'billing',
    found: 'deposits that were announced, but that the billing service has not booked',
    repair: 'booked under their ids',
  },
  PAYMENT_MISSING: {
    restored: 'billing',
    found: 'paid orders without a payment',
    repair: 'paid at their price',
  },
  REFUND_MISSING: {
    restored: 'billing',
    found: 'canceled orders whose payment was not refunded',
    repair: 'refunded',
  },
  VOID_MISSING: {
    restored: 'billing',
    found: 'canceled orders without a payment or a void',
    repair: 'voided, so that they can never be paid',
  },
  DEPOSIT_UNREADABLE: {
    restored: 'billing',
    found: 'deposits of unknown amount, because the text of their message was removed',
    repair: null,
  },
  PAYMENT_UNREADABLE: {
    restored: 'billing',
    found: 'payments of unknown amount, because the order service does not have their orders',
    repair: null,
  },
  PAYMENT_CONFLICT: {
    restored: 'billing',
    found: 'orders that contradict their payments',
    repair: null,
  },
  ORDER_FORGOTTEN: {
    restored: 'orders',
    found: 'PAID payments for orders that the order service does not have',
    repair: 'REFUNDED to the account that paid',
  },
  ORDER_UNSETTLED: {
    restored: 'orders',
    found:
      'PENDING orders whose outcome the billing service has; running services settle these orders by themselves',
    repair: 'settled',
  },
  ORDER_NOT_CANCELED: {
    restored: 'orders',
    found: 'approved orders whose payment was refunded',
    repair: 'canceled',
  },
  MESSAGE_MISSING: {
    restored: 'notification',
    found: 'outcomes without a message to the customer',
    repair: 'written, with a letter if the account has a contact',
  },
} as const satisfies Record<string, { restored: Service; found: string; repair: string | null }>
export type Kind = keyof typeof KINDS

export const SERVICES = ['orders', 'billing', 'notification'] as const
export type Service = (typeof SERVICES)[number]

export interface Difference {
  readonly kind: Kind
  /** The id of an account, an order, a deposit or an event. */
  readonly id: string
  readonly accountId: string | null
  readonly amountMinor?: bigint
  /** Details that the kind of the difference does not tell. */
  readonly detail?: string
}

/** `failed` means that nothing was changed; `why` is the reason. */
export type Result =
  | { readonly kind: 'listed' }
  | { readonly kind: 'repaired' }
  | { readonly kind: 'failed'; readonly why: string }

/** Makes a repair in one transaction. Resolves with undefined, or with the reason if nothing was changed. */
export type Repair = () => Promise<string | undefined>

export interface Comparison {
  readonly databases: Readonly<Record<Service, Database>>
  /** The database of the embedded bus, if the embedded bus is the broker. */
  readonly bus?: Database
  /** Rows that last changed before this time are skipped. If null, all rows are compared. */
  readonly since: Date | null
  /** Repairs a difference if repairs are requested, and reports it. */
  found(difference: Difference, repair?: Repair): Promise<void>
}
