import type { Database } from '../../platform/database/database.ts'

/**
 * The kinds of differences between three databases of which one was restored to an earlier time. `restored`
 * is the database whose restore explains the difference; `repair` says what --apply does, and is null if the
 * difference cannot be repaired.
 */
export const KINDS = {
  ACCOUNT_MISSING: {
    restored: 'billing',
    found: 'accounts that billing does not have',
    repair: 'created under their ids',
  },
  DEPOSIT_MISSING: {
    restored: 'billing',
    found: 'deposits that were announced but that billing has not applied',
    repair: 'applied under their ids',
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
    found: 'payments of unknown amount, because order does not have their order',
    repair: null,
  },
  PAYMENT_CONFLICT: {
    restored: 'billing',
    found: 'orders that contradict their payment',
    repair: null,
  },
  ORDER_FORGOTTEN: {
    restored: 'orders',
    found: 'PAID payments of orders that order does not have',
    repair: 'REFUNDED to the account that paid',
  },
  ORDER_UNSETTLED: {
    restored: 'orders',
    found: 'PENDING orders whose outcome billing has; running services settle them by themselves',
    repair: 'settled',
  },
  ORDER_NOT_CANCELED: {
    restored: 'orders',
    found: 'approved orders whose payment was refunded',
    repair: 'canceled',
  },
  MESSAGE_MISSING: {
    restored: 'notification',
    found: 'outcomes without a message to their customer',
    repair: 'written, with a letter if the account has a contact',
  },
} as const satisfies Record<string, { restored: Service; found: string; repair: string | null }>
export type Kind = keyof typeof KINDS

export const SERVICES = ['orders', 'billing', 'notification'] as const
export type Service = (typeof SERVICES)[number]

export interface Difference {
  readonly kind: Kind
  /** The id of an account, an order or a deposit, or an event's id. */
  readonly id: string
  readonly accountId: string | null
  readonly amountMinor?: bigint
  /** What the kind does not say. */
  readonly detail?: string
}

/** `failed`: nothing was changed, because of `why`. */
export type Result =
  | { readonly kind: 'listed' }
  | { readonly kind: 'repaired' }
  | { readonly kind: 'failed'; readonly why: string }

/** Runs one transaction; if it changed nothing, resolves with the reason. */
export type Repair = () => Promise<string | undefined>

export interface Comparison {
  readonly databases: Readonly<Record<Service, Database>>
  /** The database of the embedded bus, if that is the broker. */
  readonly bus?: Database
  /** Rows that last changed before this time are skipped; null compares all rows. */
  readonly since: Date | null
  /** Reports a difference, after repairing it if that is requested. */
  found(difference: Difference, repair?: Repair): Promise<void>
}
