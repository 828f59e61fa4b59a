import { type InteractionStyle, STYLES } from '../../../contracts/style.ts'
import { HttpUnreachable } from '../../../platform/http/client.ts'
import type { Call, Client } from '../servers/network.ts'
import type { Chance, Chances } from './chance.ts'
import type { Scheduler } from './scheduler.ts'

/**
 * What customers want, and what came of it. They act on their own and at the same time: open accounts,
 * pay in, order, change their minds, ask again when no answer came, press twice.
 */
export type Wish =
  | { readonly kind: 'open' }
  | { readonly kind: 'deposit'; readonly accountId: string; readonly amountMinor: number }
  | { readonly kind: 'order'; readonly accountId: string; readonly quantity: number }
  | { readonly kind: 'delete'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'pay'; readonly accountId: string; readonly amountMinor: number }
  | { readonly kind: 'void'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'contact'; readonly accountId: string }
  | { readonly kind: 'look at balance'; readonly accountId: string }
  | { readonly kind: 'look at order'; readonly accountId: string; readonly orderId: string }
  | { readonly kind: 'look at orders'; readonly accountId: string }
  /** To see somebody else's order, or to delete it. */
  | {
      readonly kind: 'pry'
      readonly accountId: string
      readonly orderId: string
      readonly isToDelete?: boolean
    }
  /** Something else under the key of what was answered. */
  | { readonly kind: 'reuse a key'; readonly of: MoneyWish }

type MoneyWish = Extract<Wish, { readonly kind: 'deposit' | 'order' | 'pay' }>

export interface Attempt {
  readonly sentMs: number
  readonly answeredMs: number
  /** Without one no answer came: it may have had its effect or not. */
  readonly answer?: { readonly status: number; readonly body: unknown }
}

/** A wish with everything that was tried to get it. */
export interface Deed {
  readonly wish: Wish
  readonly style: InteractionStyle
  /** The Idempotency-Key of all tries. */
  readonly key?: string
  readonly attempts: Attempt[]
}

export interface CustomersOptions {
  readonly http: Client
  readonly scheduler: Pick<Scheduler, 'now' | 'after'>
  readonly chances: Chances
  readonly style: InteractionStyle | 'mixed'
  /** How long they wait for an answer, and how often they ask; as in the simulation unless told. */
  readonly patience?: { readonly answerMs: number; readonly tries: number }
  /** Told of each attempt when it has ended. */
  readonly onAttempt?: (deed: Deed, attempt: Attempt) => void
}

export interface Customers {
  readonly deeds: readonly Deed[]
  areDone(): boolean
  /** Lets those ask again who had no answer and may repeat their request; returns how many. */
  askAgain(): number
}

const PATIENCE = { answerMs: 3_500, tries: 8 }
/** How often somebody tries to become a customer. */
const MAX_ENTRIES = 8
/** How long after the start the last customer comes. */
const LAST_ARRIVAL_MS = 1_500
const LONGEST_THOUGHT_MS = 1_200
const LONGEST_REGRET_MS = 300

/** Numbers that no two wishes of a run share, by which effects are traced back to their wishes. */
export interface Marks {
  amountMinor(): number
  quantity(): number
}

export function startCustomers(options: CustomersOptions): Customers {
  const { scheduler, chances } = options
  const deeds: Deed[] = []
  const chance = chances('customers')
  const marks = createMarks(chances('marks'))
  const known: { accountId: string; orderId: string }[] = []
  const unanswered: (() => Promise<unknown>)[] = []
  let running = 2 + chance.integer(2)
  for (let number = running; number > 0; number -= 1) {
    const own = chances(`customer ${number}`)
    scheduler.after(own.between(0, LAST_ARRIVAL_MS), () => {
      const name = `c${number}`
      const accountKeys = { count: 0 }
      const parts = { chance: own, deeds, marks, known, unanswered, name, accountKeys }
      void during(visit({ ...options, ...parts }))
    })
  }
  async function during(work: Promise<unknown>): Promise<void> {
    await work.finally(() => {
      running -= 1
    })
  }
  return {
    deeds,
    areDone: () => running === 0,
    askAgain() {
      const open = unanswered.splice(0)
      running += open.length
      for (const ask of open) void during(ask())
      return open.length
    },
  }
}

export function createMarks(chance: Chance): Marks {
  let amounts = 0
  const quantities = chance.shuffled(Array.from({ length: 12 }, (_, n) => n + 1))
  return {
    amountMinor: () => 100 * (65 + chance.integer(600)) + ++amounts,
    quantity: () => quantities.pop() ?? 13 + ++amounts,
  }
}

/** What it takes to fulfil a wish. */
export interface Asking extends Omit<CustomersOptions, 'chances'> {
  readonly chance: Chance
  /** Orders that anybody has placed, for those who pry. */
  readonly known: { accountId: string; orderId: string }[]
  /** What had no answer yet and may be asked again. */
  readonly unanswered?: (() => Promise<unknown>)[]
}

export interface Visit extends Asking {
  readonly name: string
  readonly deeds: Deed[]
  readonly marks: Marks
  /** How many keys this customer has used that others may use, too. */
  readonly accountKeys: { count: number }
}

/** One customer, from his first request to his last answer. */
export async function visit(at: Visit): Promise<void> {
  const { chance, marks } = at
  const accountId = await openAccount(at)
  if (accountId === undefined) return
  const acts = 3 + chance.integer(6)
  /** Some have several requests under way at nearly all times. */
  const isBusy = chance.happens(0.3)
  const side: Promise<unknown>[] = []
  if (chance.happens(0.6)) side.push(fulfil(at, { kind: 'contact', accountId }))
  side.push(fulfil(at, { kind: 'deposit', accountId, amountMinor: marks.amountMinor() }))
  for (let n = 0; n < acts; n += 1) {
    const done = act(at, wishOf(at, accountId))
    if (chance.happens(isBusy ? 0.1 : 0.7)) await done
    else side.push(done)
    await think(at, chance.next() ** 2 * (isBusy ? 0.1 : 1) * LONGEST_THOUGHT_MS)
  }
  await Promise.all(side)
}

/** Some think better of an order while it is still on its way, and some of these press twice. */
async function act(at: Visit, wish: Wish): Promise<void> {
  const { chance } = at
  const orderId = await fulfil(at, wish)
  const isRegretted = wish.kind === 'order' && chance.happens(0.3)
  if (!isRegretted || typeof orderId !== 'string') return
  const { accountId } = wish
  await think(at, chance.next() ** 3 * LONGEST_REGRET_MS)
  const kinds = chance.pick([['delete'], ['delete', 'void'], ['delete', 'delete']] as const)
  await Promise.all(kinds.map((kind) => fulfil(at, { kind, accountId, orderId })))
}

async function openAccount(at: Visit): Promise<string | undefined> {
  for (let tries = 0; tries < MAX_ENTRIES; tries += 1) {
    const body = await fulfil(at, { kind: 'open' })
    if (typeof body === 'string') return body
    await think(at, 1_000)
  }
  return undefined
}

function wishOf(at: Visit, accountId: string): Wish {
  const { chance, marks, known } = at
  const own = known.filter((order) => order.accountId === accountId)
  const foreign = known.filter((order) => order.accountId !== accountId)
  const pickOf = (orders: typeof known) => orders[chance.integer(orders.length)]
  const draw = chance.next()
  const mine = pickOf(own)
  if (draw < 0.38) return { kind: 'order', accountId, quantity: marks.quantity() }
  if (draw < 0.55) return { kind: 'deposit', accountId, amountMinor: marks.amountMinor() }
  if (draw < 0.6) return { kind: 'pay', accountId, amountMinor: marks.amountMinor() }
  if (draw < 0.65) return { kind: 'look at orders', accountId }
  if (draw < 0.72 || mine === undefined) return { kind: 'look at balance', accountId }
  if (draw < 0.84) return { kind: 'delete', ...mine }
  if (draw < 0.89) return { kind: 'void', ...mine }
  const other = pickOf(foreign)
  if (draw < 0.93 && other) {
    return { kind: 'pry', accountId, orderId: other.orderId, isToDelete: chance.happens(0.3) }
  }
  return { kind: 'look at order', ...mine }
}

/** Tries until there is an answer that settles it, and returns the body of that; sometimes twice at once. */
async function fulfil(at: Visit, wish: Wish): Promise<unknown> {
  const { chance, deeds } = at
  const style = at.style === 'mixed' ? chance.pick(STYLES) : at.style
  const keyed = isKeyed(wish) && chance.happens(0.75)
  const key = keyed ? drawKey(at, wish) : undefined
  const deed: Deed = { wish, style, attempts: [], ...(key !== undefined && { key }) }
  deeds.push(deed)
  const twice = key !== undefined && chance.happens(0.15)
  const again = twice ? think(at, chance.between(0, 300)).then(() => insist(at, deed)) : undefined
  const body = await insist(at, deed)
  await again
  if (key !== undefined && body !== undefined && wish.kind !== 'open') await reuse(at, deed, key)
  return body
}

/** Keys belong to the account in the request, so what other customers use does not matter where there is one. */
function drawKey({ chance, deeds, name, accountKeys }: Visit, { kind }: Wish): string {
  if (kind === 'open' || !chance.happens(0.3)) return `${name}-${deeds.length}`
  accountKeys.count += 1
  return `key-${accountKeys.count}`
}

/** Now and then a customer's program mistakes the key of one request for that of another. */
async function reuse(at: Visit, { wish, style }: Deed, key: string): Promise<void> {
  if (!isMoneyWish(wish) || !at.chance.happens(0.08)) return
  const deed: Deed = { wish: { kind: 'reuse a key', of: wish }, style, key, attempts: [] }
  at.deeds.push(deed)
  await insist(at, deed)
}

const isMoneyWish = (wish: Wish): wish is MoneyWish =>
  wish.kind === 'deposit' || wish.kind === 'order' || wish.kind === 'pay'

function changed(wish: MoneyWish): Wish {
  if (wish.kind === 'order') return { ...wish, quantity: wish.quantity + 1 }
  return { ...wish, amountMinor: wish.amountMinor + 1 }
}

/** Tries, with pauses, until an answer settles it; returns its body, or undefined where none did. */
export async function insist(at: Asking, deed: Deed): Promise<unknown> {
  const { chance } = at
  const { tries: maxTries } = at.patience ?? PATIENCE
  for (let tries = 1; ; tries += 1) {
    const attempt = await tryOnce(at, deed)
    learn(at, deed.wish, attempt)
    if (isFinal(attempt)) return attempt.answer?.body
    if (!mayRepeat(deed)) return undefined
    if (tries === maxTries) break
    await think(at, chance.between(20, 1_000))
  }
  at.unanswered?.push(() => insist(at, deed))
  return undefined
}

/** Whether the same request may be sent once more and is still the same wish. */
export const mayRepeat = ({ wish, key }: Deed) => key !== undefined || !isKeyed(wish)

/** Wishes that would have another effect each time, but for an Idempotency-Key. */
const isKeyed = ({ kind }: Wish) => ['open', 'deposit', 'order', 'pay'].includes(kind)

/** Asks once more, and notes what came of it. */
export async function tryOnce(at: Asking, deed: Deed): Promise<Attempt> {
  const attempt = await ask(at, deed)
  deed.attempts.push(attempt)
  at.onAttempt?.(deed, attempt)
  return attempt
}

async function ask(at: Asking, deed: Deed): Promise<Attempt> {
  const { http, scheduler, patience = PATIENCE } = at
  const sentMs = scheduler.now()
  try {
    const { status, body } = await http(requestOf(at, deed), patience.answerMs)
    const answer = { status, body: body === '' ? undefined : JSON.parse(body) }
    return { sentMs, answeredMs: scheduler.now(), answer }
  } catch (error) {
    if (!(error instanceof HttpUnreachable)) throw error
    return { sentMs, answeredMs: scheduler.now() }
  }
}

function requestOf(at: Asking, { wish, style, key }: Pick<Deed, 'wish' | 'style' | 'key'>): Call {
  const { style: runStyle, chance } = at
  const headers = {
    ...(key !== undefined && { 'idempotency-key': key }),
    ...(runStyle === 'mixed' && { 'x-interaction-style': style }),
  }
  const json = { ...headers, 'content-type': 'application/json' }
  const post = (path: string) =>
    ({ method: 'POST', url: `http://gateway${path}`, headers }) as const
  const get = (path: string) => ({ method: 'GET', url: `http://gateway${path}`, headers }) as const
  switch (wish.kind) {
    case 'open':
      return post('/billing/account/create')
    case 'deposit':
      return post(`/billing/account/${wish.accountId}?amount=${unitsOf(wish.amountMinor)}`)
    case 'order': {
      const body = JSON.stringify({ productQuantity: wish.quantity })
      return { ...post(`/orders?profileId=${wish.accountId}`), headers: json, body }
    }
    case 'pay': {
      const { accountId, amountMinor } = wish
      const body = JSON.stringify({ accountId, amount: Number(unitsOf(amountMinor)) })
      return { ...post('/billing/account'), headers: json, body }
    }
    case 'delete': {
      const url = `http://gateway/orders/${wish.orderId}?profileId=${wish.accountId}`
      return { method: 'DELETE', url, headers } as const
    }
    case 'void': {
      // Nobody has to say whose payment it is; some never do.
      const isNamed = Number.parseInt(wish.orderId.at(-1)!, 16) % 3 > 0
      const body = JSON.stringify(isNamed ? { accountId: wish.accountId } : {})
      return { ...post(`/billing/payments/${wish.orderId}/void`), headers: json, body }
    }
    case 'contact': {
      const body = JSON.stringify({ email: addressOf(wish.accountId) })
      const url = `http://gateway/notification/contact/${wish.accountId}`
      return { method: 'PUT', url, headers: json, body } as const
    }
    case 'look at balance':
      return get(`/billing/account/${wish.accountId}`)
    case 'look at orders':
      return get(`/orders?profileId=${wish.accountId}`)
    case 'reuse a key':
      return requestOf(at, { wish: changed(wish.of), style, ...(key !== undefined && { key }) })
    case 'pry': {
      const url = `http://gateway/orders/${wish.orderId}?profileId=${wish.accountId}`
      return { method: wish.isToDelete ? 'DELETE' : 'GET', url, headers }
    }
    case 'look at order': {
      const prefer: Call['headers'] = chance.happens(0.5) ? { prefer: 'wait=2' } : {}
      const request = get(`/orders/${wish.orderId}?profileId=${wish.accountId}`)
      return { ...request, headers: { ...headers, ...prefer } }
    }
  }
}

export const addressOf = (accountId: string) => `${accountId}@customer.example`

function unitsOf(minor: number): string {
  return (minor / 100).toFixed(2)
}

/** Whether the answer tells what became of the wish, so that asking again would add nothing. */
export function isFinal({ answer }: Attempt): boolean {
  if (answer === undefined) return false
  const { status } = answer
  const { code } = (answer.body ?? {}) as { code?: string }
  if (code === 'BILLING_UNREACHABLE') return true
  return status < 500 && status !== 429 && code !== 'IDEMPOTENCY_KEY_IN_PROGRESS'
}

function learn({ known }: Asking, wish: Wish, { answer }: Attempt): void {
  if (answer === undefined || !('accountId' in wish)) return
  const { accountId } = wish
  const meet = (orderId: unknown) => {
    if (typeof orderId !== 'string' || known.some((one) => one.orderId === orderId)) return
    known.push({ accountId, orderId })
  }
  const { body } = answer
  if (wish.kind === 'order')
    meet(typeof body === 'string' ? body : (body as { orderId?: string }).orderId)
  if (wish.kind === 'look at orders' && Array.isArray(body)) for (const { id } of body) meet(id)
}

function think({ scheduler }: Asking, durationMs: number): Promise<void> {
  return new Promise((resolve) => scheduler.after(durationMs, resolve))
}
