import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/** Order's own settings; the process adds the addresses of other services and the platform's limits. */
export const orderConfig = {
  ...styleConfig,
  UNIT_PRICE: Type.String({
    default: '65',
    pattern: '^(?!0+(\\.0{1,2})?$)[0-9]{1,6}(\\.[0-9]{1,2})?$',
    description: 'what one unit of the product costs, in units of money',
  }),
  RESEND_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description:
      'how long after a request to billing it is resent if there is no outcome; doubles each time',
  }),
  RESEND: Type.Boolean({
    default: true,
    description:
      'whether requests without an outcome are resent to billing; false for a billing that does not deduplicate by order',
  }),
  VOID_ATTEMPTS: Type.Integer({
    default: 10,
    minimum: 1,
    maximum: 1_000,
    description:
      'how many times a void is resent before the order counts as stuck; after that it is resent once an hour',
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
