import { type Flow, flowOf, type InteractionStyle } from '../../contracts/style.ts'
import type { Tables } from '../simulation/checks/tables.ts'
import { runDesk } from './desk.ts'
import { openAccount, order, type Stage, untilFinal } from './stage.ts'

/**
 * What happens in a run: one customer, and what is to come of it whatever dies meanwhile. Customers
 * ask under Idempotency-Keys until they have an answer, as they should.
 */
export interface Scenario {
  readonly title: string
  act(at: Stage): Promise<void>
  /** So many letters do not get through at first. */
  readonly failingLetters?: number
  /**
   * How the orders, oldest first, may end if their payment is requested by call or by event. The first
   * of the ends is the one without a crash.
   */
  readonly orders: Readonly<Record<Flow['payment'], readonly (readonly string[])[]>>
  /** What is on the account in the end, given how the orders ended. */
  balanceMinor(states: readonly string[]): bigint
}

const UNIT_MINOR = 6_500n
const DEPOSIT_MINOR = 20_001
const APPROVED = 'APPROVED'
const DELETED = 'CANCELED DELETED'
const REFUSED = 'CANCELED NOT_ENOUGH_MONEY'
/** Where billing or the way to it dies, a call has no answer, and the order is given up. */
const GIVEN_UP = 'CANCELED BILLING_UNREACHABLE'

const priceOf = (states: readonly string[], quantities: readonly number[]) =>
  states.reduce(
    (sum, state, index) =>
      sum + (state === APPROVED ? UNIT_MINOR * BigInt(quantities[index]!) : 0n),
    0n,
  )

export const SCENARIOS = {
  approved: {
    title: 'an order that is paid',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      const orderId = await order(at, accountId, 2)
      await untilFinal(at, accountId, orderId)
      await at.repeat('order')
    },
    orders: { call: [[APPROVED, GIVEN_UP]], event: [[APPROVED]] },
    balanceMinor: (states) => BigInt(DEPOSIT_MINOR) - priceOf(states, [2]),
  },
  refused: {
    title: 'an order that the account cannot pay',
    async act(at) {
      const accountId = await openAccount(at)
      const orderId = await order(at, accountId, 3)
      await untilFinal(at, accountId, orderId)
      await at.repeat('order')
    },
    orders: { call: [[REFUSED, GIVEN_UP]], event: [[REFUSED]] },
    balanceMinor: () => 0n,
  },
  'billing-away': {
    title: 'an order while billing is away',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      await at.takeAway('billing', 1_500)
      const orderId = await order(at, accountId, 2)
      await untilFinal(at, accountId, orderId)
    },
    // One whose process died asks again, and may find billing back.
    orders: { call: [[GIVEN_UP, APPROVED]], event: [[APPROVED]] },
    balanceMinor: (states) => BigInt(DEPOSIT_MINOR) - priceOf(states, [2]),
  },
  deletion: {
    title: 'an order deleted at once, and one when it is paid',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      const first = await order(at, accountId, 1)
      await at.perform({ kind: 'delete', accountId, orderId: first })
      const second = await order(at, accountId, 2)
      await untilFinal(at, accountId, second)
      await at.perform({ kind: 'delete', accountId, orderId: second })
    },
    orders: {
      call: [
        [DELETED, GIVEN_UP],
        [DELETED, GIVEN_UP],
      ],
      event: [[DELETED], [DELETED]],
    },
    balanceMinor: () => BigInt(DEPOSIT_MINOR),
  },
  deposit: {
    title: 'two deposits, one of them asked for twice',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      await at.perform({ kind: 'deposit', accountId, amountMinor: DEPOSIT_MINOR + 1 })
      await at.repeat('deposit')
    },
    orders: { call: [], event: [] },
    balanceMinor: () => BigInt(2 * DEPOSIT_MINOR + 1),
  },
  desk: {
    title:
      'everything else that is asked of the services: lists, contacts, dead letters, readiness',
    act: runDesk,
    failingLetters: 1,
    orders: {
      call: [
        [DELETED, GIVEN_UP],
        [APPROVED, GIVEN_UP],
      ],
      event: [[DELETED], [APPROVED]],
    },
    balanceMinor: (states) => BigInt(2 * DEPOSIT_MINOR + 1) - priceOf(states, [1, 2]),
  },
} as const satisfies Record<string, Scenario>

export type ScenarioName = keyof typeof SCENARIOS

export const isScenarioName = (name: string): name is ScenarioName => Object.hasOwn(SCENARIOS, name)

/** `APPROVED`, `CANCELED DELETED`: how each order ended, the oldest first. */
export const endsOf = ({ orders }: Tables): string[] =>
  orders
    .toSorted((a, b) => a.created.getTime() - b.created.getTime())
    .map(({ state, reason }) => (reason === null ? state : `${state} ${reason}`))

/** What came of a scenario that was not to come of it. */
export function wrongEnds(scenario: Scenario, style: InteractionStyle, tables: Tables): string[] {
  const ends = endsOf(tables)
  const allowed = scenario.orders[flowOf(style).payment]
  const balance = tables.entries.at(-1)?.balanceAfterMinor ?? 0n
  const expected = scenario.balanceMinor(ends)
  return [
    ...(tables.accounts.length === 1 ? [] : [`there are ${tables.accounts.length} accounts`]),
    ...(ends.length === allowed.length ? [] : [`there are ${ends.length} orders`]),
    ...ends.flatMap((end, index) =>
      allowed[index]?.includes(end) === false ? [`order ${index + 1} ended ${end}`] : [],
    ),
    ...(balance === expected ? [] : [`the balance is ${balance}, not ${expected}`]),
  ]
}
