import { FLOWS, type Flow } from '../../contracts/style.ts'
import { type ByStyle, mapStyles } from './by-style.ts'

/**
 * What the design promises a customer, one value for each cell of the demo's tables, derived from the
 * properties of a style. Where a cell lists several values, the order may be settled before or after the
 * customer reads it.
 */
interface Promises {
  readonly orderToBilling: string
  readonly billingToNotification: string
  readonly paid: Outcome
  readonly refused: Outcome
  readonly notificationOff: { readonly status: string }
  readonly billingOff: {
    readonly status: string
    readonly stateWhileOff: string
    readonly reasonWhileOff: string
    readonly messagesWhileOff: string
    readonly state: string
    readonly payment: string
    readonly balance: string
    readonly messages: string
  }
  readonly inShort: string
}

interface Outcome {
  readonly status: string
  /** The state of the order when it is read right after the response. */
  readonly stateAtOnce: readonly string[]
  readonly messageAtOnce: readonly string[]
}

const WRITTEN = ['written']
const WRITTEN_OR_NOT = ['written', 'not yet']

const ROUTES = { call: 'HTTP call', event: 'event' } as const

const WITHOUT_BILLING = {
  call: 'without billing there is no order',
  event: 'without billing the order waits until it is back',
} as const

const BILLING_OFF = {
  /**
   * The order service cancels the order and notifies the customer. The payment is voided once the billing
   * service is back.
   */
  call: {
    status: '503',
    stateWhileOff: 'CANCELED',
    reasonWhileOff: 'BILLING_UNREACHABLE',
    messagesWhileOff: 'deposit, unpaid',
    state: 'CANCELED',
    payment: 'VOIDED',
    balance: '199',
    messages: 'deposit, unpaid',
  },
  event: {
    status: '201',
    stateWhileOff: 'PENDING',
    reasonWhileOff: 'none',
    messagesWhileOff: 'deposit',
    state: 'APPROVED',
    payment: 'PAID',
    balance: '4',
    messages: 'deposit, paid',
  },
} as const

export const PROMISES: ByStyle<Promises> = mapStyles<Flow, Promises>(FLOWS, (flow) => ({
  orderToBilling: ROUTES[flow.payment],
  billingToNotification: ROUTES[flow.announcement],
  paid: outcome(flow, '201', 'APPROVED'),
  refused: outcome(flow, '402', 'CANCELED'),
  notificationOff: { status: '201' },
  billingOff: BILLING_OFF[flow.payment],
  inShort: `${waitsFor(flow)}; ${WITHOUT_BILLING[flow.payment]}`,
}))

function outcome(flow: Flow, status: string, state: string): Outcome {
  const isNotified =
    flow.response === 'outcome' && flow.payment === 'call' && flow.announcement === 'call'
  return {
    status: flow.response === 'outcome' ? status : '201',
    stateAtOnce: flow.response === 'outcome' ? [state] : ['PENDING', state],
    messageAtOnce: isNotified ? WRITTEN : WRITTEN_OR_NOT,
  }
}

function waitsFor({ response, announcement }: Flow): string {
  if (response === 'id') return 'waits for nothing'
  return announcement === 'call' ? 'waits for payment and notice' : 'waits for the payment only'
}
