import { type Flow, flowOf, type InteractionStyle } from '../../contracts/style.ts'
import type { Tables } from '../simulation/checks/tables.ts'
import { runDesk } from './desk.ts'
import { openAccount, order, type Stage, untilFinal } from './stage.ts'

/**
 * The actions of one customer in a run, and the results that are allowed, whichever process dies. The
 * customer repeats each request under its Idempotency-Key until it gets a final response, as clients should.
 */
export interface Scenario {
  readonly title: string
  act(at: Stage): Promise<void>
  /** How many deliveries of letters fail before they succeed. */
  readonly failingLetters?: number
  /**
   * The allowed final states of each order, oldest first, if its payment is requested by call or by event. The
   * first state of each list is the one without a crash.
   */
  readonly orders: Readonly<Record<Flow['payment'], readonly (readonly string[])[]>>
  /** The expected final balance of the account, given the final states of the orders. */
  balanceMinor(states: readonly string[]): bigint
}

const UNIT_MINOR = 6_500n
const DEPOSIT_MINOR = 20_001
const APPROVED = 'APPROVED'
const DELETED = 'CANCELED DELETED'
const REFUSED = 'CANCELED NOT_ENOUGH_MONEY'
/**
 * If the billing service dies, or the order service dies while it waits for the response, the order is
 * canceled.
 */
const UNREACHABLE = 'CANCELED BILLING_UNREACHABLE'

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
    orders: { call: [[APPROVED, UNREACHABLE]], event: [[APPROVED]] },
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
    orders: { call: [[REFUSED, UNREACHABLE]], event: [[REFUSED]] },
    balanceMinor: () => 0n,
  },
  'billing-down': {
    title: 'an order while billing is down',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      await at.stopService('billing', 1_500)
      const orderId = await order(at, accountId, 2)
      await untilFinal(at, accountId, orderId)
    },
    // If the process that placed the order dies, the request is resent, and the billing service may be back
    // by then.
    orders: { call: [[UNREACHABLE, APPROVED]], event: [[APPROVED]] },
    balanceMinor: (states) => BigInt(DEPOSIT_MINOR) - priceOf(states, [2]),
  },
  deletion: {
    title: 'an order deleted at once, and one deleted after it is paid',
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
        [DELETED, UNREACHABLE],
        [DELETED, UNREACHABLE],
      ],
      event: [[DELETED], [DELETED]],
    },
    balanceMinor: () => BigInt(DEPOSIT_MINOR),
  },
  deposit: {
    title: 'two deposits, one of them requested twice',
    async act(at) {
      const accountId = await openAccount(at, DEPOSIT_MINOR)
      await at.perform({ kind: 'deposit', accountId, amountMinor: DEPOSIT_MINOR + 1 })
      await at.repeat('deposit')
    },
    orders: { call: [], event: [] },
    balanceMinor: () => BigInt(2 * DEPOSIT_MINOR + 1),
  },
  desk: {
    title: 'all other requests: lists, contacts, dead letters, readiness',
    act: runDesk,
    failingLetters: 1,
    orders: {
      call: [
        [DELETED, UNREACHABLE],
        [APPROVED, UNREACHABLE],
      ],
      event: [[DELETED], [APPROVED]],
    },
    balanceMinor: (states) => BigInt(2 * DEPOSIT_MINOR + 1) - priceOf(states, [1, 2]),
  },
} as const satisfies Record<string, Scenario>

export type ScenarioName = keyof typeof SCENARIOS

export const isScenarioName = (name: string): name is ScenarioName => Object.hasOwn(SCENARIOS, name)

/** The final state of each order with its reason, oldest first, such as `APPROVED` or `CANCELED DELETED`. */
export const finalStatesOf = ({ orders }: Tables): string[] =>
  orders
    .toSorted((a, b) => a.created.getTime() - b.created.getTime())
    .map(({ state, reason }) => (reason === null ? state : `${state} ${reason}`))

/** The results that the scenario does not allow, as sentences. */
export function disallowedResults(
  scenario: Scenario,
  style: InteractionStyle,
  tables: Tables,
): string[] {
  const finalStates = finalStatesOf(tables)
  const allowed = scenario.orders[flowOf(style).payment]
  const balance = tables.entries.at(-1)?.balanceAfterMinor ?? 0n
  const expected = scenario.balanceMinor(finalStates)
  return [
    ...(tables.accounts.length === 1
      ? []
      : [`there are ${tables.accounts.length} accounts, not 1`]),
    ...(finalStates.length === allowed.length
      ? []
      : [`there are ${finalStates.length} orders, not ${allowed.length}`]),
    ...finalStates.flatMap((state, index) =>
      allowed[index]?.includes(state) === false ? [`order ${index + 1} ended as ${state}`] : [],
    ),
    ...(balance === expected ? [] : [`the balance is ${balance}, not ${expected}`]),
  ]
}
