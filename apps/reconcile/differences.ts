import type { Database } from '../../platform/database/database.ts'

/**
 * What can differ between three databases of which one went back in time. `restored` names the one
 * that explains the difference; `repair` says what --apply does, and is null where nothing can.
 */
export const KINDS = {
  ACCOUNT_MISSING: {
    restored: 'billing',
    found: 'accounts that billing does not know',
    repair: 'created under their ids',
  },
  DEPOSIT_MISSING: {
    restored: 'billing',
    found: 'deposits that customers were told of and billing has not applied',
    repair: 'applied under their ids',
  },
  PAYMENT_MISSING: {
    restored: 'billing',
    found: 'paid orders without a payment',
    repair: 'paid for at their price',
  },
  REFUND_MISSING: {
    restored: 'billing',
    found: 'canceled orders whose payment was not refunded',
    repair: 'refunded',
  },
  VOID_MISSING: {
    restored: 'billing',
    found: 'canceled orders of which billing knows nothing',
    repair: 'voided, so that they can never be paid',
  },
  DEPOSIT_UNREADABLE: {
    restored: 'billing',
    found: 'deposits whose amount is unknown because the text of their message was removed',
    repair: null,
  },
  PAYMENT_UNREADABLE: {
    restored: 'billing',
    found: 'payments whose amount is unknown because order does not know their order',
    repair: null,
  },
  PAYMENT_CONFLICT: {
    restored: 'billing',
    found: 'orders whose payment contradicts them',
    repair: null,
  },
  ORDER_FORGOTTEN: {
    restored: 'orders',
    found: 'PAID payments of orders that order does not know',
    repair: 'REFUNDED to the account that paid',
  },
  ORDER_UNSETTLED: {
    restored: 'orders',
    found: 'pending orders whose outcome billing knows; running services settle them by themselves',
    repair: 'settled',
  },
  ORDER_NOT_CANCELED: {
    restored: 'orders',
    found: 'approved orders whose payment was refunded',
    repair: 'canceled',
  },
  MESSAGE_MISSING: {
    restored: 'notification',
    found: 'outcomes that their customers have no message of',
    repair: 'written, with a letter where the account has a contact',
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
  /** What the kind does not say already. */
  readonly detail?: string
}

/** `failed`: nothing was changed, because of `why`. */
export type Result =
  | { readonly kind: 'listed' }
  | { readonly kind: 'repaired' }
  | { readonly kind: 'failed'; readonly why: string }

/** Runs one transaction; resolves with the reason where it changed nothing. */
export type Repair = () => Promise<string | undefined>

export interface Comparison {
  readonly databases: Readonly<Record<Service, Database>>
  /** The embedded log, where that is the broker. */
  readonly bus?: Database
  /** Rows that were last changed before this are left out; null compares everything. */
  readonly since: Date | null
  /** Reports a difference, and repairs it where that is wanted. */
  found(difference: Difference, repair?: Repair): Promise<void>
}
