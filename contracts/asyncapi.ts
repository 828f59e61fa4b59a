import type { TSchema } from 'typebox'
import {
  BALANCE_CHANGED,
  type BalanceChanged,
  EVENT_ID,
  EVENTS,
  type Event,
  type EventName,
  eventHeaders,
  REASONS,
  type Topic,
} from './events.ts'
import { DEFAULT_STYLE, STYLE_HEADER, STYLES } from './style.ts'

type Service = 'order' | 'billing' | 'notification'
type MessageName = EventName | 'BALANCE_CHANGED'
type Action = 'send' | 'receive'

interface Ref {
  readonly $ref: string
}

/** The description of one kind of message in the AsyncAPI document. */
export interface AsyncApiMessage {
  readonly name: MessageName
  readonly title: string
  readonly summary: string
  readonly contentType: string
  readonly payload: TSchema
  readonly headers: Ref
  readonly bindings: object
  readonly examples: readonly { name: string; headers: Record<string, string>; payload: object }[]
}

export interface AsyncApiOperation {
  readonly action: Action
  readonly title: string
  readonly summary: string
  readonly channel: Ref
  readonly messages: readonly Ref[]
}

/** The AsyncAPI 3.0.0 document of all three services, derived from the table `EVENTS`. */
export function asyncApiDocument() {
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Trifold events',
      version: '1.0.0',
      description:
        'The messages that the order, billing and notification services exchange through the ' +
        'broker. A body has ' +
        'exactly the fields of its schema; everything else travels in headers. Readers must accept ' +
        'messages without headers. A message without ce_id is identified by topic/partition/offset.',
      license: { name: 'MIT' },
    },
    defaultContentType: 'application/json',
    channels: Object.fromEntries(TOPICS.map((topic) => [topic, channelOf(topic)])),
    operations: Object.fromEntries(OPERATIONS.map((one) => [operationId(one), describe(one)])),
    components: {
      messages: Object.fromEntries(MESSAGES.map((name) => [name, messageOf(name)])),
      schemas: { Headers: HEADERS },
    },
  }
}

const TOPICS: readonly Topic[] = ['billing', 'payment', 'balance']
const EVENT_NAMES = Object.keys(EVENTS) as EventName[]
const MESSAGES: readonly MessageName[] = [...EVENT_NAMES, 'BALANCE_CHANGED']

const TOPIC_SUMMARIES: Record<Topic, string> = {
  billing: 'Requests to the billing service.',
  payment: 'The results of payments, refunds and deposits.',
  balance:
    'The latest balance of every account. The topic is compacted, so it can be read as a table.',
}

interface Operation {
  readonly service: Service
  readonly action: Action
  readonly topic: Topic
  readonly messages: readonly MessageName[]
  readonly summary: string
}

const OPERATIONS: readonly Operation[] = [
  {
    service: 'order',
    action: 'send',
    topic: 'billing',
    messages: sentBy('order', 'billing'),
    summary: 'The order service requests a payment, or cancels it.',
  },
  {
    service: 'order',
    action: 'send',
    topic: 'payment',
    messages: ['PAYMENT_FAIL'],
    summary: 'The order service announces that it canceled an order itself.',
  },
  {
    service: 'order',
    action: 'receive',
    topic: 'payment',
    messages: onTopic('payment'),
    summary: 'The order service settles its pending orders.',
  },
  {
    service: 'billing',
    action: 'send',
    topic: 'billing',
    messages: sentBy('billing', 'billing'),
    summary: 'The billing service queues a deposit behind earlier requests for the same account.',
  },
  {
    service: 'billing',
    action: 'send',
    topic: 'payment',
    messages: sentBy('billing', 'payment'),
    summary: 'The billing service announces every result.',
  },
  {
    service: 'billing',
    action: 'send',
    topic: 'balance',
    messages: ['BALANCE_CHANGED'],
    summary:
      'The billing service publishes the balance of an account after every batch that changes it.',
  },
  {
    service: 'billing',
    action: 'receive',
    topic: 'billing',
    messages: onTopic('billing'),
    summary: 'The billing service books payments, refunds and deposits.',
  },
  {
    service: 'notification',
    action: 'receive',
    topic: 'payment',
    messages: onTopic('payment'),
    summary: 'The notification service writes a notice to the customer.',
  },
]

function onTopic(topic: Topic): EventName[] {
  return EVENT_NAMES.filter((name) => EVENTS[name].topic === topic)
}

function sentBy(service: Service, topic: Topic): EventName[] {
  return onTopic(topic).filter((name) => EVENTS[name].from === service)
}

function operationId({ service, action, topic }: Operation): string {
  return `${service}-${action === 'send' ? 'sends' : 'receives'}-${topic}`
}

function describe(operation: Operation): AsyncApiOperation {
  const { action, summary, topic, messages } = operation
  return {
    action,
    title: operationId(operation).replaceAll('-', ' '),
    summary,
    channel: { $ref: `#/channels/${topic}` },
    messages: messages.map((name) => ({ $ref: `#/channels/${topic}/messages/${name}` })),
  }
}

function channelOf(topic: Topic) {
  const names: readonly MessageName[] = topic === 'balance' ? ['BALANCE_CHANGED'] : onTopic(topic)
  const cleanup = topic === 'balance' ? 'compact' : 'delete'
  return {
    address: topic,
    summary: TOPIC_SUMMARIES[topic],
    messages: Object.fromEntries(
      names.map((name) => [name, { $ref: `#/components/messages/${name}` }]),
    ),
    bindings: {
      kafka: { topicConfiguration: { 'cleanup.policy': [cleanup] }, bindingVersion: '0.5.0' },
    },
  }
}

function messageOf(name: MessageName): AsyncApiMessage {
  const balance = name === 'BALANCE_CHANGED'
  const payload = EXAMPLES[name]
  const meta = {
    id: '01997a4e-5d1c-7c3a-9b57-2f6d0e8a1b4c',
    style: DEFAULT_STYLE,
    ...(name === 'PAYMENT_FAIL' && { reason: 'NOT_ENOUGH_MONEY' as const }),
    ...(name === 'ORDER_CANCELED' && { reason: 'DELETED' as const }),
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  }
  const from = balance ? 'billing' : EVENTS[name].from
  return {
    name,
    title: name,
    summary: balance ? 'The balance of an account changed.' : EVENTS[name].summary,
    contentType: 'application/json',
    payload: balance ? BALANCE_CHANGED : EVENTS[name].schema,
    headers: { $ref: '#/components/schemas/Headers' },
    bindings: { kafka: { key: ACCOUNT_KEY, bindingVersion: '0.5.0' } },
    examples: [{ name, headers: eventHeaders(name, from, EXAMPLE_TIME, meta), payload }],
  }
}

const ACCOUNT_KEY = {
  type: 'string',
  format: 'uuid',
  description: 'The accountId. Messages about one account stay in order.',
}

const HEADERS = {
  type: 'object',
  properties: {
    ce_id: {
      type: 'string',
      pattern: EVENT_ID.source,
      description: 'Identifies the event: a message whose id was seen before is a redelivery.',
    },
    ce_type: { type: 'string', enum: MESSAGES },
    ce_source: { type: 'string', format: 'uri-reference' },
    ce_time: { type: 'string', format: 'date-time' },
    ce_specversion: { type: 'string', const: '1.0' },
    'content-type': { type: 'string', const: 'application/json' },
    traceparent: { type: 'string', description: 'W3C Trace Context.' },
    tracestate: { type: 'string', description: 'W3C Trace Context.' },
    [STYLE_HEADER]: {
      type: 'string',
      enum: STYLES,
      description: 'The interaction style of the order or deposit.',
    },
    'x-reason': {
      type: 'string',
      enum: Object.keys(REASONS),
      description: 'Why a payment failed or an order was canceled.',
    },
    'x-amount': {
      type: 'string',
      description: 'On ORDER_PAID: the amount paid, in units, such as 199.50.',
    },
  },
} as const

const EXAMPLE_TIME = Date.UTC(2026, 0, 15, 9, 30)
const accountId = '01997a4e-3b52-7d10-8e6f-6a1c2b3d4e5f'
const orderId = '01997a4e-5c80-7f21-a2b3-c4d5e6f70819'

const EXAMPLES: { [Name in EventName]: Extract<Event, { event: Name }> } & {
  BALANCE_CHANGED: BalanceChanged
} = {
  ORDER_CREATED: { event: 'ORDER_CREATED', orderId, accountId, price: 195 },
  DEPOSIT_REQUEST: { event: 'DEPOSIT_REQUEST', accountId, value: 199 },
  ORDER_CANCELED: { event: 'ORDER_CANCELED', orderId, accountId },
  ORDER_PAID: { event: 'ORDER_PAID', orderId, accountId },
  PAYMENT_FAIL: { event: 'PAYMENT_FAIL', orderId, accountId },
  DEPOSIT_ACCEPTED: { event: 'DEPOSIT_ACCEPTED', accountId, value: 199 },
  PAYMENT_REFUNDED: { event: 'PAYMENT_REFUNDED', orderId, accountId, value: 195 },
  BALANCE_CHANGED: { accountId, balance: 4, version: 3, updated: '2026-01-15T09:30:00.000Z' },
}
