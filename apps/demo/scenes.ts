import type { InteractionStyle } from '../../contracts/style.ts'
import { type ByStyle, inEachStyle, mapStyles } from './by-style.ts'
import type { Client } from './client.ts'
import { type Customer, openCustomer, type PlacedOrder } from './customer.ts'
import { PROMISES } from './promises.ts'
import { cell, type Table } from './table.ts'

/**
 * The scenes in which all services run: an order that is paid, and an order that costs too much. Returns the
 * milliseconds until the response to the first order, for each style.
 */
export async function everythingRuns(client: Client, table: Table): Promise<ByStyle<number>> {
  await inEachStyle((style) => warmUp(client, style))

  table.scene('1  A customer with 199 orders 3 units for 195')
  table.columns(
    'order → billing',
    mapStyles(PROMISES, (style) => [style.orderToBilling]),
  )
  const toNotification = mapStyles(PROMISES, (style) => [style.billingToNotification])
  table.columns('billing → notification', toNotification)
  const paid = await inEachStyle((style) => orderIsPaid(client, style))
  table.heading('What the customer sees')
  table.rows(mapStyles(paid, ({ responses }) => responses))
  table.heading('Timeline, in ms after the order was created')
  table.columns(
    '',
    mapStyles(paid, ({ hops }) => hops),
  )
  table.heading('The result')
  table.rows(mapStyles(paid, ({ end }) => end))

  table.scene('2  With 4 left, the customer orders 3 more units')
  table.rows(await inEachStyle((style) => orderIsRefused(paid[style].customer)))
  return mapStyles(paid, ({ responseMs }) => responseMs)
}

/** Plays a round that is not shown, so that the first style is not measured before the code is compiled. */
async function warmUp(client: Client, style: InteractionStyle): Promise<void> {
  const customer = await openCustomer(client, style)
  await customer.deposit(199)
  const { orderId } = await customer.order(3)
  await customer.settledOrder(orderId)
  await customer.messages(2)
}

async function orderIsPaid(client: Client, style: InteractionStyle) {
  const promised = PROMISES[style].paid
  const customer = await openCustomer(client, style)
  const { opened } = customer
  const deposit = await customer.deposit(199)
  // Wait for the notice of the deposit, so that all work on the deposit is done before the order is measured.
  await customer.messages(1)
  const placed = await customer.order(3)
  const { response, orderId } = placed
  const { state = 'unknown' } = await customer.findOrder(orderId)
  const isNotified = (await customer.messages()).count === 2

  const order = await customer.settledOrder(orderId)
  const messages = await customer.messages(2)
  return {
    customer,
    responseMs: response.durationMs,
    responses: {
      'opens an account': cell(opened.status, '200', opened.durationMs),
      'deposits 199': cell(`${deposit.status}, ${deposit.body}`, '200, 199', deposit.durationMs),
      'orders 3 units': cell(response.status, promised.status, response.durationMs),
      'reads the order': cell(state, promised.stateAtOnce),
      'reads the notice': cell(isNotified ? 'written' : 'not yet', promised.messageAtOnce),
    },
    hops: hopsOf(client, placed, {
      'order created': Date.parse(order.created ?? ''),
      paid: await customer.paidAt(orderId),
      'notice written': messages.lastAt,
      [`order ${order.state}`]: Date.parse(order.updated ?? ''),
    }),
    end: {
      'the order': cell(order.state, 'APPROVED'),
      'the balance': cell(await customer.balance(), '4'),
      'the notices': cell(messages.summary, 'deposit, paid'),
    },
  }
}

/** The steps of the order and the response, with their times, sorted by time. */
function hopsOf(
  { baseUrl }: Client,
  { response }: PlacedOrder,
  times: Readonly<Record<string, number>>,
): string[] {
  const created = times['order created'] ?? Number.NaN
  // On another machine, the clocks differ. The response time is then counted from the order's creation.
  const isLocal = /^(localhost|127\.|\[::1\])/.test(new URL(baseUrl).host)
  const respondedAt = isLocal ? response.at : created + response.durationMs
  return Object.entries({ ...times, 'the response': respondedAt })
    .filter(([, time]) => Number.isFinite(time - created))
    .sort(([, a], [, b]) => a - b)
    .map(([name, time]) => `${String(Math.round(time - created)).padStart(4)}  ${name}`)
}

async function orderIsRefused(customer: Customer) {
  const promised = PROMISES[customer.style].refused
  const { response, orderId } = await customer.order(3)
  const { state = 'unknown' } = await customer.findOrder(orderId)
  const isNotified = (await customer.messages()).count === 3
  const order = await customer.settledOrder(orderId)
  const messages = await customer.messages(3)
  return {
    'orders 3 units': cell(response.status, promised.status, response.durationMs),
    'reads the order': cell(state, promised.stateAtOnce),
    'reads the notice': cell(isNotified ? 'written' : 'not yet', promised.messageAtOnce),
    'the order': cell(order.state, 'CANCELED'),
    'its reason': cell(order.reason, 'NOT_ENOUGH_MONEY'),
    'the balance': cell(await customer.balance(), '4'),
    'the notices': cell(messages.summary, 'deposit, paid, refused'),
  }
}
