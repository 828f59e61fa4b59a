import Type, { type Static, type TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { parseAmount, toUnits } from './money.ts'
import { type InteractionStyle, isStyle, STYLE_HEADER } from './style.ts'
import { type TraceContext, traceContextOf, traceOf } from './trace-context.ts'
import { lowerUuids } from './uuid.ts'

/**
 * The events: topics, JSON bodies and headers. Bodies are a published contract with strict readers,
 * so a body has exactly the fields below; everything else travels in headers (CloudEvents 1.0,
 * Kafka binary binding). Source: the design's event contract.
 */
const Uuid = Type.String({ format: 'uuid' })
const Money = Type.Number({ description: 'a positive amount with at most two decimals' })
const Balance = Type.Number({ minimum: 0, description: 'a balance with at most two decimals' })

const closed = { additionalProperties: false } as const

export const EVENTS = {
  ORDER_CREATED: {
    topic: 'billing',
    from: 'order',
    summary: 'An order waits for its payment.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_CREATED'), orderId: Uuid, accountId: Uuid, price: Money },
      closed,
    ),
  },
  DEPOSIT_REQUEST: {
    topic: 'billing',
    from: 'billing',
    summary: 'Money is to be put on an account.',
    schema: Type.Object(
      { event: Type.Literal('DEPOSIT_REQUEST'), accountId: Uuid, value: Money },
      closed,
    ),
  },
  ORDER_CANCELED: {
    topic: 'billing',
    from: 'order',
    summary: 'An order is off: its payment is to be voided or refunded.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_CANCELED'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  ORDER_PAID: {
    topic: 'payment',
    from: 'billing',
    summary: 'The order is paid.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_PAID'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  PAYMENT_FAIL: {
    topic: 'payment',
    from: 'billing',
    summary:
      'The order is not paid; the header x-reason says why. In hybrid order may send it too.',
    schema: Type.Object(
      { event: Type.Literal('PAYMENT_FAIL'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  DEPOSIT_ACCEPTED: {
    topic: 'payment',
    from: 'billing',
    summary: 'The money is on the account.',
    schema: Type.Object(
      { event: Type.Literal('DEPOSIT_ACCEPTED'), accountId: Uuid, value: Money },
      closed,
    ),
  },
  PAYMENT_REFUNDED: {
    topic: 'payment',
    from: 'billing',
    summary: 'The money of a paid order is back on the account.',
    schema: Type.Object(
      { event: Type.Literal('PAYMENT_REFUNDED'), orderId: Uuid, accountId: Uuid, value: Money },
      closed,
    ),
  },
} as const satisfies Record<
  string,
  { topic: Topic; from: 'order' | 'billing'; summary: string; schema: TSchema }
>

export const BALANCE_CHANGED = Type.Object(
  {
    accountId: Uuid,
    balance: Balance,
    version: Type.Integer({ minimum: 0, description: 'counts the changes of the account' }),
    updated: Type.String({ format: 'date-time' }),
  },
  closed,
)

export type Topic = 'billing' | 'payment' | 'balance'
export type EventName = keyof typeof EVENTS
export type EventOf<Name extends EventName> = Static<(typeof EVENTS)[Name]['schema']>
export type Event = { [Name in EventName]: EventOf<Name> }[EventName]
export type BillingEvent = EventOf<'ORDER_CREATED' | 'DEPOSIT_REQUEST' | 'ORDER_CANCELED'>
export type PaymentEvent = Exclude<Event, BillingEvent>
export type BalanceChanged = Static<typeof BALANCE_CHANGED>

/** Why a payment failed or an order was canceled; travels in the header `x-reason`. */
export const REASONS = {
  NOT_ENOUGH_MONEY: 'the account has not enough money',
  ACCOUNT_NOT_FOUND: 'there is no such account',
  ORDER_CANCELED: 'the order was canceled before its payment',
  BILLING_UNREACHABLE: 'billing could not be reached',
  DEADLINE_PASSED: 'no outcome was known before the deadline',
  DELETED: 'the customer deleted the order',
  REFUNDED: 'the payment was refunded',
  PAYMENT_MISMATCH: 'another payment was made for the order',
} as const
export type Reason = keyof typeof REASONS

export function isReason(text: unknown): text is Reason {
  return typeof text === 'string' && Object.hasOwn(REASONS, text)
}

/** What travels beside a body, in headers. */
export interface EventMeta extends TraceContext {
  /** Unique for ever: a message with the same id is the same message again. */
  readonly id: string
  readonly style?: InteractionStyle
  readonly reason?: Reason
  /** What ORDER_PAID took, in minor units; travels in the header `x-amount`, in units. */
  readonly amountMinor?: bigint
}

/** CloudEvents headers of the Kafka binary binding, and ours. `time` is in epoch milliseconds. */
export function eventHeaders(
  type: string,
  source: string,
  time: number,
  meta: EventMeta,
): Record<string, string> {
  return {
    ce_id: meta.id,
    ce_type: type,
    ce_source: `/trifold/${source}`,
    ce_time: new Date(time).toISOString(),
    ce_specversion: '1.0',
    'content-type': 'application/json',
    ...(meta.style && { [STYLE_HEADER]: meta.style }),
    ...(meta.reason && { 'x-reason': meta.reason }),
    ...traceOf(meta),
    ...(meta.amountMinor && { 'x-amount': String(toUnits(meta.amountMinor)) }),
  }
}

/** An event as a consumer gets it: the body as its schema says, its identity and its companions. */
export interface Received<Body> {
  readonly body: Body
  readonly meta: EventMeta
}

const validators = new Map<string, { topic: Topic; validator: ReturnType<typeof Compile> }>(
  Object.entries(EVENTS).map(([name, { topic, schema }]) => [
    name,
    { topic, validator: Compile(schema) },
  ]),
)

/**
 * Reads one message of a topic. Returns the event, or the sentence that says why it is poison: it
 * can never be read, however often it is tried. Without `ce_id` the position is the identity.
 */
export function decodeEvent<Body extends Event>(message: {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
}): Received<Body> | string {
  if (message.value === null) return 'the message has no body'
  let body: unknown
  try {
    body = lowerUuids(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.value)))
  } catch (error) {
    return `the body is not JSON: ${(error as Error).message}`
  }
  const name = (body as { event?: unknown } | null)?.event
  const known = typeof name === 'string' ? validators.get(name) : undefined
  if (known === undefined)
    return `the event ${String(JSON.stringify(name)).slice(0, 100)} is unknown`
  if (known.topic !== message.topic) return `${name} does not belong on topic ${message.topic}`
  const problem = known.validator.Errors(body)[0] ?? badMoney(body as Record<string, unknown>)
  if (problem) return `${name}${problem.instancePath} ${problem.message}`
  const { headers } = message
  const amountMinor = parseAmount(headers['x-amount'] ?? '')
  if (headers.ce_id && !EVENT_ID.test(headers.ce_id)) {
    return 'ce_id is not 1 to 200 printable ASCII characters without spaces'
  }
  return {
    body: body as Body,
    meta: {
      id: headers.ce_id || `${message.topic}/${message.partition}/${message.offset}`,
      ...(isStyle(headers[STYLE_HEADER]) && { style: headers[STYLE_HEADER] }),
      ...(isReason(headers['x-reason']) && { reason: headers['x-reason'] }),
      ...traceContextOf(headers),
      ...(typeof amountMinor === 'bigint' && { amountMinor }),
    },
  }
}

/** Ids become unique keys, which databases bound, and in `http` headers, which are ASCII. */
export const EVENT_ID = /^[\x21-\x7e]{1,200}$/

function badMoney(body: Record<string, unknown>) {
  for (const field of ['price', 'value']) {
    const value = body[field]
    const minor = typeof value === 'number' ? parseAmount(value) : 0n
    if (typeof minor === 'string') return { instancePath: `/${field}`, message: minor }
  }
  return undefined
}
