import type { Reason } from '../../contracts/events.ts'
import { findInOutbox, findUnread } from '../../messaging/outstanding.ts'
import { findPayments } from '../../services/billing/store.ts'
import type { Notice } from '../../services/notification/message.ts'
import { findByEvents } from '../../services/notification/store.ts'
import { failureToAnnounce } from '../audit/invariants.ts'
import { LOWEST_ID, PAGE_ROWS } from '../audit/pages.ts'
import type { Commands } from './commands.ts'
import type { Comparison } from './differences.ts'
import { cancellationsAfter, entriesAfter, type LedgerEntry, paymentsAfter } from './store.ts'

/**
 * Finds outcomes without a message to the customer. A deleted message keeps its row, so it does not count as
 * missing. Neither does an outcome that is still in an outbox or in the embedded log, because the services
 * will announce it. Failures are written first, because the failure of an order must not follow the notice of
 * its payment.
 */
export async function compareMessages(at: Comparison, commands: Commands): Promise<void> {
  await compareRefusals(at, commands)
  await compareCancellations(at, commands)
  let last: Pick<LedgerEntry, 'accountId' | 'version'> = { accountId: LOWEST_ID, version: 0 }
  for (;;) {
    const entries = await entriesAfter(at.databases.billing, last, at.since, PAGE_ROWS)
    if (entries.length === 0) return
    last = entries.at(-1)!
    await reportMissing(at, entries.map(entryNotice), commands)
  }
}

/** Finds payments that the billing service refused without a message to the customer. */
async function compareRefusals(at: Comparison, commands: Commands): Promise<void> {
  for (let after = LOWEST_ID; ; ) {
    const refused = await paymentsAfter(
      at.databases.billing,
      after,
      ['REFUSED'],
      at.since,
      PAGE_ROWS,
    )
    if (refused.length === 0) return
    after = refused.at(-1)!.orderId
    const notices = refused.flatMap(({ orderId, accountId, reason }) =>
      accountId === null ? [] : [failureNotice(orderId, accountId, reason)],
    )
    await reportMissing(at, notices, commands)
  }
}

/**
 * Finds cancellations that the order service announces itself. Skips orders whose payment was announced to
 * the customer.
 */
async function compareCancellations(at: Comparison, commands: Commands): Promise<void> {
  const { orders, billing, notification } = at.databases
  for (let after = LOWEST_ID; ; ) {
    const canceled = await cancellationsAfter(orders, after, at.since, PAGE_ROWS)
    if (canceled.length === 0) return
    after = canceled.at(-1)!.id
    const ids = canceled.map(({ id }) => id)
    const payments = await findPayments(billing, ids)
    const announced = await findByEvents(
      notification,
      ids.flatMap((id) => [`${id}/ORDER_PAID`, `${id}/PAYMENT_REFUNDED`]),
    )
    const isPaid = (id: string) =>
      announced.has(`${id}/ORDER_PAID`) || announced.has(`${id}/PAYMENT_REFUNDED`)
    const notices = canceled
      .filter((order) => failureToAnnounce(order, payments.get(order.id)).length > 0)
      .filter(({ id }) => !isPaid(id))
      .map(({ id, profileId, reason }) => failureNotice(id, profileId, reason))
    await reportMissing(at, notices, commands)
  }
}

const failureNotice = (orderId: string, accountId: string, reason: Reason | null): Notice => ({
  ...noticeOf(`${orderId}/PAYMENT_FAIL`, accountId),
  event: 'PAYMENT_FAIL',
  orderId,
  reason,
})

const noticeOf = (eventId: string, accountId: string) =>
  ({ eventId, accountId, source: 'event' }) as const

function entryNotice({ kind, accountId, orderId, depositId, amountMinor }: LedgerEntry): Notice {
  const valueMinor = amountMinor
  switch (kind) {
    case 'DEPOSIT':
      return {
        ...noticeOf(`${depositId}/DEPOSIT_ACCEPTED`, accountId),
        event: 'DEPOSIT_ACCEPTED',
        valueMinor,
      }
    case 'PAYMENT':
      return {
        ...noticeOf(`${orderId}/ORDER_PAID`, accountId),
        event: 'ORDER_PAID',
        orderId: orderId!,
      }
    case 'REFUND':
      return {
        ...noticeOf(`${orderId}/PAYMENT_REFUNDED`, accountId),
        event: 'PAYMENT_REFUNDED',
        orderId: orderId!,
        valueMinor,
      }
  }
}

async function reportMissing(
  { databases, bus, found }: Comparison,
  notices: readonly Notice[],
  commands: Commands,
): Promise<void> {
  const { orders, billing, notification } = databases
  let missing = new Set(notices.map(({ eventId }) => eventId))
  // Read in the direction in which events flow, so that an event in flight is found in at least one of these
  // places.
  for (const find of [
    async (ids: string[]) => (await findByEvents(notification, ids)).keys(),
    (ids: string[]) => findInOutbox(billing, 'billing', ids),
    (ids: string[]) => findInOutbox(orders, 'orders', ids),
    async (ids: string[]) => (bus ? findUnread(bus, 'payment', 'notification', ids) : []),
    async (ids: string[]) => (await findByEvents(notification, ids)).keys(),
  ]) {
    if (missing.size > 0) missing = missing.difference(new Set(await find([...missing])))
  }
  for (const notice of notices) {
    const { eventId: id, accountId } = notice
    if (!missing.has(id)) continue
    await found({ kind: 'MESSAGE_MISSING', id, accountId }, () => commands.writeMessage(notice))
  }
}
