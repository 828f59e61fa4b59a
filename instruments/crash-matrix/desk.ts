import { HttpUnreachable } from '../../platform/http/client.ts'
import type { Call } from '../simulation/servers/network.ts'
import { openAccount, order, type Stage, untilFinal } from './stage.ts'

/**
 * The scenario for everything that the five scenarios about money leave out: lists and reads, contacts,
 * payments by REST, an operator who handles dead letters, probes and scrapes, and a broker and a notification
 * service that are down for a while. Every request here is idempotent, so a request without a response is
 * repeated.
 */
export async function runDesk(at: Stage): Promise<void> {
  const accountId = await openAccount(at, DEPOSIT_MINOR)
  await at.stopService('notification', 700)
  await at.perform({ kind: 'deposit', accountId, amountMinor: DEPOSIT_MINOR + 1 })
  const deleted = await order(at, accountId, 1)
  await at.perform({ kind: 'delete', accountId, orderId: deleted })
  await stopBroker(at)
  const paid = await order(at, accountId, 2)
  await untilFinal(at, accountId, paid)
  await payByRest(at, accountId)
  await read(at, accountId, paid)
  await manageContacts(at)
  await probe(at)
  await handleDeadLetters(at, { orderId: deleted, accountId })
  await request(at, 'DELETE', '/notification/')
}

const DEPOSIT_MINOR = 20_001
const STRANGER = '00000000-0000-4000-8000-000000000001'
const PATIENCE_MS = 3_500
const PAUSE_MS = 300
const MAX_TRIES = 30
/** Within this time, a process that died restarts and reads its uncommitted messages again. */
const RESTARTED_MS = 6_000

async function stopBroker({ world, wait }: Stage): Promise<void> {
  const down = { name: 'broker down', kind: 'broker down', durationMs: 600 } as const
  await world.strike({ ...down, afterMs: 0, draw: 0 })
  await wait(300)
}

async function payByRest(at: Stage, accountId: string): Promise<void> {
  const paymentId = await at.perform({ kind: 'pay', accountId, amountMinor: 301 })
  if (typeof paymentId !== 'string') throw new Error('a payment was refused')
  await at.perform({ kind: 'void', accountId, orderId: paymentId })
}

async function read(at: Stage, accountId: string, orderId: string): Promise<void> {
  await at.perform({ kind: 'list orders', accountId })
  await at.perform({ kind: 'pry', accountId: STRANGER, orderId })
  await request(at, 'GET', `/billing/account/${accountId}/entries`)
  await request(at, 'GET', `/billing/payments/${orderId}`)
  await request(at, 'GET', '/orders/pending')
  await request(at, 'GET', '/notification/?limit=5')
  const messages = (await request(at, 'GET', `/notification/account/${accountId}`)) as {
    id: string
  }[]
  for (const { id } of messages.slice(0, 1)) await request(at, 'GET', `/notification/${id}`)
}

async function manageContacts(at: Stage): Promise<void> {
  const path = `/notification/contact/${STRANGER}`
  await request(at, 'PUT', path, { email: 'stranger@customer.example' })
  await request(at, 'GET', path)
  await request(at, 'DELETE', path)
  await request(at, 'DELETE', `/notification/account/${STRANGER}`)
}

const NAMES = ['orders', 'billing', 'notification'] as const

async function probe(at: Stage): Promise<void> {
  for (const name of NAMES) {
    await request(at, 'GET', `/${name}/actuator/health/readiness`)
    await request(at, 'GET', `/${name}/actuator/prometheus`)
    await request(at, 'GET', `/${name}/outbox`)
    await request(at, 'GET', `/${name}/outbox?key=${STRANGER}`)
  }
}

/**
 * A message without an event becomes a dead letter in every service that reads its topic; an operator handles each.
 */
async function handleDeadLetters(at: Stage, canceled: object): Promise<void> {
  const value = new TextEncoder().encode('{"event":null}')
  at.world.publish(
    ['billing', 'payment'].map((topic) => ({ topic, key: STRANGER, value, headers: {} })),
  )
  for (const name of NAMES) {
    const path = `/${name}/dead-letters`
    const list = () => request(at, 'GET', path) as Promise<{ id: string }[]>
    const [letter] = await untilSome(list, at)
    const one = `${path}/${letter!.id}`
    await request(at, 'GET', one)
    await request(at, 'POST', `${one}/replay`)
    // The billing service has handled this event before, so the replay changes nothing.
    const repaired = { body: { event: 'ORDER_CANCELED', ...canceled } }
    if (name === 'billing') await request(at, 'POST', `${one}/replay`, repaired)
    else await request(at, 'DELETE', one)
  }
  await removeRepeatedLetters(at)
}

/** A process that dies after storing a dead letter and before committing its offset stores the letter again. */
async function removeRepeatedLetters(at: Stage): Promise<void> {
  await at.wait(RESTARTED_MS)
  for (const name of NAMES) {
    const letters = (await request(at, 'GET', `/${name}/dead-letters`)) as { id: string }[]
    for (const { id } of letters) await request(at, 'DELETE', `/${name}/dead-letters/${id}`)
  }
}

async function untilSome<Item>(list: () => Promise<Item[]>, { wait }: Stage): Promise<Item[]> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const items = await list()
    if (items.length > 0) return items
    await wait(PAUSE_MS)
  }
  throw new Error('a message without an event did not become a dead letter')
}

/** Repeats a request until it gets a response in `EXPECTED`. Throws for any other response below 500. */
async function request(
  { world, wait }: Stage,
  method: Call['method'],
  path: string,
  content?: object,
): Promise<unknown> {
  const call: Call = {
    method,
    url: `http://gateway${path}`,
    headers: content ? { 'content-type': 'application/json' } : {},
    ...(content && { body: JSON.stringify(content) }),
  }
  for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
    try {
      const { status, body } = await world.customer(call, PATIENCE_MS)
      if (status < 500 && !EXPECTED.includes(status)) {
        throw new Error(`${method} ${path} got ${status} ${body}`)
      }
      if (status < 500) return body.startsWith('#') || body === '' ? undefined : JSON.parse(body)
    } catch (error) {
      if (!(error instanceof HttpUnreachable)) throw error
    }
    await wait(PAUSE_MS)
  }
  throw new Error(`${method} ${path} never got a response`)
}

/** 200: done; 404: already deleted; 409: the replay failed because the message still has no event. */
const EXPECTED = [200, 404, 409]
