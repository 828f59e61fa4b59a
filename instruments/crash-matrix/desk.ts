import { HttpUnreachable } from '../../platform/http/client.ts'
import type { Call } from '../simulation/servers/network.ts'
import { openAccount, order, type Stage, untilFinal } from './stage.ts'

/**
 * What the five stories of money leave out: lists and looks, contacts, payments by REST, operators
 * with dead letters, probes and scrapes, a broker and a notification that are away for a while. Nothing
 * that is asked for twice here has another effect the second time, so whoever is not answered asks
 * again.
 */
export async function runDesk(at: Stage): Promise<void> {
  const accountId = await openAccount(at, DEPOSIT_MINOR)
  await at.takeAway('notification', 700)
  await at.perform({ kind: 'deposit', accountId, amountMinor: DEPOSIT_MINOR + 1 })
  const deleted = await order(at, accountId, 1)
  await at.perform({ kind: 'delete', accountId, orderId: deleted })
  await loseTheBroker(at)
  const paid = await order(at, accountId, 2)
  await untilFinal(at, accountId, paid)
  await payByRest(at, accountId)
  await look(at, accountId, paid)
  await keepContacts(at)
  await probe(at)
  await handleDeadLetters(at, { orderId: deleted, accountId })
  await ask(at, 'DELETE', '/notification/')
}

const DEPOSIT_MINOR = 20_001
const STRANGER = '00000000-0000-4000-8000-000000000001'
const PATIENCE_MS = 3_500
const PAUSE_MS = 300
const MAX_TRIES = 30
/** By then a process that died has read again what it had in hand. */
const RESTARTED_MS = 6_000

async function loseTheBroker({ world, wait }: Stage): Promise<void> {
  const away = { name: 'broker away', kind: 'broker away', durationMs: 600 } as const
  await world.strike({ ...away, afterMs: 0, draw: 0 })
  await wait(300)
}

async function payByRest(at: Stage, accountId: string): Promise<void> {
  const paymentId = await at.perform({ kind: 'pay', accountId, amountMinor: 301 })
  if (typeof paymentId !== 'string') throw new Error('a payment was refused')
  await at.perform({ kind: 'void', accountId, orderId: paymentId })
}

async function look(at: Stage, accountId: string, orderId: string): Promise<void> {
  await at.perform({ kind: 'list orders', accountId })
  await at.perform({ kind: 'pry', accountId: STRANGER, orderId })
  await ask(at, 'GET', `/billing/account/${accountId}/entries`)
  await ask(at, 'GET', `/billing/payments/${orderId}`)
  await ask(at, 'GET', '/orders/pending')
  await ask(at, 'GET', '/notification/?limit=5')
  const messages = (await ask(at, 'GET', `/notification/account/${accountId}`)) as { id: string }[]
  for (const { id } of messages.slice(0, 1)) await ask(at, 'GET', `/notification/${id}`)
}

async function keepContacts(at: Stage): Promise<void> {
  const path = `/notification/contact/${STRANGER}`
  await ask(at, 'PUT', path, { email: 'stranger@customer.example' })
  await ask(at, 'GET', path)
  await ask(at, 'DELETE', path)
  await ask(at, 'DELETE', `/notification/account/${STRANGER}`)
}

const NAMES = ['orders', 'billing', 'notification'] as const

async function probe(at: Stage): Promise<void> {
  for (const name of NAMES) {
    await ask(at, 'GET', `/${name}/actuator/health/readiness`)
    await ask(at, 'GET', `/${name}/actuator/prometheus`)
    await ask(at, 'GET', `/${name}/outbox`)
    await ask(at, 'GET', `/${name}/outbox?key=${STRANGER}`)
  }
}

/** A body that names no event becomes a dead letter in every service that reads the topic; an operator handles each. */
async function handleDeadLetters(at: Stage, canceled: object): Promise<void> {
  const value = new TextEncoder().encode('{"event":null}')
  at.world.publish(
    ['billing', 'payment'].map((topic) => ({ topic, key: STRANGER, value, headers: {} })),
  )
  for (const name of NAMES) {
    const path = `/${name}/dead-letters`
    const [letter] = await untilSome(() => ask(at, 'GET', path) as Promise<{ id: string }[]>, at)
    const one = `${path}/${letter!.id}`
    await ask(at, 'GET', one)
    await ask(at, 'POST', `${one}/replay`)
    // What billing knows already changes nothing when it is handled once more.
    const repaired = { body: { event: 'ORDER_CANCELED', ...canceled } }
    if (name === 'billing') await ask(at, 'POST', `${one}/replay`, repaired)
    else await ask(at, 'DELETE', one)
  }
  await removeRepeatedLetters(at)
}

/** Whoever dies between setting a message aside and committing its offset does it again. */
async function removeRepeatedLetters(at: Stage): Promise<void> {
  await at.wait(RESTARTED_MS)
  for (const name of NAMES) {
    const letters = (await ask(at, 'GET', `/${name}/dead-letters`)) as { id: string }[]
    for (const { id } of letters) await ask(at, 'DELETE', `/${name}/dead-letters/${id}`)
  }
}

async function untilSome<Item>(list: () => Promise<Item[]>, { wait }: Stage): Promise<Item[]> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const items = await list()
    if (items.length > 0) return items
    await wait(PAUSE_MS)
  }
  throw new Error('a message that is no event was not set aside')
}

/** Asks until there is an answer, which may be that it is done, or that it cannot be done. */
async function ask(
  { world, wait }: Stage,
  method: Call['method'],
  path: string,
  content?: object,
): Promise<unknown> {
  const call: Call = {
    ...{ target: 'order', method, url: `http://gateway${path}` },
    headers: content ? { 'content-type': 'application/json' } : {},
    ...(content && { body: JSON.stringify(content) }),
  }
  for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
    try {
      const { status, body } = await world.customer(call, PATIENCE_MS)
      if (status < 500 && !DONE_OR_NOT.includes(status)) {
        throw new Error(`${method} ${path} was answered ${status} ${body}`)
      }
      if (status < 500) return body.startsWith('#') || body === '' ? undefined : JSON.parse(body)
    } catch (error) {
      if (!(error instanceof HttpUnreachable)) throw error
    }
    await wait(PAUSE_MS)
  }
  throw new Error(`${method} ${path} was never answered`)
}

/** Done; done before; a replay of what still is no event. */
const DONE_OR_NOT = [200, 404, 409]
