import type { InteractionStyle } from '../../contracts/style.ts'
import { inEachStyle, mapStyles } from './by-style.ts'
import type { Client } from './client.ts'
import { type Customer, openCustomer } from './customer.ts'
import type { LabSwitch } from './lab-switch.ts'
import { PROMISES } from './promises.ts'
import { type Cell, cell, type Table } from './table.ts'

/** The scenes in which a service is off while a customer whose balance is 199 orders 3 units for 195. */
export async function servicesAreOff(client: Client, table: Table, lab: LabSwitch): Promise<void> {
  table.scene('3  The first order again, while the notification service is off')
  await playOutage(client, table, lab, 'notification', orderWithoutNotification)
  table.scene('4  The first order again, while the billing service is off')
  await playOutage(client, table, lab, 'billing', orderWithoutBilling)
}

type Cells = Readonly<Record<string, Cell>>

/**
 * Runs a scene for one customer. Resolves with what the customer sees while the service is off, and with a
 * function that reads what the customer sees once the service is on again.
 */
type Outage = (customer: Customer) => Promise<{ whileOff: Cells; afterwards: () => Promise<Cells> }>

async function playOutage(
  client: Client,
  table: Table,
  lab: LabSwitch,
  service: 'notification' | 'billing',
  outage: Outage,
): Promise<void> {
  const customers = await inEachStyle((style) => customerWithMoney(client, style))
  const seen = await lab.whileOff(service, async () => {
    table.heading(`${service} is off`)
    const all = await inEachStyle((style) => outage(customers[style]))
    table.rows(mapStyles(all, ({ whileOff }) => whileOff))
    return all
  })
  table.heading(`${service} is on again`)
  table.rows(await inEachStyle((style) => seen[style].afterwards()))
}

async function customerWithMoney(client: Client, style: InteractionStyle): Promise<Customer> {
  const customer = await openCustomer(client, style)
  await customer.deposit(199)
  await customer.messages(1)
  return customer
}

async function orderWithoutNotification(customer: Customer) {
  const { response, orderId } = await customer.order(3)
  const order = await customer.settledOrder(orderId)
  const whileOff = {
    'orders 3 units': cell(
      response.status,
      PROMISES[customer.style].notificationOff.status,
      response.durationMs,
    ),
    'the order': cell(order.state, 'APPROVED'),
    'the balance': cell(await customer.balance(), '4'),
  }

  async function afterwards() {
    const late = await customer.messages(2)
    // Notices are listed in order, so if the first notice was written twice, the repeat comes before the
    // notice of this deposit.
    await customer.deposit(1)
    const all = await customer.messages(3)
    return {
      'the notices': cell(late.summary, 'deposit, paid'),
      'and after a deposit': cell(all.summary, 'deposit, paid, deposit'),
    }
  }
  return { whileOff, afterwards }
}

async function orderWithoutBilling(customer: Customer) {
  const promised = PROMISES[customer.style].billingOff
  const { response, orderId } = await customer.order(3)
  const order = await customer.findOrder(orderId)
  const expected = promised.messagesWhileOff.split(', ').length
  const whileOff = {
    'orders 3 units': cell(response.status, promised.status, response.durationMs),
    'the order': cell(order.state, promised.stateWhileOff),
    'its reason': cell(order.reason ?? 'none', promised.reasonWhileOff),
    'the notices': cell((await customer.messages(expected)).summary, promised.messagesWhileOff),
  }

  async function afterwards() {
    const settled = await customer.settledOrder(orderId)
    const payment = await customer.payment(orderId, promised.payment)
    const messages = await customer.messages(promised.messages.split(', ').length)
    return {
      'the order': cell(settled.state, promised.state),
      'its payment': cell(payment.state ?? 'unknown', promised.payment),
      'the balance': cell(await customer.balance(), promised.balance),
      'the notices': cell(messages.summary, promised.messages),
    }
  }
  return { whileOff, afterwards }
}
