import assert, { AssertionError } from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import type { Static } from 'typebox'
import type { Account, Entry, Message, OrderView, Payment } from '../../contracts/http.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import { WAIT_LIMIT_MS } from './world.ts'

/** The default price of one unit of the product. */
export const UNIT_PRICE = 65

export interface Answer<Body = unknown> {
  readonly status: number
  readonly headers: Headers
  readonly body: Body
}

export interface Problem {
  readonly code: string
  readonly status: number
  readonly field?: string
  readonly detail?: string
  readonly orderId?: string
  readonly reason?: string
}

export interface CallOptions {
  readonly style?: InteractionStyle | undefined
  /** The Idempotency-Key. */
  readonly key?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent unchanged; put its content type into `headers`. */
  readonly raw?: string
  /** Aborts the call. */
  readonly signal?: AbortSignal
}

/** Options of a scrape that bypasses the cached result, which can be a second old. */
export const FRESH = { headers: { 'cache-control': 'no-cache' } } as const

export type AccountView = Static<typeof Account>
export type PaymentView = Static<typeof Payment>
export type EntryView = Static<typeof Entry>
export type MessageView = Static<typeof Message>

export type Client = ReturnType<typeof createClient>

/** A customer's view of a program at `url`: calls over real HTTP, and helpers that many tests use. */
export function createClient(url: string) {
  async function call<Body = unknown>(
    method: string,
    path: string,
    options: CallOptions = {},
  ): Promise<Answer<Body>> {
    const { style, key, json, raw, signal } = options
    const body = json === undefined ? raw : JSON.stringify(json)
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(json !== undefined && { 'content-type': 'application/json' }),
        ...(style && { 'x-interaction-style': style }),
        ...(key !== undefined && { 'idempotency-key': key }),
        ...options.headers,
      },
      ...(body !== undefined && { body }),
      ...(signal && { signal }),
    })
    const text = await response.text()
    const isJson = /json/.test(response.headers.get('content-type') ?? '')
    return {
      status: response.status,
      headers: response.headers,
      body: (isJson ? JSON.parse(text) : text) as Body,
    }
  }

  /** Resolves with the body of a response that must be 2xx. */
  async function read<Body>(
    path: string,
    options: CallOptions = {},
    method = 'GET',
  ): Promise<Body> {
    const { status, body } = await call<Body>(method, path, options)
    assert.ok(status < 300, `${method} ${path} returned ${status}: ${JSON.stringify(body)}`)
    return body
  }

  /** Reads all pages of a list. */
  async function readAll<Row>(path: string, limit = 500): Promise<Row[]> {
    const rows: Row[] = []
    const joint = path.includes('?') ? '&' : '?'
    for (let cursor: string | null = ''; cursor !== null; ) {
      const after = cursor === '' ? '' : `&cursor=${cursor}`
      const page: Answer<Row[]> = await call('GET', `${path}${joint}limit=${limit}${after}`)
      assert.equal(page.status, 200)
      assert.ok(page.body.length <= limit)
      rows.push(...page.body)
      cursor = page.headers.get('x-next-cursor')
    }
    return rows
  }

  const createAccount = () => read<string>('/billing/account/create', {}, 'POST')

  /** Resolves with the balance after the deposit. */
  const deposit = (account: string, amount: number, style: InteractionStyle = 'http') =>
    read<number>(`/billing/account/${account}?amount=${amount}`, { style }, 'POST')

  return {
    url,
    call,
    read,
    readAll,
    createAccount,
    deposit,

    /** Opens an account with this amount; resolves when the deposit is booked. */
    async fundedAccount(amount: number): Promise<string> {
      const account = await createAccount()
      await deposit(account, amount)
      return account
    },

    /** Places an order. The body of the response is an id as text, or a problem. */
    order: (profile: string, options: CallOptions & { readonly quantity?: number } = {}) =>
      call<string & Problem>('POST', `/orders?profileId=${profile}`, {
        json: { productQuantity: options.quantity ?? 1 },
        ...options,
      }),

    /** Waits for the order's outcome with `Prefer: wait`, for at most `waitSeconds`. */
    async getOrder(
      profile: string,
      id: string,
      waitSeconds = WAIT_LIMIT_MS / 1000,
    ): Promise<OrderView> {
      const deadline = performance.now() + waitSeconds * 1000
      for (;;) {
        // The program may limit the wait, so the request is repeated until the deadline.
        const leftSeconds = Math.max(0, Math.ceil((deadline - performance.now()) / 1000))
        const headers = { prefer: `wait=${leftSeconds}` }
        const order = await read<OrderView>(`/orders/${id}?profileId=${profile}`, { headers })
        if (order.state !== 'PENDING' || performance.now() >= deadline) return order
      }
    },

    orders: (profile: string) => readAll<OrderView>(`/orders/?profileId=${profile}`),
    deleteOrder: (profile: string, id: string) =>
      read<string>(`/orders/${id}?profileId=${profile}`, {}, 'DELETE'),
    balance: async (account: string) =>
      (await read<AccountView>(`/billing/account/${account}`)).balance,
    entries: (account: string) => readAll<EntryView>(`/billing/account/${account}/entries`),
    payment: (orderId: string) => read<PaymentView>(`/billing/payments/${orderId}`),
    messages: (account: string) => readAll<MessageView>(`/notification/account/${account}`),
  }
}

const POLL_MS = 20

/** Repeats a check until its assertions hold, and resolves with its result. Rejects after the deadline. */
export async function eventually<T>(
  check: () => Promise<T>,
  deadlineMs = WAIT_LIMIT_MS,
): Promise<T> {
  const deadline = performance.now() + deadlineMs
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (!(error instanceof AssertionError) || performance.now() > deadline) throw error
    }
    await pause(POLL_MS)
  }
}

/** The sum of ledger entries, added in cents to avoid rounding errors. */
export function sumOf(entries: readonly Pick<EntryView, 'amount'>[]): number {
  return entries.reduce((sum, { amount }) => sum + Math.round(amount * 100), 0) / 100
}
