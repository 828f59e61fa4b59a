import Type from 'typebox'
import { keyedRequest, type StoredResponse, sendStored } from '../../chassis/idempotency.ts'
import { customer, operator, service } from '../../contracts/access.ts'
import { parseDeadline } from '../../contracts/deadline.ts'
import {
  Account as AccountSchema,
  CommandHeaders,
  Deposit,
  Entry,
  Id,
  IdParams,
  KEYED_PROBLEMS,
  NEXT_CURSOR_HEADER,
  OrderIdParams,
  Page,
  Pay,
  Payment as PaymentSchema,
  STYLE_PROBLEMS,
  Void,
  Voided,
} from '../../contracts/http.ts'
import { parseAmount, toUnits } from '../../contracts/money.ts'
import { Fault } from '../../contracts/problems.ts'
import { flowOf, type InteractionStyle, requestedStyle } from '../../contracts/style.ts'
import type { TraceContext } from '../../contracts/trace-context.ts'
import type { Caller } from '../../platform/async/coalesce.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import type { Addressed } from './commands.ts'
import type { StoredAccount, StoredPayment, StoredTransfer } from './store.ts'

/** Routes for accounts, deposits and payments. */
export interface BillingRoutes {
  readonly newId: () => string
  readonly defaultStyle: InteractionStyle
  readonly allowOverride: boolean
  readonly customerDeposits: boolean
  /** Executes the command, and waits for the first attempt at each call that announces its result. */
  readonly settle: (
    addressed: Addressed,
    caller: Caller & { remainingMs(): number },
  ) => Promise<StoredResponse>
  readonly findAccount: (id: string) => Promise<StoredAccount | undefined>
  readonly findPayment: (orderId: string) => Promise<StoredPayment | undefined>
  readonly listEntries: (accountId: string, page: Page) => Promise<StoredTransfer[]>
}

export function billingRoutes(app: HttpServer, routes: BillingRoutes): void {
  accountRoutes(app, routes)
  payingRoute(app, routes)
  voidingRoute(app, routes)
  readingAccounts(app, routes)
  readingPayments(app, routes)
}

const anyService = service('order', 'billing', 'notification')

/** Whether customers, too, may deposit is a setting: deposits create money. */
const depositAccess = (customerDeposits: boolean) => [
  ...(customerDeposits ? [customer('accounts:write', 'params/id')] : []),
  operator('deposits:write'),
]

/**
 * The caller of a request learns the outcome from the response, so a repeated request is not announced again.
 */
const common = ({ trace }: { trace: TraceContext }) => ({ ...trace, byMessage: false })

function accountRoutes(app: HttpServer, routes: BillingRoutes): void {
  const { newId } = routes

  app.post(
    '/billing/account/create',
    {
      config: { access: [customer('accounts:write')] },
      schema: {
        operationId: 'openAccount',
        problems: [...STYLE_PROBLEMS, ...KEYED_PROBLEMS],
        summary: 'Open an account',
        headers: CommandHeaders,
        response: { 200: Id },
      },
    },
    async (request, reply) => {
      const keyed = keyedRequest(
        request.headers['idempotency-key'],
        'POST account/create',
        {},
        request.principal,
      )
      const style = requestedStyle(request.headers['x-interaction-style'], routes)
      const command = {
        ...common(request),
        type: 'createAccount',
        accountId: request.ownProfile ?? newId(),
        style,
      } as const
      return sendStored(reply, await routes.settle({ command, keyed }, request))
    },
  )

  app.post(
    '/billing/account/:id',
    {
      config: { access: depositAccess(routes.customerDeposits) },
      schema: {
        operationId: 'deposit',
        problems: [...STYLE_PROBLEMS, ...KEYED_PROBLEMS, 'ACCOUNT_NOT_FOUND', 'BALANCE_TOO_LARGE'],
        summary: 'Deposit money; the response is the resulting balance',
        params: IdParams,
        querystring: Deposit,
        headers: CommandHeaders,
        response: { 200: Type.Number() },
      },
    },
    async (request, reply) => {
      const { id: accountId } = request.params
      const { amount } = request.query
      const amountMinor = amountOf(amount, 'query/amount')
      const style = requestedStyle(request.headers['x-interaction-style'], routes)
      const content = { accountId, amount }
      const key = request.headers['idempotency-key']
      const keyed = keyedRequest(key, 'POST deposit', content, request.principal)
      const type = flowOf(style).deposit === 'promised' ? 'requestDeposit' : 'deposit'
      const terms = { depositId: newId(), accountId, amountMinor }
      const command = { ...common(request), type, style, ...terms } as const
      return sendStored(reply, await routes.settle({ command, keyed }, request))
    },
  )
}

const PAYMENT_PROBLEMS = [
  'NOT_ENOUGH_MONEY',
  'ACCOUNT_NOT_FOUND',
  'PAYMENT_VOIDED',
  'PAYMENT_MISMATCH',
] as const

/** Calls between services carry the style of the order that they belong to, whatever the default style is here. */
const flowStyle = (header: string | undefined, routes: BillingRoutes) =>
  requestedStyle(header, { ...routes, allowOverride: true })

function payingRoute(app: HttpServer, routes: BillingRoutes): void {
  const { newId } = routes
  app.post(
    '/billing/account',
    {
      config: { access: [customer('payments:write', 'body/accountId'), service('order')] },
      schema: {
        operationId: 'pay',
        problems: ['UNKNOWN_STYLE', ...KEYED_PROBLEMS, ...PAYMENT_PROBLEMS],
        summary:
          "Pay for an order; without an order id, the payment's own id is used as the order id",
        headers: CommandHeaders,
        body: Pay,
        response: { 200: Id },
      },
    },
    async (request, reply) => {
      const { accountId, amount } = request.body
      // Another customer's order could otherwise never be paid: an order has one payment.
      if (request.ownProfile !== undefined && request.body.orderId !== undefined) {
        const detail = 'only the order service may name an order'
        throw new Fault('NOT_YOURS', { field: 'body/orderId', detail })
      }
      const amountMinor = amountOf(amount, 'body/amount')
      const style = flowStyle(request.headers['x-interaction-style'], routes)
      const key = request.headers['idempotency-key']
      const keyed = keyedRequest(key, 'POST payment', request.body, request.principal)
      const paymentId = newId()
      const orderId = request.body.orderId ?? paymentId
      const deadlineMs = parseDeadline(request.headers['x-deadline'])
      const terms = { paymentId, orderId, accountId, amountMinor, deadlineMs }
      const command = { ...common(request), type: 'pay', style, ...terms } as const
      return sendStored(reply, await routes.settle({ command, keyed }, request))
    },
  )
}

function voidingRoute(app: HttpServer, routes: BillingRoutes): void {
  const { newId } = routes
  app.post(
    '/billing/payments/:orderId/void',
    {
      config: { access: [customer('payments:write'), service('order')] },
      schema: {
        operationId: 'voidPayment',
        problems: ['UNKNOWN_STYLE', ...KEYED_PROBLEMS, 'PAYMENT_MISMATCH'],
        summary: 'Cancel or refund a payment; a void that arrives before the payment prevents it',
        params: OrderIdParams,
        headers: CommandHeaders,
        body: Type.Optional(Void),
        response: { 200: Voided },
      },
    },
    async (request, reply) => {
      const { orderId } = request.params
      const accountId = request.body?.accountId ?? null
      const key = request.headers['idempotency-key']
      // A void without a payment would prevent the payment of another customer's order.
      if (request.ownProfile !== undefined) {
        checkOwner(request.ownProfile, (await routes.findPayment(orderId))?.accountId)
      }
      const keyed = keyedRequest(key, 'POST void', { orderId, accountId }, request.principal)
      const style = flowStyle(request.headers['x-interaction-style'], routes)
      const { principal } = request
      const byOrder = principal
        ? principal.service === 'order'
        : key === `${orderId}/ORDER_CANCELED`
      const terms = { paymentId: newId(), orderId, accountId, byOrder }
      const command = { ...common(request), type: 'void', style, ...terms } as const
      return sendStored(reply, await routes.settle({ command, keyed }, request))
    },
  )
}

function readingAccounts(app: HttpServer, routes: BillingRoutes): void {
  app.get(
    '/billing/account/:id',
    {
      config: { access: [customer('accounts:read', 'params/id'), anyService] },
      schema: {
        operationId: 'getAccount',
        problems: ['ACCOUNT_NOT_FOUND'],
        summary: 'An account',
        params: IdParams,
        response: { 200: AccountSchema },
      },
    },
    async (request) => {
      const account = await routes.findAccount(request.params.id)
      if (account === undefined) throw new Fault('ACCOUNT_NOT_FOUND')
      const { id, balanceMinor, created, updated } = account
      return {
        id,
        balance: toUnits(balanceMinor),
        created: created.toISOString(),
        updated: updated.toISOString(),
      }
    },
  )

  app.get(
    '/billing/account/:id/entries',
    {
      config: { access: [customer('accounts:read', 'params/id'), anyService] },
      schema: {
        operationId: 'listEntries',
        problems: ['ACCOUNT_NOT_FOUND'],
        summary: 'The ledger entries of an account, oldest first',
        params: IdParams,
        querystring: Page,
        response: { 200: Type.Array(Entry) },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const entries = await routes.listEntries(id, request.query)
      if (entries.length === 0 && (await routes.findAccount(id)) === undefined) {
        throw new Fault('ACCOUNT_NOT_FOUND')
      }
      const last = entries.at(-1)
      if (last && entries.length === request.query.limit) {
        reply.header(NEXT_CURSOR_HEADER, String(last.version))
      }
      return entries.map((entry) => ({
        version: entry.version,
        time: entry.created.toISOString(),
        kind: entry.kind,
        orderId: entry.orderId,
        depositId: entry.depositId,
        amount: toUnits(entry.debit === 'customer' ? -entry.amountMinor : entry.amountMinor),
        balanceAfter: toUnits(entry.balanceAfterMinor),
      }))
    },
  )
}

function readingPayments(app: HttpServer, routes: BillingRoutes): void {
  app.get(
    '/billing/payments/:orderId',
    {
      config: { access: [customer('accounts:read'), anyService] },
      schema: {
        operationId: 'getPayment',
        problems: ['PAYMENT_NOT_FOUND'],
        summary: 'The payment of an order',
        params: OrderIdParams,
        response: { 200: PaymentSchema },
      },
    },
    async (request) => {
      const payment = await routes.findPayment(request.params.orderId)
      if (payment === undefined) throw new Fault('PAYMENT_NOT_FOUND')
      checkOwner(request.ownProfile, payment.accountId)
      const { id, orderId, accountId, amountMinor, state, reason, created, updated } = payment
      return {
        id,
        orderId,
        accountId,
        amount: amountMinor === null ? null : toUnits(amountMinor),
        state,
        reason,
        created: created.toISOString(),
        updated: updated.toISOString(),
      }
    },
  )
}

/** Lets a customer reach only what belongs to the own account. */
function checkOwner(ownProfile: string | undefined, accountId: string | null | undefined): void {
  if (ownProfile !== undefined && accountId !== ownProfile) throw new Fault('NOT_YOURS')
}

function amountOf(value: number | string, field: string): bigint {
  const minor = parseAmount(value)
  if (typeof minor === 'string') {
    throw new Fault('VALIDATION_FAILED', { field, detail: `${field} ${minor}` })
  }
  return minor
}
