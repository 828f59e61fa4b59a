import type { OrderView, PaymentView } from '../../contracts/http.ts'
import type { InteractionStyle } from '../../contracts/style.ts'
import type { Client, DemoResponse } from './client.ts'

/**
 * A customer who has an account and uses one style. Reads accept any response, because the demo should show a
 * wrong response instead of failing on it.
 */
export interface Customer {
  readonly style: InteractionStyle
  readonly opened: DemoResponse
  deposit(amount: number): Promise<DemoResponse>
  order(productQuantity: number): Promise<PlacedOrder>
  findOrder(orderId: string): Promise<Partial<OrderView>>
  /** The order as soon as it is settled, or as it is when the wait ends. */
  settledOrder(orderId: string): Promise<Partial<OrderView>>
  payment(orderId: string, state: string): Promise<Partial<PaymentView>>
  /** The time of the order's ledger entry, in epoch milliseconds; NaN if there is none. */
  paidAt(orderId: string): Promise<number>
  balance(): Promise<string>
  /** The notices as soon as there are at least this many, or those that exist when the wait ends. */
  messages(atLeast?: number): Promise<ReceivedMessages>
}

export interface PlacedOrder {
  readonly response: DemoResponse
  /** The order id in the response, which may be a success or a problem. Empty if the response has none. */
  readonly orderId: string
}

export interface ReceivedMessages {
  /** One word for each notice, in the order of the notices, such as `deposit, paid`. */
  readonly summary: string
  readonly count: number
  /** When the last notice was written, in epoch milliseconds; NaN if there is none. */
  readonly lastAt: number
}

export async function openCustomer(client: Client, style: InteractionStyle): Promise<Customer> {
  const opened = await client.call('POST', '/billing/account/create', { style })
  if (opened.status !== 200 || typeof opened.body !== 'string') {
    const { code = '' } = (opened.body ?? {}) as { code?: string }
    throw new Error(`opening an account in ${style} failed: ${opened.status} ${code}`)
  }
  const accountId = opened.body
  const orderIds = new Set<string>()
  const read = async <View>(path: string, headers = {}): Promise<Partial<View>> =>
    asObject((await client.call('GET', path, { headers })).body)
  const orderPath = (orderId: string) => `/orders/${orderId}?profileId=${accountId}`

  async function readMessages(): Promise<ReceivedMessages> {
    const { body } = await client.call('GET', `/notification/account/${accountId}`)
    const messages = asList(body) as { text?: string; created?: string }[]
    const names = messages.map(({ text }) => nameOf(String(text), accountId, orderIds))
    const summary = names.join(', ') || 'none'
    return { summary, count: names.length, lastAt: Date.parse(messages.at(-1)?.created ?? '') }
  }

  return {
    style,
    opened,
    deposit: (amount) =>
      client.call('POST', `/billing/account/${accountId}?amount=${amount}`, { style }),

    async order(productQuantity) {
      const path = `/orders?profileId=${accountId}`
      const response = await client.call('POST', path, { style, json: { productQuantity } })
      const { body } = response
      const { orderId: refusedId = '' } = asObject(body) as { orderId?: string }
      const orderId = typeof body === 'string' ? body : refusedId
      orderIds.add(orderId)
      return { response, orderId }
    },

    findOrder: (orderId) => read<OrderView>(orderPath(orderId)),
    settledOrder: (orderId) =>
      client.until(
        () => read<OrderView>(orderPath(orderId), { prefer: 'wait=5' }),
        ({ state }) => state === 'APPROVED' || state === 'CANCELED',
      ),
    payment: (orderId, state) =>
      client.until(
        () => read<PaymentView>(`/billing/payments/${orderId}`),
        (payment) => payment.state === state,
      ),

    async paidAt(orderId) {
      const { body } = await client.call('GET', `/billing/account/${accountId}/entries`)
      const entries = asList(body) as { orderId?: string; time?: string }[]
      return Date.parse(entries.find((entry) => entry?.orderId === orderId)?.time ?? '')
    },

    balance: async () =>
      String((await read<{ balance: number }>(`/billing/account/${accountId}`)).balance),
    messages: (atLeast = 0) => client.until(readMessages, ({ count }) => count >= atLeast),
  }
}

const asObject = (body: unknown): object => (typeof body === 'object' && body !== null ? body : {})
const asList = (body: unknown): unknown[] => (Array.isArray(body) ? body : [])

/**
 * One word for a notice if its text is exactly what the contract says, otherwise the beginning of the text.
 */
function nameOf(text: string, accountId: string, orderIds: ReadonlySet<string>): string {
  const orderId = /[0-9a-f]{8}-[0-9a-f-]{27}/g
  const isOwn = [...(text.match(orderId) ?? [])].every((id) => id === accountId || orderIds.has(id))
  const general = text.replaceAll(accountId, 'A').replaceAll(orderId, 'O')
  const name = isOwn && MESSAGES.find(([pattern]) => pattern.test(general))?.[1]
  return name || `"${text.slice(0, 20)}"`
}

const MESSAGES: readonly (readonly [RegExp, string])[] = [
  [/^DEPOSIT \d+(\.\d+)? ACCEPTED ON ACCOUNT A$/, 'deposit'],
  [/^ORDER O PAID SUCCESSFULLY$/, 'paid'],
  [/^NOT ENOUGH MONEY on account A for order O$/, 'refused'],
  [/^ORDER O NOT PAID: billing could not be reached$/, 'unpaid'],
]
