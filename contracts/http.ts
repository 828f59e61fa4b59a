import Type, { type Static } from 'typebox'
import { EVENTS, type EventName, type PaymentEvent, REASONS, type Reason } from './events.ts'
import { MAX_AMOUNT_MINOR, toUnits } from './money.ts'
import type { ProblemCode } from './problems.ts'
import { STYLES, styleSchema } from './style.ts'

/**
 * The shapes of HTTP requests and responses, each declared once: routes validate with them, types are derived
 * from them, and the OpenAPI document shows them. Amounts and balances are in units. Times are ISO 8601 in
 * UTC, with milliseconds.
 *
 * Some rules are checked in code after the schema, because their errors need a code or a message of their
 * own. The schema is then looser than the rule, and `documentedAs` is the exact schema for the OpenAPI
 * document.
 */
const closed = { additionalProperties: false } as const

const Uuid = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const Amount = Type.Number({ description: 'a positive amount with at most two decimals' })
/** An amount in a request body. `parseAmount` checks what this schema does not. */
const RequestedAmount = Type.Number({
  documentedAs: {
    type: 'number',
    exclusiveMinimum: 0,
    maximum: toUnits(MAX_AMOUNT_MINOR),
    multipleOf: 0.01,
  },
  description: 'a positive amount with at most two decimals',
})
const Balance = Type.Number({ description: 'a balance with at most two decimals' })
const StyleName = styleSchema({
  $id: 'InteractionStyle',
  description: 'how the services interact',
})
const ReasonName = literals<Reason>(Object.keys(REASONS) as Reason[])

export const Id = Type.String({ format: 'uuid', description: 'an id, as a JSON string' })
export const IdParams = Type.Object({ id: Uuid })

/**
 * One page of a list: `limit` rows after the `cursor`, which the previous page returned in the header
 * `x-next-cursor`.
 */
export const Page = Type.Object({
  limit: Type.Integer({ minimum: 1, maximum: 500, default: 100 }),
  // SQL compares the cursor with a bigint, and any number of 18 digits fits into one.
  cursor: Type.Optional(Type.String({ pattern: '^[0-9]{1,18}$' })),
})
export type Page = Static<typeof Page>
export const NEXT_CURSOR_HEADER = 'x-next-cursor'

/** The headers of requests that change something. */
export const CommandHeaders = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      description: 'a request repeated with the same key gets the response to the first request',
    }),
  ),
  'x-interaction-style': Type.Optional(
    Type.String({
      maxLength: 20,
      documentedAs: { type: 'string', enum: STYLES },
      description: 'how the services interact; the default is set by the deployment',
    }),
  ),
  'x-reason': Type.Optional(
    Type.String({
      maxLength: 40,
      description: 'why a payment failed; only the notification service reads this header',
    }),
  ),
  'x-deadline': Type.Optional(
    Type.String({
      maxLength: 40,
      description: 'for a payment: when its order expires (RFC 3339, UTC)',
    }),
  ),
})
export type CommandHeaders = Static<typeof CommandHeaders>

/** The problems of requests that store their response under an Idempotency-Key. */
export const KEYED_PROBLEMS = [
  'IDEMPOTENCY_KEY_IN_PROGRESS',
  'IDEMPOTENCY_KEY_REUSED',
] as const satisfies readonly ProblemCode[]

/** The problems of requests that may name a style. */
export const STYLE_PROBLEMS = [
  'UNKNOWN_STYLE',
  'STYLE_OVERRIDE_FORBIDDEN',
] as const satisfies readonly ProblemCode[]

// Orders

export const Owner = Type.Object({ profileId: Uuid })
export const OwnerPage = Type.Object({ profileId: Uuid, ...Page.properties })

export const PlaceOrder = Type.Object(
  { productQuantity: Type.Integer({ minimum: 1, maximum: 1_000_000 }) },
  closed,
)

export const Order = Type.Object(
  {
    id: Uuid,
    profileId: Uuid,
    orderNumber: Type.Integer({
      description: 'ascending number of the order, counted over all profiles',
    }),
    productQuantity: Type.Integer(),
    state: Type.Union([
      Type.Literal('PENDING'),
      Type.Literal('APPROVED'),
      Type.Literal('CANCELED'),
    ]),
    price: Amount,
    style: StyleName,
    reason: Type.Union([ReasonName, Type.Null()], { description: 'why the order was canceled' }),
    created: Time,
    updated: Time,
  },
  closed,
)
export type OrderView = Static<typeof Order>

export const WaitingPage = Type.Object({
  limit: Page.properties.limit,
  cursor: Type.Optional(Uuid),
  waitsFor: Type.Optional(Type.Union([Type.Literal('payment'), Type.Literal('void')])),
  stuck: Type.Optional(
    Type.Boolean({
      description:
        'true: only canceled orders whose void is still unconfirmed after VOID_ATTEMPTS attempts',
    }),
  ),
})
export type WaitingPage = Static<typeof WaitingPage>

/** An order that is waiting for the billing service, as operators see it. */
export const WaitingOrder = Type.Object(
  {
    id: Uuid,
    profileId: Uuid,
    state: Order.properties.state,
    style: StyleName,
    reason: Order.properties.reason,
    waitsFor: Type.Union([Type.Literal('payment'), Type.Literal('void')], {
      description: 'what the billing service has not answered yet',
    }),
    attempts: Type.Integer({ description: 'how many times a resend has been due' }),
    nextAttempt: Time,
    deadline: Type.Union([Time, Type.Null()], {
      description:
        'when a PENDING order will be canceled; null for an order that is waiting for its void',
    }),
    stuck: Type.Boolean({
      description: 'whether the void is still unconfirmed after VOID_ATTEMPTS attempts',
    }),
    created: Time,
  },
  closed,
)
export type WaitingOrderView = Static<typeof WaitingOrder>

export const WaitHeaders = Type.Object({
  prefer: Type.Optional(
    Type.String({
      maxLength: 200,
      description: 'wait=5: wait up to 5 s for the outcome of the order',
    }),
  ),
})

// Billing

export const Account = Type.Object(
  { id: Uuid, balance: Balance, created: Time, updated: Time },
  closed,
)

const UP_TO_16_DIGITS = '(?=[0-9]{1,16}([.]|$))'
const BELOW_ONE = '0+[.](0[1-9]|[1-9][0-9]?)'
const ONE_AND_MORE = '0*[1-9][0-9]{0,8}([.][0-9]{1,2})?'
const THE_LARGEST = '0*10{9}([.]0{1,2})?'

export const Deposit = Type.Object({
  amount: Type.String({
    documentedAs: {
      type: 'string',
      pattern: `^${UP_TO_16_DIGITS}(${BELOW_ONE}|${ONE_AND_MORE}|${THE_LARGEST})$`,
      examples: ['199.50'],
    },
    description: 'a positive amount in units with at most two decimals, at most 1000000000',
  }),
})

export const Pay = Type.Object(
  { accountId: Uuid, amount: RequestedAmount, orderId: Type.Optional(Uuid) },
  closed,
)

export const OrderIdParams = Type.Object({ orderId: Uuid })

export const Void = Type.Object({ accountId: Type.Optional(Uuid) }, closed)

export const Payment = Type.Object(
  {
    id: Uuid,
    orderId: Uuid,
    accountId: Type.Union([Uuid, Type.Null()]),
    amount: Type.Union([Amount, Type.Null()]),
    state: Type.Union([
      Type.Literal('PAID'),
      Type.Literal('REFUSED'),
      Type.Literal('VOIDED'),
      Type.Literal('REFUNDED'),
    ]),
    reason: Type.Union([ReasonName, Type.Null()]),
    created: Time,
    updated: Time,
  },
  closed,
)
export type PaymentView = Static<typeof Payment>

export const Voided = Type.Object(
  { orderId: Uuid, state: Payment.properties.state },
  {
    ...closed,
    description: 'VOIDED: never paid; REFUNDED: paid and refunded; REFUSED: payment refused',
  },
)

export const Entry = Type.Object(
  {
    version: Type.Integer({
      description: 'the position in the ledger of the account, starting at 1',
    }),
    time: Time,
    kind: Type.Union([Type.Literal('DEPOSIT'), Type.Literal('PAYMENT'), Type.Literal('REFUND')]),
    orderId: Type.Union([Uuid, Type.Null()]),
    depositId: Type.Union([Type.String(), Type.Null()]),
    amount: Type.Number({ description: 'the change of the balance; negative for a payment' }),
    balanceAfter: Balance,
  },
  closed,
)

// Notification. A call has the same body as the event that it announces; everything else travels in headers.

const notices = (Object.keys(EVENTS) as EventName[]).filter(
  (name): name is PaymentEvent['event'] => EVENTS[name].topic === 'payment',
)

export const Notify = Type.Object(
  {
    accountId: Uuid,
    event: literals<PaymentEvent['event']>(notices),
    orderId: Type.Optional(Uuid),
    value: Type.Optional(Type.Number()),
  },
  {
    ...closed,
    documentedAs: {
      oneOf: [
        notice('ORDER_PAID', 'orderId'),
        notice('PAYMENT_FAIL', 'orderId'),
        notice('DEPOSIT_ACCEPTED', 'value'),
        notice('PAYMENT_REFUNDED', 'orderId', 'value'),
      ],
    },
  },
)

/**
 * The schema for the body of a call that announces this event. Fields that the event does not need are
 * ignored.
 */
function notice(event: PaymentEvent['event'], ...needed: readonly ('orderId' | 'value')[]) {
  const value = needed.includes('value') ? RequestedAmount : { type: 'number' }
  return {
    type: 'object',
    properties: { accountId: Uuid, event: { type: 'string', enum: [event] }, orderId: Uuid, value },
    required: ['accountId', 'event', ...needed],
    additionalProperties: false,
  }
}
export type Notify = Static<typeof Notify>

export const Message = Type.Object(
  { id: Uuid, account: Uuid, text: Type.String(), event: Type.String(), created: Time },
  closed,
)

export const AccountIdParams = Type.Object({ accountId: Uuid })

export const Contact = Type.Object(
  { email: Type.String({ format: 'email', maxLength: 254 }) },
  closed,
)

// Dead letters. Every service has the same routes for them.

export const DeadLetter = Type.Object(
  {
    id: Uuid,
    source: literals(['broker', 'outbox']),
    topic: Type.String({ description: 'for source outbox: carrier:destination' }),
    partition: Type.Integer(),
    offset: Type.String({
      description: 'the offset in the partition; for source outbox: the id of the outbox row',
    }),
    key: Type.Union([Type.String(), Type.Null()]),
    body: Type.Union([Type.String(), Type.Null()], {
      description: 'as text if it is UTF-8, otherwise as base64',
    }),
    encoding: Type.Optional(
      Type.Literal('base64', { description: 'present if the body is not text' }),
    ),
    headers: Type.Record(Type.String(), Type.String()),
    code: Type.String(),
    reason: Type.String({
      description: 'why the message became a dead letter, or why its last replay failed',
    }),
    created: Time,
  },
  closed,
)
export type DeadLetterView = Static<typeof DeadLetter>

export const Replay = Type.Object(
  {
    body: Type.Optional(
      Type.Union([Type.String(), Type.Record(Type.String(), Type.Unknown())], {
        description:
          'the body to handle instead of the stored one: JSON, or text that is used as it is',
      }),
    ),
    to: Type.Optional(
      Type.Literal('current', {
        description: 'for a letter: send it to the current contact of the account',
      }),
    ),
  },
  closed,
)
export type Replay = Static<typeof Replay>

// The outbox. Every service has the same route for it.

export const OutboxPage = Type.Object({
  ...Page.properties,
  carrier: Type.Optional(literals(['broker', 'http', 'letter'])),
  // PostgreSQL's text type does not allow the null character.
  key: Type.Optional(Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\u0000]+$' })),
})
export type OutboxPage = Static<typeof OutboxPage>

export const OutboxEntry = Type.Object(
  {
    id: Type.String({ description: 'ascending in the order of delivery within a carrier and key' }),
    carrier: literals(['broker', 'http', 'letter']),
    destination: Type.String({ description: 'a topic, the path of a call, or an address' }),
    key: Type.String(),
    eventId: Type.String(),
    attempts: Type.Integer({ description: 'failed attempts so far' }),
    due: Time,
    lastError: Type.Union([Type.String(), Type.Null()]),
    created: Time,
  },
  closed,
)

function literals<Name extends string>(names: readonly Name[]) {
  return Type.Unsafe<Name>(Type.Union(names.map((name) => Type.Literal(name))))
}
