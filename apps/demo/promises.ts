import { FLOWS, type Flow } from '../../contracts/style.ts'
import { type ByStyle, mapStyles } from './by-style.ts'

/**
 * What the design promises a customer, cell by cell, given the properties of a style. A list allows for
 * a race: an outcome that follows the answer may already be there when the customer reads it.
 */
interface Promises {
  readonly orderToBilling: string
  readonly billingToNotification: string
  readonly paid: Outcome
  readonly refused: Outcome
  readonly notificationOff: { readonly answer: string }
  readonly billingOff: {
    readonly answer: string
    readonly stateMeanwhile: string
    readonly reasonMeanwhile: string
    readonly messagesMeanwhile: string
    readonly state: string
    readonly payment: string
    readonly balance: string
    readonly messages: string
  }
  readonly inShort: string
}

interface Outcome {
  readonly answer: string
  /** What a look at the order shows right after the answer. */
  readonly stateAtOnce: readonly string[]
  readonly messageAtOnce: readonly string[]
}

const WRITTEN = ['written']
const WRITTEN_OR_NOT = ['written', 'to follow']

const ROUTES = { call: 'HTTP call', event: 'event' } as const

const WITHOUT_BILLING = {
  call: 'without billing there is no order',
  event: 'without billing the order waits until it is back',
} as const

const BILLING_OFF = {
  /** Order gives up on billing and tells the customer; the payment is voided once billing is back. */
  call: {
    answer: '503',
    stateMeanwhile: 'CANCELED',
    reasonMeanwhile: 'BILLING_UNREACHABLE',
    messagesMeanwhile: 'deposit, unpaid',
    state: 'CANCELED',
    payment: 'VOIDED',
    balance: '199',
    messages: 'deposit, unpaid',
  },
  event: {
    answer: '201',
    stateMeanwhile: 'PENDING',
    reasonMeanwhile: 'none',
    messagesMeanwhile: 'deposit',
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
  const isTold =
    flow.response === 'outcome' && flow.payment === 'call' && flow.announcement === 'call'
  return {
    answer: flow.response === 'outcome' ? status : '201',
    stateAtOnce: flow.response === 'outcome' ? [state] : ['PENDING', state],
    messageAtOnce: isTold ? WRITTEN : WRITTEN_OR_NOT,
  }
}

function waitsFor({ response, announcement }: Flow): string {
  if (response === 'id') return 'waits for nothing'
  return announcement === 'call' ? 'waits for payment and message' : 'waits for the payment only'
}
