import { type InteractionStyle, STYLES } from '../../../contracts/style.ts'
import { HttpUnreachable } from '../../../platform/http/client.ts'
import type { Call, Client } from '../servers/network.ts'
import type { Chance, Chances } from './chance.ts'
import type { Scheduler } from './scheduler.ts'

/**
 * What a customer wants to do. Customers act independently and concurrently: they open accounts, make deposits,
 * place orders, change their minds, repeat requests that got no response, and click twice.
 */
export type Intent =
  | { readonly kind: 'open' }
  | { readonly kind: 'deposit'; readonly accountId: string; readonly amountMinor: number }
  | { readonly kind: 'order'; readonly accountId: string; readonly quantity: number }
  | { readonly kind: 'delete'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'pay'; readonly accountId: string; readonly amountMinor: number }
  | { readonly kind: 'void'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'contact'; readonly accountId: string }
  | { readonly kind: 'read balance'; readonly accountId: string }
  | { readonly kind: 'read order'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'list orders'; readonly accountId: string }
  /** To read or delete another customer's order. */
  | {
      readonly kind: 'pry'
      readonly accountId: string
      readonly orderId: string
      readonly isToDelete?: boolean
    }
  /** To send a different request under a key that is already used. */
  | { readonly kind: 'reuse a key'; readonly of: MoneyIntent }

type MoneyIntent = Extract<Intent, { readonly kind: 'deposit' | 'order' | 'pay' }>

/** One request that was sent for an operation; times in epoch milliseconds. */
export interface Attempt {
  readonly sentMs: number
  /** When the response arrived, or the customer stopped waiting for it. */
  readonly doneMs: number
  /** Absent if no response came; the request may or may not have taken effect. */
  readonly response?: { readonly status: number; readonly body: unknown }
}

/** An intent with all its attempts. */
export interface Operation {
  readonly intent: Intent
  readonly style: InteractionStyle
  /** The Idempotency-Key of all attempts. */
  readonly key?: string
  readonly attempts: Attempt[]
}

export interface CustomersOptions {
  readonly http: Client
  readonly scheduler: Pick<Scheduler, 'now' | 'after'>
  readonly chances: Chances
  readonly style: InteractionStyle | 'mixed'
  /** How long customers wait for a response, and how many attempts they make; by default as in the simulation. */
  readonly patience?: { readonly timeoutMs: number; readonly attempts: number }
  /** Called after each attempt. */
  readonly onAttempt?: (operation: Operation, attempt: Attempt) => void
}

export interface Customers {
  readonly operations: readonly Operation[]
  /** Whether every customer has finished. */
  areDone(): boolean
  /** Repeats the requests that got no final response and may be repeated; returns how many there are. */
  repeatUnanswered(): number
}

const PATIENCE = { timeoutMs: 3_500, attempts: 8 }
/** How often a customer tries to open an account. */
const MAX_OPENINGS = 8
/** How long after the start the last customer arrives. */
const LAST_ARRIVAL_MS = 1_500
const LONGEST_THOUGHT_MS = 1_200
const LONGEST_REGRET_MS = 300

/**
 * Amounts and quantities that are each used for one intent only, so that an effect can be traced back to its
 * intent.
 */
export interface UniqueValues {
  amountMinor(): number
  quantity(): number
}

export function startCustomers(options: CustomersOptions): Customers {
  const { scheduler, chances } = options
  const operations: Operation[] = []
  const chance = chances('customers')
  const unique = createUniqueValues(chances('marks'))
  const known: { accountId: string; orderId: string }[] = []
  const repeats: (() => Promise<unknown>)[] = []
  let running = 2 + chance.integer(2)
  for (let number = running; number > 0; number -= 1) {
    const own = chances(`customer ${number}`)
    scheduler.after(own.between(0, LAST_ARRIVAL_MS), () => {
      const name = `c${number}`
      const accountKeys = { count: 0 }
      const parts = { chance: own, operations, unique, known, repeats, name, accountKeys }
      void counted(runCustomer({ ...options, ...parts }))
    })
  }
  async function counted(work: Promise<unknown>): Promise<void> {
    await work.finally(() => {
      running -= 1
    })
  }
  return {
    operations,
    areDone: () => running === 0,
    repeatUnanswered() {
      const open = repeats.splice(0)
      running += open.length
      for (const repeat of open) void counted(repeat())
      return open.length
    },
  }
}

export function createUniqueValues(chance: Chance): UniqueValues {
  let amounts = 0
  const quantities = chance.shuffled(Array.from({ length: 12 }, (_, n) => n + 1))
  return {
    amountMinor: () => 100 * (65 + chance.integer(600)) + ++amounts,
    quantity: () => quantities.pop() ?? 13 + ++amounts,
  }
}

/** The context in which a customer's requests are sent. */
export interface RequestContext extends Omit<CustomersOptions, 'chances'> {
  readonly chance: Chance
  /** The orders of all customers, so that a customer can try to access another customer's order. */
  readonly known: { accountId: string; orderId: string }[]
  /** Functions that repeat the operations without a final response; only those that may be repeated. */
  readonly repeats?: (() => Promise<unknown>)[]
}

export interface CustomerContext extends RequestContext {
  readonly name: string
  readonly operations: Operation[]
  readonly unique: UniqueValues
  /** How many Idempotency-Keys this customer has used that other customers can also use. */
  readonly accountKeys: { count: number }
}

/** Runs one customer, from the first request to the last response. */
export async function runCustomer(at: CustomerContext): Promise<void> {
  const { chance, unique } = at
  const accountId = await openAccount(at)
  if (accountId === undefined) return
  const acts = 3 + chance.integer(6)
  /** A busy customer has several requests in flight nearly all the time. */
  const isBusy = chance.happens(0.3)
  const side: Promise<unknown>[] = []
  if (chance.happens(0.6)) side.push(perform(at, { kind: 'contact', accountId }))
  side.push(perform(at, { kind: 'deposit', accountId, amountMinor: unique.amountMinor() }))
  for (let n = 0; n < acts; n += 1) {
    const done = act(at, drawIntent(at, accountId))
    if (chance.happens(isBusy ? 0.1 : 0.7)) await done
    else side.push(done)
    await pause(at, chance.next() ** 2 * (isBusy ? 0.1 : 1) * LONGEST_THOUGHT_MS)
  }
  await Promise.all(side)
}

/** Performs an intent. Some customers soon cancel their order, and some of these click twice. */
async function act(at: CustomerContext, intent: Intent): Promise<void> {
  const { chance } = at
  const orderId = await perform(at, intent)
  const isCanceledSoon = intent.kind === 'order' && chance.happens(0.3)
  if (!isCanceledSoon || typeof orderId !== 'string') return
  const { accountId } = intent
  await pause(at, chance.next() ** 3 * LONGEST_REGRET_MS)
  const kinds = chance.pick([['delete'], ['delete', 'void'], ['delete', 'delete']] as const)
  await Promise.all(kinds.map((kind) => perform(at, { kind, accountId, orderId })))
}

async function openAccount(at: CustomerContext): Promise<string | undefined> {
  for (let tries = 0; tries < MAX_OPENINGS; tries += 1) {
    const body = await perform(at, { kind: 'open' })
    if (typeof body === 'string') return body
    await pause(at, 1_000)
  }
  return undefined
}

function drawIntent(at: CustomerContext, accountId: string): Intent {
  const { chance, unique, known } = at
  const own = known.filter((order) => order.accountId === accountId)
  const foreign = known.filter((order) => order.accountId !== accountId)
  const pickOf = (orders: typeof known) => orders[chance.integer(orders.length)]
  const draw = chance.next()
  const mine = pickOf(own)
  if (draw < 0.38) return { kind: 'order', accountId, quantity: unique.quantity() }
  if (draw < 0.55) return { kind: 'deposit', accountId, amountMinor: unique.amountMinor() }
  if (draw < 0.6) return { kind: 'pay', accountId, amountMinor: unique.amountMinor() }
  if (draw < 0.65) return { kind: 'list orders', accountId }
  if (draw < 0.72 || mine === undefined) return { kind: 'read balance', accountId }
  if (draw < 0.84) return { kind: 'delete', ...mine }
  if (draw < 0.89) return { kind: 'void', ...mine }
  const other = pickOf(foreign)
  if (draw < 0.93 && other) {
    return { kind: 'pry', accountId, orderId: other.orderId, isToDelete: chance.happens(0.3) }
  }
  return { kind: 'read order', ...mine }
}

/**
 * Performs an intent; returns the body of its final response. Some requests with a key are sent twice concurrently.
 */
async function perform(at: CustomerContext, intent: Intent): Promise<unknown> {
  const { chance, operations } = at
  const style = at.style === 'mixed' ? chance.pick(STYLES) : at.style
  const keyed = isKeyed(intent) && chance.happens(0.75)
  const key = keyed ? drawKey(at, intent) : undefined
  const operation: Operation = { intent, style, attempts: [], ...(key !== undefined && { key }) }
  operations.push(operation)
  const twice = key !== undefined && chance.happens(0.15)
  const again = twice
    ? pause(at, chance.between(0, 300)).then(() => sendUntilFinal(at, operation))
    : undefined
  const body = await sendUntilFinal(at, operation)
  await again
  if (key !== undefined && body !== undefined && intent.kind !== 'open')
    await reuse(at, operation, key)
  return body
}

/** Draws an Idempotency-Key. Keys belong to the account in the request, so some are shared with other customers. */
function drawKey(at: CustomerContext, { kind }: Intent): string {
  const { chance, operations, name, accountKeys } = at
  if (kind === 'open' || !chance.happens(0.3)) return `${name}-${operations.length}`
  accountKeys.count += 1
  return `key-${accountKeys.count}`
}

/** Now and then a customer's program sends a different request under the same key by mistake. */
async function reuse(at: CustomerContext, first: Operation, key: string): Promise<void> {
  const { intent, style } = first
  if (!isMoneyIntent(intent) || !at.chance.happens(0.08)) return
  const operation: Operation = {
    intent: { kind: 'reuse a key', of: intent },
    style,
    key,
    attempts: [],
  }
  at.operations.push(operation)
  await sendUntilFinal(at, operation)
}

const isMoneyIntent = (intent: Intent): intent is MoneyIntent =>
  intent.kind === 'deposit' || intent.kind === 'order' || intent.kind === 'pay'

function changed(intent: MoneyIntent): Intent {
  if (intent.kind === 'order') return { ...intent, quantity: intent.quantity + 1 }
  return { ...intent, amountMinor: intent.amountMinor + 1 }
}

/**
 * Repeats the request, with pauses, until its response is final; returns the body, or undefined after the last
 * attempt.
 */
export async function sendUntilFinal(at: RequestContext, operation: Operation): Promise<unknown> {
  const { chance } = at
  const { attempts: maxAttempts } = at.patience ?? PATIENCE
  for (let attempts = 1; ; attempts += 1) {
    const attempt = await makeAttempt(at, operation)
    rememberOrders(at, operation.intent, attempt)
    if (isFinal(attempt)) return attempt.response?.body
    if (!mayRepeat(operation)) return undefined
    if (attempts === maxAttempts) break
    await pause(at, chance.between(20, 1_000))
  }
  at.repeats?.push(() => sendUntilFinal(at, operation))
  return undefined
}

/** Whether the request may be repeated without a second effect. */
export const mayRepeat = ({ intent, key }: Operation) => key !== undefined || !isKeyed(intent)

/** Requests that have an effect each time, unless they carry an Idempotency-Key. */
const isKeyed = ({ kind }: Intent) => ['open', 'deposit', 'order', 'pay'].includes(kind)

/** Sends the request once and records the attempt. */
export async function makeAttempt(at: RequestContext, operation: Operation): Promise<Attempt> {
  const attempt = await send(at, operation)
  operation.attempts.push(attempt)
  at.onAttempt?.(operation, attempt)
  return attempt
}

async function send(at: RequestContext, operation: Operation): Promise<Attempt> {
  const { http, scheduler, patience = PATIENCE } = at
  const sentMs = scheduler.now()
  try {
    const { status, body } = await http(requestOf(at, operation), patience.timeoutMs)
    const response = { status, body: body === '' ? undefined : JSON.parse(body) }
    return { sentMs, doneMs: scheduler.now(), response }
  } catch (error) {
    if (!(error instanceof HttpUnreachable)) throw error
    return { sentMs, doneMs: scheduler.now() }
  }
}

function requestOf(
  at: RequestContext,
  { intent, style, key }: Pick<Operation, 'intent' | 'style' | 'key'>,
): Call {
  const { style: runStyle, chance } = at
  const headers = {
    ...(key !== undefined && { 'idempotency-key': key }),
    ...(runStyle === 'mixed' && { 'x-interaction-style': style }),
  }
  const json = { ...headers, 'content-type': 'application/json' }
  const post = (path: string) =>
    ({ method: 'POST', url: `http://gateway${path}`, headers }) as const
  const get = (path: string) => ({ method: 'GET', url: `http://gateway${path}`, headers }) as const
  switch (intent.kind) {
    case 'open':
      return post('/billing/account/create')
    case 'deposit':
      return post(`/billing/account/${intent.accountId}?amount=${unitsOf(intent.amountMinor)}`)
    case 'order': {
      const body = JSON.stringify({ productQuantity: intent.quantity })
      return { ...post(`/orders?profileId=${intent.accountId}`), headers: json, body }
    }
    case 'pay': {
      const { accountId, amountMinor } = intent
      const body = JSON.stringify({ accountId, amount: Number(unitsOf(amountMinor)) })
      return { ...post('/billing/account'), headers: json, body }
    }
    case 'delete': {
      const url = `http://gateway/orders/${intent.orderId}?profileId=${intent.accountId}`
      return { method: 'DELETE', url, headers } as const
    }
    case 'void': {
      // The account is optional; for a third of the orders it is never sent.
      const isNamed = Number.parseInt(intent.orderId.at(-1)!, 16) % 3 > 0
      const body = JSON.stringify(isNamed ? { accountId: intent.accountId } : {})
      return { ...post(`/billing/payments/${intent.orderId}/void`), headers: json, body }
    }
    case 'contact': {
      const body = JSON.stringify({ email: addressOf(intent.accountId) })
      const url = `http://gateway/notification/contact/${intent.accountId}`
      return { method: 'PUT', url, headers: json, body } as const
    }
    case 'read balance':
      return get(`/billing/account/${intent.accountId}`)
    case 'list orders':
      return get(`/orders?profileId=${intent.accountId}`)
    case 'reuse a key':
      return requestOf(at, { intent: changed(intent.of), style, ...(key !== undefined && { key }) })
    case 'pry': {
      const url = `http://gateway/orders/${intent.orderId}?profileId=${intent.accountId}`
      return { method: intent.isToDelete ? 'DELETE' : 'GET', url, headers }
    }
    case 'read order': {
      const prefer: Call['headers'] = chance.happens(0.5) ? { prefer: 'wait=2' } : {}
      const request = get(`/orders/${intent.orderId}?profileId=${intent.accountId}`)
      return { ...request, headers: { ...headers, ...prefer } }
    }
  }
}

export const addressOf = (accountId: string) => `${accountId}@customer.example`

function unitsOf(minor: number): string {
  return (minor / 100).toFixed(2)
}

/** Whether the response states the outcome of the operation, so that repeating the request would not change it. */
export function isFinal({ response }: Attempt): boolean {
  if (response === undefined) return false
  const { status } = response
  const { code } = (response.body ?? {}) as { code?: string }
  if (code === 'BILLING_UNREACHABLE') return true
  return status < 500 && status !== 429 && code !== 'IDEMPOTENCY_KEY_IN_PROGRESS'
}

function rememberOrders({ known }: RequestContext, intent: Intent, { response }: Attempt): void {
  if (response === undefined || !('accountId' in intent)) return
  const { accountId } = intent
  const remember = (orderId: unknown) => {
    if (typeof orderId !== 'string' || known.some((one) => one.orderId === orderId)) return
    known.push({ accountId, orderId })
  }
  const { body } = response
  if (intent.kind === 'order')
    remember(typeof body === 'string' ? body : (body as { orderId?: string }).orderId)
  if (intent.kind === 'list orders' && Array.isArray(body)) for (const { id } of body) remember(id)
}

function pause({ scheduler }: RequestContext, durationMs: number): Promise<void> {
  return new Promise((resolve) => scheduler.after(durationMs, resolve))
}
