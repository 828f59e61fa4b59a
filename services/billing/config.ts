import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/**
 * The settings of the billing service itself. The program that runs the service adds the URLs of other
 * services and the limits of the process.
 */
export const billingConfig = {
  ...styleConfig,
  CUSTOMER_DEPOSITS: Type.Boolean({
    default: false,
    description:
      'With AUTH=jwt: whether customers may deposit to their own accounts; otherwise only tokens with the scope deposits:write may.',
  }),
  DEPOSIT_RESEND_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description:
      'how long a promised deposit may stay unbooked before its DEPOSIT_REQUEST is resent; the wait doubles each time',
  }),
} as const

const schema = Type.Object(billingConfig)
export type BillingConfig = Static<typeof schema>
