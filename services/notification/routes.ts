import Type from 'typebox'
import { customer, operator, service } from '../../contracts/access.ts'
import { isReason, type PaymentEvent } from '../../contracts/events.ts'
import {
  AccountIdParams,
  CommandHeaders,
  Contact,
  Id,
  IdParams,
  Message as MessageSchema,
  NEXT_CURSOR_HEADER,
  Notify,
  Page,
} from '../../contracts/http.ts'
import { parseAmount } from '../../contracts/money.ts'
import { Fault } from '../../contracts/problems.ts'
import { DEFAULT_STYLE, requestedStyle } from '../../contracts/style.ts'
import type { Caller } from '../../platform/async/coalesce.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import { isAbout, type Notice, toNotice } from './message.ts'
import type { NewMessage, StoredMessage } from './store.ts'

/** Routes for notices and contacts. */
export interface NotificationRoutes {
  readonly newId: () => string
  readonly write: (notice: Notice, caller: Caller) => Promise<NewMessage>
  readonly find: (id: string) => Promise<StoredMessage | undefined>
  readonly list: (accountId: string | null, page: Page) => Promise<StoredMessage[]>
  readonly deleteAll: () => Promise<void>
  readonly putContact: (accountId: string, email: string) => Promise<void>
  readonly findContact: (accountId: string) => Promise<string | undefined>
  readonly deleteContact: (accountId: string) => Promise<boolean>
  readonly forgetAccount: (accountId: string) => Promise<void>
}

export function notificationRoutes(app: HttpServer, routes: NotificationRoutes): void {
  notifyingRoute(app, routes)
  messageRoutes(app, routes)
  removingRoutes(app, routes)
  contactRoutes(app, routes)
}

function notifyingRoute(app: HttpServer, routes: NotificationRoutes): void {
  app.post(
    '/notification',
    {
      config: { access: [service('order', 'billing')] },
      schema: {
        operationId: 'notify',
        problems: ['UNKNOWN_STYLE', 'IDEMPOTENCY_KEY_REUSED'],
        summary: 'Notify a customer; the Idempotency-Key is the id of the event',
        headers: CommandHeaders,
        body: Notify,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { 'idempotency-key': key, 'x-reason': reason } = request.headers
      requestedStyle(request.headers['x-interaction-style'], anyStyle)
      const id = key ?? `rest/${routes.newId()}`
      const meta = { id, ...(isReason(reason) && { reason }), ...request.trace }
      const notice = toNotice(eventIn(request.body), meta, 'call')
      const message = await routes.write(notice, request)
      // Another event id means one of two things: the customer was already notified of the payment, so the
      // failure was not announced, or the notice was stored under an id of its own.
      if (message.eventId !== notice.eventId) return message.id
      if (!isAbout(message, notice)) throw new Fault('IDEMPOTENCY_KEY_REUSED')
      return message.id
    },
  )
}

function messageRoutes(app: HttpServer, routes: NotificationRoutes): void {
  const list = async (
    accountId: string | null,
    page: Page,
    reply: { header(name: string, value: string): unknown },
  ) => {
    const messages = await routes.list(accountId, page)
    const last = messages.at(-1)
    if (last && messages.length === page.limit) reply.header(NEXT_CURSOR_HEADER, String(last.seq))
    return messages.map(view)
  }

  app.get(
    '/notification',
    {
      config: { access: [operator('operator:read')] },
      schema: {
        operationId: 'listMessages',
        summary: 'All messages, oldest first',
        querystring: Page,
        response: { 200: Type.Array(MessageSchema) },
      },
    },
    (request, reply) => list(null, request.query, reply),
  )

  app.get(
    '/notification/account/:accountId',
    {
      config: { access: [customer('notices:read', 'params/accountId')] },
      schema: {
        operationId: 'listMessagesOfAccount',
        summary: "An account's messages, oldest first",
        params: AccountIdParams,
        querystring: Page,
        response: { 200: Type.Array(MessageSchema) },
      },
    },
    (request, reply) => list(request.params.accountId, request.query, reply),
  )

  app.get(
    '/notification/:id',
    {
      config: { access: [customer('notices:read')] },
      schema: {
        operationId: 'getMessage',
        problems: ['MESSAGE_NOT_FOUND'],
        summary: 'One message',
        params: IdParams,
        response: { 200: MessageSchema },
      },
    },
    async (request) => {
      const message = await routes.find(request.params.id)
      if (message === undefined) throw new Fault('MESSAGE_NOT_FOUND')
      const { ownProfile } = request
      if (ownProfile !== undefined && message.accountId !== ownProfile) {
        throw new Fault('NOT_YOURS')
      }
      return view(message)
    },
  )
}

function removingRoutes(app: HttpServer, routes: NotificationRoutes): void {
  app.delete(
    '/notification/account/:accountId',
    {
      config: { access: [customer('notices:write', 'params/accountId')] },
      schema: {
        operationId: 'forgetAccount',
        summary: "Remove an account's contact, the texts of its messages and its unsent letters",
        params: AccountIdParams,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { accountId } = request.params
      await routes.forgetAccount(accountId)
      return accountId
    },
  )

  app.delete(
    '/notification',
    {
      config: { access: [operator('operator:write')] },
      schema: {
        operationId: 'deleteMessages',
        summary: 'Remove all messages',
        response: { 200: Type.Boolean() },
      },
    },
    async () => {
      await routes.deleteAll()
      return true
    },
  )
}

function contactRoutes(app: HttpServer, routes: NotificationRoutes): void {
  const path = '/notification/contact/:accountId'
  const params = AccountIdParams

  app.put(
    path,
    {
      config: { access: [customer('notices:write', 'params/accountId')] },
      schema: {
        operationId: 'putContact',
        summary: "Set the address for an account's letters",
        params,
        body: Contact,
        response: { 200: Contact },
      },
    },
    async (request) => {
      const { email } = request.body
      await routes.putContact(request.params.accountId, email)
      return { email }
    },
  )
  app.get(
    path,
    {
      config: { access: [customer('notices:read', 'params/accountId')] },
      schema: {
        operationId: 'getContact',
        problems: ['CONTACT_NOT_FOUND'],
        summary: "The address for an account's letters",
        params,
        response: { 200: Contact },
      },
    },
    async (request) => {
      const email = await routes.findContact(request.params.accountId)
      if (email === undefined) throw new Fault('CONTACT_NOT_FOUND')
      return { email }
    },
  )
  app.delete(
    path,
    {
      config: { access: [customer('notices:write', 'params/accountId')] },
      schema: {
        operationId: 'deleteContact',
        problems: ['CONTACT_NOT_FOUND'],
        summary: 'Stop sending letters for an account',
        params,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { accountId } = request.params
      if (!(await routes.deleteContact(accountId))) throw new Fault('CONTACT_NOT_FOUND')
      return accountId
    },
  )
}

/** A call may name any known style, whatever this instance is configured to accept. */
const anyStyle = { defaultStyle: DEFAULT_STYLE, allowOverride: true } as const

/** The event in the body of a call. Throws a Fault if a field is missing or its value is not an amount. */
function eventIn(body: Notify): PaymentEvent {
  const { accountId, event } = body
  switch (event) {
    case 'ORDER_PAID':
    case 'PAYMENT_FAIL':
      return { event, accountId, orderId: required(body, 'orderId') }
    case 'DEPOSIT_ACCEPTED':
      return { event, accountId, value: amountIn(body) }
    case 'PAYMENT_REFUNDED':
      return { event, accountId, value: amountIn(body), orderId: required(body, 'orderId') }
  }
}

function required<Name extends 'orderId' | 'value'>(
  body: Notify,
  name: Name,
): NonNullable<Notify[Name]> {
  const value = body[name]
  if (value === undefined) {
    const detail = `${body.event} requires ${name}`
    throw new Fault('VALIDATION_FAILED', { field: `body/${name}`, detail })
  }
  return value as NonNullable<Notify[Name]>
}

function amountIn(body: Notify): number {
  const value = required(body, 'value')
  const minor = parseAmount(value)
  if (typeof minor === 'string') {
    throw new Fault('VALIDATION_FAILED', { field: 'body/value', detail: `body/value ${minor}` })
  }
  return value
}

function view({ id, accountId, text, event, created }: StoredMessage) {
  return { id, account: accountId, text, event, created: created.toISOString() }
}
