import { FLOWS, type Flow } from '../../contracts/style.ts'
import { type ByStyle, mapStyles } from './by-style.ts'

/**
 * What the design promises a customer, cell by cell, derived from the properties of a style. A list of values
 * allows for a race: the outcome may follow the answer before the customer reads it.
 */
interface Promises {
  readonly orderToBilling: string
  readonly billingToNotification: string
  readonly paid: Outcome
  readonly refused: Outcome
  readonly notificationOff: { readonly answer: string }
  readonly billingOff: {
    readonly answer: string
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
  readonly answer: string
  /** The state of the order when it is read right after the answer. */
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
  /** Order cancels the order and notifies the customer; the payment is voided once billing is back. */
  call: {
    answer: '503',
    stateWhileOff: 'CANCELED',
    reasonWhileOff: 'BILLING_UNREACHABLE',
    messagesWhileOff: 'deposit, unpaid',
    state: 'CANCELED',
    payment: 'VOIDED',
    balance: '199',
    messages: 'deposit, unpaid',
  },
  event: {
    answer: '201',
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
  notificationOff: { answer: '201' },
  billingOff: BILLING_OFF[flow.payment],
  inShort: `${waitsFor(flow)}; ${WITHOUT_BILLING[flow.payment]}`,
}))

function outcome(flow: Flow, status: string, state: string): Outcome {
  const isNotified =
    flow.response === 'outcome' && flow.payment === 'call' && flow.announcement === 'call'
  return {
    answer: flow.response === 'outcome' ? status : '201',
    stateAtOnce: flow.response === 'outcome' ? [state] : ['PENDING', state],
    messageAtOnce: isNotified ? WRITTEN : WRITTEN_OR_NOT,
  }
}

function waitsFor({ response, announcement }: Flow): string {
  if (response === 'id') return 'waits for nothing'
  return announcement === 'call' ? 'waits for payment and notice' : 'waits for the payment only'
}
