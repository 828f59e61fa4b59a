import assert from 'node:assert/strict'
import { FLOWS, type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { type Answer, type Client, eventually, type Problem, UNIT_PRICE } from './client.ts'

/** An order of a burst. `answer` is undefined if there was no response before the service ended. */
export interface Sent {
  readonly style: InteractionStyle
  readonly account: string
  readonly key: string
  answer: Answer<string & Problem> | undefined
}

export interface Burst {
  readonly accounts: ReadonlyMap<InteractionStyle, string>
  /** All orders sent so far. */
  readonly sent: readonly Sent[]
  /** Resolves when every customer has received this many responses. */
  answered(times: number): Promise<void>
  /** Resolves when every customer has stopped, because the program is down or all orders are placed. */
  readonly over: Promise<void>
}

/** A long call timeout, so that a busy machine does not look like an outage and cancel orders. */
export const PATIENT = { CALL_TIMEOUT_MS: '30000' } as const

const MONEY_FOR = 40
const CUSTOMERS_EACH = 8
const ORDERS_OF_CUSTOMER = 500

/**
 * In each style, the customers of one account place one order after another, each under its own Idempotency-Key,
 * until a request gets no response or the program is stopping.
 */
export async function startBurst(client: Client): Promise<Burst> {
  const accounts = new Map<InteractionStyle, string>()
  for (const style of STYLES) {
    accounts.set(style, await client.fundedAccount(MONEY_FOR * UNIT_PRICE))
  }
  const sent: Sent[] = []
  const counts: number[] = []

  async function shop(style: InteractionStyle, account: string, customer: number): Promise<void> {
    for (let order = 0; order < ORDERS_OF_CUSTOMER; order += 1) {
      const one: Sent = { style, account, key: crypto.randomUUID(), answer: undefined }
      sent.push(one)
      const answer = await client.order(account, { style, key: one.key }).catch(() => undefined)
      // The gateway's response when its service is gone. The service may or may not have received the request.
      if (answer === undefined || answer.body.code === 'SERVICE_UNAVAILABLE') return
      one.answer = answer
      counts[customer] = order + 1
    }
  }

  const customers = [...accounts].flatMap(([style, account], nth) =>
    Array.from({ length: CUSTOMERS_EACH }, (_, index) => {
      const customer = nth * CUSTOMERS_EACH + index
      counts[customer] = 0
      return shop(style, account, customer)
    }),
  )
  return {
    accounts,
    sent,
    answered: (times) => eventually(async () => assert.ok(counts.every((count) => count >= times))),
    over: Promise.all(customers).then(() => undefined),
  }
}

/**
 * Asserts, after a restart, that every order settles, that the responses that customers received still hold,
 * and that money and orders agree. Returns the ids of each account's orders.
 */
export async function assertSettled(
  client: Client,
  burst: Burst,
): Promise<Map<string, Set<string>>> {
  const ids = new Map<string, Set<string>>()
  for (const account of burst.accounts.values()) {
    const orders = await eventually(async () => {
      const all = await client.orders(account)
      assert.equal(all.filter(({ state }) => state === 'PENDING').length, 0)
      return all
    })
    const approved = orders.filter(({ state }) => state === 'APPROVED').length
    // An order whose payment call timed out is CANCELED at once; its refund may follow later.
    await eventually(async () => {
      assert.equal(await client.balance(account), (MONEY_FOR - approved) * UNIT_PRICE)
    })
    ids.set(account, new Set(orders.map(({ id }) => id)))
    const states = new Map(orders.map(({ id, state }) => [id, state]))
    for (const { answer, style } of burst.sent.filter((one) => one.account === account)) {
      if (answer?.status === 201) {
        const state = states.get(answer.body)
        assert.ok(
          state === 'APPROVED' || (FLOWS[style].response === 'id' && state === 'CANCELED'),
          `${state}`,
        )
      }
      const refused = answer?.status === 402 || answer?.body.code === 'BILLING_UNREACHABLE'
      if (refused) assert.equal(states.get(answer!.body.orderId!), 'CANCELED')
    }
  }
  return ids
}
