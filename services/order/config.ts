import Type, { type Static } from 'typebox'
import { styleConfig } from '../../chassis/flow-config.ts'
import { durationMs } from '../../platform/process/config.ts'

/** What order needs to know; the process adds addresses and limits of the platform. */
export const orderConfig = {
  ...styleConfig,
  UNIT_PRICE: Type.String({
    default: '65',
    pattern: '^(?!0+(\\.0{1,2})?$)[0-9]{1,6}(\\.[0-9]{1,2})?$',
    description: 'what one unit of the product costs, in units of money',
  }),
  ASK_AGAIN_AFTER_MS: durationMs({
    default: 5_000,
    minimum: 100,
    description: 'how long an order is PENDING before billing is asked again; doubles each time',
  }),
  ASK_AGAIN: Type.Boolean({
    default: true,
    description:
      'whether requests that billing has not answered are repeated; false for a billing that does not deduplicate by order',
  }),
  VOID_ATTEMPTS: Type.Integer({
    default: 10,
    minimum: 1,
    maximum: 1_000,
    description:
      'how often billing is asked to confirm a void before the order counts as stuck; after that it is asked once an hour',
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
