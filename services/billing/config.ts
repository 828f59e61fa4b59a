import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/** What billing needs to know; the process adds addresses and limits of the platform. */
export const billingConfig = {
  ...styleConfig,
  DEPOSIT_ASK_AGAIN_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description: 'how long a DEPOSIT_REQUEST may be out before it is sent again; doubles each time',
  }),
} as const

const schema = Type.Object(billingConfig)
export type BillingConfig = Static<typeof schema>
