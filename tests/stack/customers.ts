import { setTimeout as sleep } from 'node:timers/promises'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import type { Client } from '../e2e/client.ts'
import { type Attempt, attemptOnce, type Errand, finalResponseOf, finish } from './errands.ts'

/** A steady load: errands start at fixed times, whether or not earlier errands have finished. */
export interface Customers {
  readonly accounts: readonly Account[]
  readonly errands: readonly Errand[]
  /** Requests that only read. */
  readonly reads: readonly Attempt[]
  /** Starts no more errands; resolves when no request is in flight. */
  stop(): Promise<void>
  /** Repeats every errand until its response is final. */
  finishAll(limitMs: number): Promise<void>
}

export interface Account {
  readonly id: string
  /** The initial deposit, booked and announced before the first errand. */
  readonly funds: number
}

const SHOPPERS = 6
const PAUPERS = 2
const SAVERS = 2
const FUNDS = 1_000_000
const EVERY_MS = 150

/**
 * Shoppers have more money than they need, and make deposits that are booked before the response. Paupers
 * order without any money. Savers only make deposits in `events`, one after another, so that the balance in
 * each response is the balance after that deposit.
 */
export async function startShopping(client: Client): Promise<Customers> {
  const shoppers = await open(client, SHOPPERS, FUNDS)
  const paupers = await open(client, PAUPERS, 0)
  const savers = await open(client, SAVERS, 0)
  for (const { id } of [...shoppers.slice(1), ...paupers]) {
    const path = `/notification/contact/${id}`
    await client.read(path, { json: { email: `${id}@shop.example` } }, 'PUT')
  }
  const errands: Errand[] = []
  const reads: Attempt[] = []
  const inFlight = new Set<Promise<unknown>>()
  const busySavers = new Set<Account>()
  let stopped = false

  function begin(errand: Errand): Promise<unknown> {
    errands.push(errand)
    return track(attemptOnce(client, errand))
  }

  function track(work: Promise<unknown>): Promise<unknown> {
    const done = work.finally(() => inFlight.delete(done))
    inFlight.add(done)
    return done
  }

  /** A saver whose last deposit has no final response repeats it instead of making another. */
  function save(saver: Account, nth: number): void {
    if (busySavers.has(saver)) return
    busySavers.add(saver)
    const last = errands.findLast(({ account }) => account === saver.id)
    const isOpen = last !== undefined && finalResponseOf(last) === undefined
    const saved = isOpen ? track(attemptOnce(client, last)) : begin(depositOf(saver, 'events', nth))
    void saved.finally(() => busySavers.delete(saver))
  }

  async function read(path: string): Promise<void> {
    const startedMs = performance.now()
    const response = await client.call('GET', path).catch(() => undefined)
    reads.push({ startedMs, endedMs: performance.now(), response })
  }

  async function run(): Promise<void> {
    for (let nth = 0; !stopped; nth += 1) {
      const shopper = shoppers[nth % SHOPPERS]!
      const style = STYLES[nth % STYLES.length]!
      const turn = nth % 10
      if (turn === 3) void begin(depositOf(shopper, nth % 20 === 3 ? 'http' : 'hybrid', nth))
      else if (turn === 6) void begin(orderOf(paupers[nth % PAUPERS]!, style))
      else if (turn === 8) save(savers[(nth / 2) % SAVERS]!, nth)
      else if (turn === 9) void track(read(pathsOf(shopper)[nth % 3]!))
      else void begin(orderOf(shopper, style))
      await sleep(EVERY_MS)
    }
  }

  const running = run()
  return {
    accounts: [...shoppers, ...paupers, ...savers],
    errands,
    reads,
    async stop() {
      stopped = true
      await running
      await Promise.all(inFlight)
    },
    async finishAll(limitMs) {
      await Promise.all(errands.map((errand) => finish(client, errand, { limitMs })))
    },
  }
}

async function open(client: Client, count: number, funds: number): Promise<Account[]> {
  const accounts: Account[] = []
  for (let n = 0; n < count; n += 1) {
    const id = funds > 0 ? await client.fundedAccount(funds) : await client.createAccount()
    accounts.push({ id, funds })
  }
  return accounts
}

export function orderOf({ id }: Account, style: InteractionStyle, quantity = 1): Errand {
  return { kind: 'order', quantity, style, account: id, key: crypto.randomUUID(), attempts: [] }
}

/** Different values of `nth` give different amounts. */
export function depositOf({ id }: Account, style: InteractionStyle, nth: number): Errand {
  const amount = (1_000 + nth) / 100
  return { kind: 'deposit', amount, style, account: id, key: crypto.randomUUID(), attempts: [] }
}

/** One path to read per service. */
const pathsOf = ({ id }: Account) => [
  `/orders/?profileId=${id}&limit=5`,
  `/billing/account/${id}`,
  `/notification/account/${id}?limit=5`,
]
