import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/** Billing's own settings; the process adds the addresses of other services and the platform's limits. */
export const billingConfig = {
  ...styleConfig,
  DEPOSIT_RESEND_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description:
      'how long after a DEPOSIT_REQUEST it is resent if it is not booked; doubles each time',
  }),
} as const

const schema = Type.Object(billingConfig)
export type BillingConfig = Static<typeof schema>
