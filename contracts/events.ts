import Type, { type Static, type TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { DEADLINE_HEADER, deadlineHeader, parseDeadline } from './deadline.ts'
import { parseAmount, toUnits } from './money.ts'
import { type InteractionStyle, isStyle, STYLE_HEADER } from './style.ts'
import { type TraceContext, traceContextOf, traceOf } from './trace-context.ts'
import { lowerUuids } from './uuid.ts'

/**
 * The events: topics, JSON bodies and headers. Bodies are a published contract, and foreign readers may
 * reject unknown fields. Bodies therefore have exactly the fields below, and everything else travels in
 * headers (CloudEvents 1.0, Kafka binary binding). Our own readers accept unknown events and fields, because
 * during a rolling upgrade they receive those of the next version.
 */
const Uuid = Type.String({ format: 'uuid' })
const Money = Type.Number({ description: 'a positive amount with at most two decimals' })
const Balance = Type.Number({ minimum: 0, description: 'a balance with at most two decimals' })

const closed = { additionalProperties: false } as const

export const EVENTS = {
  ORDER_CREATED: {
    topic: 'billing',
    from: 'order',
    summary: 'An order is awaiting payment.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_CREATED'), orderId: Uuid, accountId: Uuid, price: Money },
      closed,
    ),
  },
  DEPOSIT_REQUEST: {
    topic: 'billing',
    from: 'billing',
    summary: 'A deposit to an account was requested.',
    schema: Type.Object(
      { event: Type.Literal('DEPOSIT_REQUEST'), accountId: Uuid, value: Money },
      closed,
    ),
  },
  ORDER_CANCELED: {
    topic: 'billing',
    from: 'order',
    summary: 'An order was canceled: its payment has to be voided or refunded.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_CANCELED'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  ORDER_PAID: {
    topic: 'payment',
    from: 'billing',
    summary: 'An order was paid.',
    schema: Type.Object(
      { event: Type.Literal('ORDER_PAID'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  PAYMENT_FAIL: {
    topic: 'payment',
    from: 'billing',
    summary:
      'An order was not paid; the header x-reason says why. The order service sends this event for orders that it cancels itself.',
    schema: Type.Object(
      { event: Type.Literal('PAYMENT_FAIL'), orderId: Uuid, accountId: Uuid },
      closed,
    ),
  },
  DEPOSIT_ACCEPTED: {
    topic: 'payment',
    from: 'billing',
    summary: 'A deposit was added to the account.',
    schema: Type.Object(
      { event: Type.Literal('DEPOSIT_ACCEPTED'), accountId: Uuid, value: Money },
      closed,
    ),
  },
  PAYMENT_REFUNDED: {
    topic: 'payment',
    from: 'billing',
    summary: 'The payment of an order was refunded to the account.',
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
    version: Type.Integer({ minimum: 0, description: 'counts the changes of the balance' }),
    updated: Type.String({ format: 'date-time' }),
  },
  closed,
)

export type Topic = 'billing' | 'payment' | 'balance'
export type EventName = keyof typeof EVENTS
type EventOf<Name extends EventName> = Static<(typeof EVENTS)[Name]['schema']>
export type Event = { [Name in EventName]: EventOf<Name> }[EventName]
export type BillingEvent = EventOf<'ORDER_CREATED' | 'DEPOSIT_REQUEST' | 'ORDER_CANCELED'>
export type PaymentEvent = Exclude<Event, BillingEvent>
export type BalanceChanged = Static<typeof BALANCE_CHANGED>

/** Why a payment failed or an order was canceled. The header `x-reason` contains the key. */
export const REASONS = {
  NOT_ENOUGH_MONEY: 'the account does not have enough money',
  ACCOUNT_NOT_FOUND: 'there is no such account',
  ORDER_CANCELED: 'the order was canceled before its payment',
  BILLING_UNREACHABLE: 'the billing service could not be reached',
  DEADLINE_PASSED: 'the outcome was still unknown at the deadline',
  DELETED: 'the customer deleted the order',
  REFUNDED: 'the payment was refunded',
  PAYMENT_MISMATCH: 'the order already has a different payment',
} as const
export type Reason = keyof typeof REASONS

export function isReason(text: unknown): text is Reason {
  return typeof text === 'string' && Object.hasOwn(REASONS, text)
}

/** The values in the headers of an event. */
export interface EventMeta extends TraceContext {
  /** Identifies the event forever: a message whose id was seen before is a redelivery. */
  readonly id: string
  readonly style?: InteractionStyle
  readonly reason?: Reason
  /**
   * Present if the order service sent the event. Such an event says nothing about what the billing service
   * has done.
   */
  readonly isFromOrder?: true
  /**
   * The amount that was paid, on ORDER_PAID only, in minor units. The header `x-amount` contains it in units.
   */
  readonly amountMinor?: bigint
  /**
   * On ORDER_CREATED only, in epoch milliseconds. The billing service refuses a payment request that arrives
   * later.
   */
  readonly deadlineMs?: number
}

/**
 * Builds the headers of an event: those of the CloudEvents Kafka binary binding, and our own. `time` is in
 * epoch milliseconds.
 */
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
    ...(meta.deadlineMs && { [DEADLINE_HEADER]: deadlineHeader(meta.deadlineMs) }),
  }
}

/** An event as a consumer receives it: the known fields of its body, and the contents of its headers. */
export interface Received<Body> {
  readonly body: Body
  readonly meta: EventMeta
  /** The names of fields that this version does not know and ignores; absent if there are none. */
  readonly unknownFields?: readonly string[]
}

/** The name of an event that this version does not know, such as one that the next version introduces. */
export interface UnknownEvent {
  readonly unknownEvent: string
}

/** Our events have a few hundred bytes. A body larger than this limit is rejected before it is parsed. */
const MAX_EVENT_BYTES = 65_536
const MAX_EVENT_NAME_LENGTH = 100

const readers = new Map(
  Object.entries(EVENTS).map(([name, { topic, schema }]) => [
    name,
    { topic, fields: Object.keys(schema.properties), validator: Compile(schema) },
  ]),
)

/**
 * Decodes one message from a topic. Returns the event, or an unknown event, which the consumer has to skip,
 * or a sentence that says why the message can never be handled. A message without a `ce_id` is identified by
 * its position, and by the incarnation of the topic if the topic was recreated.
 */
export function decodeEvent<Body extends Event>(message: {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  /** Distinguishes a recreated topic from earlier topics with the same name; absent for the first of them. */
  readonly incarnation?: string
  readonly value: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
}): Received<Body> | UnknownEvent | string {
  const { topic, value, headers } = message
  if (value === null) return 'the message has no body'
  if (value.byteLength > MAX_EVENT_BYTES) {
    return `the body has ${value.byteLength} bytes, but an event has at most ${MAX_EVENT_BYTES}`
  }
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(value))
  } catch (error) {
    return `the body is not JSON: ${(error as Error).message}`
  }
  const name = (parsed as { event?: unknown } | null)?.event
  if (typeof name !== 'string' || name === '' || name.length > MAX_EVENT_NAME_LENGTH) {
    return 'the body names no event'
  }
  const reader = readers.get(name)
  if (reader === undefined) return { unknownEvent: name }
  if (reader.topic !== topic) return `${name} does not belong on topic ${topic}`
  const { body, unknownFields } = knownFields(parsed as Record<string, unknown>, reader.fields)
  const problem = problemOf(reader.validator, body)
  if (problem) return `${name}${problem.instancePath} ${problem.message}`
  if (headers.ce_id && !EVENT_ID.test(headers.ce_id)) {
    return 'ce_id is not 1 to 200 printable ASCII characters without spaces'
  }
  const amountMinor = parseAmount(headers['x-amount'] ?? '')
  const deadlineMs = parseDeadline(headers[DEADLINE_HEADER])
  return {
    body: body as unknown as Body,
    meta: {
      id: headers.ce_id || positionOf(message),
      ...(isStyle(headers[STYLE_HEADER]) && { style: headers[STYLE_HEADER] }),
      ...(isReason(headers['x-reason']) && { reason: headers['x-reason'] }),
      ...(headers.ce_source === '/trifold/order' && { isFromOrder: true }),
      ...traceContextOf(headers),
      ...(typeof amountMinor === 'bigint' && { amountMinor }),
      ...(deadlineMs !== undefined && { deadlineMs }),
    },
    ...(unknownFields.length > 0 && { unknownFields }),
  }
}

/**
 * An event id has to fit into a unique key of the database, which has a length limit, and into an HTTP
 * header, which is ASCII.
 */
export const EVENT_ID = /^[\x21-\x7e]{1,200}$/

function positionOf({ topic, partition, offset, incarnation }: Position): string {
  const position = `${topic}/${partition}/${offset}`
  return incarnation ? `${position}/${incarnation}` : position
}

function knownFields(parsed: Record<string, unknown>, fields: readonly string[]) {
  const body: Record<string, unknown> = {}
  for (const field of fields) {
    const value = parsed[field]
    if (value !== undefined) body[field] = typeof value === 'string' ? lowerUuids(value) : value
  }
  const unknownFields = Object.keys(parsed).filter((field) => !fields.includes(field))
  return { body, unknownFields }
}

/**
 * Returns only the first problem, because a hostile body could make it take very long to collect all of them.
 */
function problemOf(validator: Validator, body: Record<string, unknown>) {
  if (!validator.Check(body)) return validator.Errors(body)[0]
  for (const field of ['price', 'value']) {
    const value = body[field]
    const minor = typeof value === 'number' ? parseAmount(value) : 0n
    if (typeof minor === 'string') return { instancePath: `/${field}`, message: minor }
  }
  return undefined
}

type Position = Omit<Parameters<typeof decodeEvent>[0], 'value' | 'headers'>
type Validator = Pick<ReturnType<typeof Compile>, 'Check' | 'Errors'>
