import type { InteractionStyle } from '../../contracts/style.ts'
import type { Client } from './client.ts'
import { type Customer, openCustomer, type PlacedOrder } from './customer.ts'
import { type ByStyle, each, inEachStyle, PROMISES } from './promises.ts'
import { cell, type Table } from './table.ts'

/**
 * The scenes in which everything runs: an order that is paid, and one that is too dear. Returns how
 * long the answer to the first took in each style, in milliseconds.
 */
export async function everythingRuns(client: Client, table: Table): Promise<ByStyle<number>> {
  await inEachStyle((style) => warmUp(client, style))
  table.scene('1  A customer with 199 orders 3 units for 195')
  table.columns('order → billing', each(({ orderToBilling }) => [`  ${orderToBilling}`]))
  table.columns(
    'billing → notification',
    each(({ billingToNotification }) => [`  ${billingToNotification}`]),
  )
  const paid = await inEachStyle((style) => orderIsPaid(client, style))
  table.heading('What the customer sees')
  table.rows(paid, ({ answers }) => answers)
  table.heading('What happens, in ms after the order was created')
  table.columns('', mapStyles(paid, ({ hops }) => hops))
  table.heading('What it leads to')
  table.rows(paid, ({ end }) => end)

  table.scene('2  With 4 left, the customer orders 3 units more')
  const refused = await inEachStyle((style) => orderIsRefused(paid[style].customer))
  table.rows(refused, (cells) => cells)
  return mapStyles(paid, ({ answerMs }) => answerMs)
}
