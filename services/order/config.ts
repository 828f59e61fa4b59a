import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/**
 * The settings of the order service itself. The program that runs the service adds the URLs of other services
 * and the limits of the process.
 */
export const orderConfig = {
  ...styleConfig,
  UNIT_PRICE: Type.String({
    default: '65',
    pattern: '^(?!0+(\\.0{1,2})?$)[0-9]{1,6}(\\.[0-9]{1,2})?$',
    description: 'the price of one unit of the product, such as 65 or 65.50',
  }),
  RESEND_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description:
      'how long an order waits for an outcome before its request to the billing service is resent; the wait doubles each time',
  }),
  RESEND: Type.Boolean({
    default: true,
    description:
      'whether requests to the billing service that have no outcome are resent; false for a billing service that does not deduplicate by order',
  }),
  VOID_ATTEMPTS: Type.Integer({
    default: 10,
    minimum: 1,
    maximum: 1_000,
    description:
      'how many times the void of a canceled order is resent before the order counts as stuck; after that, the void is resent once an hour',
  }),
  ORDER_DEADLINE_MS: durationMs({
    default: 900_000,
    minimum: 1_000,
    maximum: 604_800_000,
    description: 'how long an order may be PENDING before it is canceled and its payment voided',
  }),
} as const

const schema = Type.Object(orderConfig)
export type OrderConfig = Static<typeof schema>
