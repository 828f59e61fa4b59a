import type { ByStyle } from './by-style.ts'

/**
 * What the design promises a customer in each style: the outcome table, cell by cell. Where a list
 * stands, a race is allowed: an outcome that follows the answer may be there already when one looks.
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

/**
 * Billing cannot be reached: the order is canceled and the customer hears of it at once, and the payment is
 * voided as soon as billing is back.
 */
const canceled = {
  answer: '503',
  stateMeanwhile: 'CANCELED',
  reasonMeanwhile: 'BILLING_UNREACHABLE',
  messagesMeanwhile: 'deposit, unpaid',
  state: 'CANCELED',
  payment: 'VOIDED',
  balance: '199',
  messages: 'deposit, unpaid',
}

export const PROMISES: ByStyle<Promises> = {
  http: {
    orderToBilling: 'HTTP call',
    billingToNotification: 'HTTP call',
    paid: { answer: '201', stateAtOnce: ['APPROVED'], messageAtOnce: WRITTEN },
    refused: { answer: '402', stateAtOnce: ['CANCELED'], messageAtOnce: WRITTEN },
    notificationOff: { answer: '201' },
    billingOff: canceled,
    inShort: 'waits for payment and message; without billing there is no order',
  },
  hybrid: {
    orderToBilling: 'HTTP call',
    billingToNotification: 'event',
    paid: { answer: '201', stateAtOnce: ['APPROVED'], messageAtOnce: WRITTEN_OR_NOT },
    refused: { answer: '402', stateAtOnce: ['CANCELED'], messageAtOnce: WRITTEN_OR_NOT },
    notificationOff: { answer: '201' },
    billingOff: canceled,
    inShort: 'waits for the payment only; without billing there is no order',
  },
  events: {
    orderToBilling: 'event',
    billingToNotification: 'event',
    paid: {
      answer: '201',
      stateAtOnce: ['PENDING', 'APPROVED'],
      messageAtOnce: WRITTEN_OR_NOT,
    },
    refused: {
      answer: '201',
      stateAtOnce: ['PENDING', 'CANCELED'],
      messageAtOnce: WRITTEN_OR_NOT,
    },
    notificationOff: { answer: '201' },
    billingOff: {
      answer: '201',
      stateMeanwhile: 'PENDING',
      reasonMeanwhile: 'none',
      messagesMeanwhile: 'deposit',
      state: 'APPROVED',
      payment: 'PAID',
      balance: '4',
      messages: 'deposit, paid',
    },
    inShort: 'waits for nothing; without billing the order waits until it is back',
  },
}
