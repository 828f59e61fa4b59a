import { setTimeout as sleep } from 'node:timers/promises'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import type { Client } from '../e2e/client.ts'
import { type Errand, insist, type Try, toldOf, tryOnce } from './errands.ts'

/** A steady load: errands that begin at their times, whatever became of those before. */
export interface Customers {
  readonly accounts: readonly Account[]
  readonly errands: readonly Errand[]
  /** Requests that only read. */
  readonly looks: readonly Try[]
  /** Begins no more of them; resolves when each request has its answer. */
  stop(): Promise<void>
  /** Says what nobody has answered for good again, until it is. */
  insist(limitMs: number): Promise<void>
}

export interface Account {
  readonly id: string
  /** What was on it, in the ledger and told, before the first errand. */
  readonly funds: number
}

const SHOPPERS = 6
const PAUPERS = 2
const SAVERS = 2
const FUNDS = 1_000_000
const EVERY_MS = 150

/**
 * Shoppers have all the money that they need and make deposits that are answered when they are
 * booked. Paupers order without any. Savers make deposits in `events` and nothing else, one after the
 * other, so that the balance that each is promised is the one that it leads to.
 */
export async function beginShopping(client: Client): Promise<Customers> {
  const shoppers = await open(client, SHOPPERS, FUNDS)
  const paupers = await open(client, PAUPERS, 0)
  const savers = await open(client, SAVERS, 0)
  for (const { id } of [...shoppers.slice(1), ...paupers]) {
    const path = `/notification/contact/${id}`
    await client.read(path, { json: { email: `${id}@shop.example` } }, 'PUT')
  }
  const errands: Errand[] = []
  const looks: Try[] = []
  const underWay = new Set<Promise<unknown>>()
  const busySavers = new Set<Account>()
  let stopped = false

  function begin(errand: Errand): Promise<unknown> {
    errands.push(errand)
    return track(tryOnce(client, errand))
  }

  function track(work: Promise<unknown>): Promise<unknown> {
    const done = work.finally(() => underWay.delete(done))
    underWay.add(done)
    return done
  }

  /** A saver whose last deposit was not answered for good says that one again, not another one. */
  function save(saver: Account, nth: number): void {
    if (busySavers.has(saver)) return
    busySavers.add(saver)
    const last = errands.findLast(({ account }) => account === saver.id)
    const isOpen = last !== undefined && toldOf(last) === undefined
    const saved = isOpen ? track(tryOnce(client, last)) : begin(depositOf(saver, 'events', nth))
    void saved.finally(() => busySavers.delete(saver))
  }

  async function look(path: string): Promise<void> {
    const begunMs = performance.now()
    const answer = await client.call('GET', path).catch(() => undefined)
    looks.push({ begunMs, endedMs: performance.now(), answer })
  }

  async function run(): Promise<void> {
    for (let nth = 0; !stopped; nth += 1) {
      const shopper = shoppers[nth % SHOPPERS]!
      const style = STYLES[nth % STYLES.length]!
      const turn = nth % 10
      if (turn === 3) void begin(depositOf(shopper, nth % 20 === 3 ? 'http' : 'hybrid', nth))
      else if (turn === 6) void begin(orderOf(paupers[nth % PAUPERS]!, style))
      else if (turn === 8) save(savers[(nth / 2) % SAVERS]!, nth)
      else if (turn === 9) void track(look(pathsOf(shopper)[nth % 3]!))
      else void begin(orderOf(shopper, style))
      await sleep(EVERY_MS)
    }
  }

  const running = run()
  return {
    accounts: [...shoppers, ...paupers, ...savers],
    errands,
    looks,
    async stop() {
      stopped = true
      await running
      await Promise.all(underWay)
    },
    async insist(limitMs) {
      await Promise.all(errands.map((errand) => insist(client, errand, { limitMs })))
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
  return { kind: 'order', quantity, style, account: id, key: crypto.randomUUID(), tries: [] }
}

/** `nth` differs from one to the next, and so do the amounts. */
export function depositOf({ id }: Account, style: InteractionStyle, nth: number): Errand {
  const amount = (1_000 + nth) / 100
  return { kind: 'deposit', amount, style, account: id, key: crypto.randomUUID(), tries: [] }
}

/** A read of each service. */
const pathsOf = ({ id }: Account) => [
  `/orders/?profileId=${id}&limit=5`,
  `/billing/account/${id}`,
  `/notification/account/${id}?limit=5`,
]
