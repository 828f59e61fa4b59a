import { createHttpClient, type HttpCall, type HttpClient } from '../../platform/http/client.ts'
import { createChances } from '../simulation/world/chance.ts'
import {
  type Attempt,
  type CustomerContext,
  createUniqueValues,
  isFinal,
  makeAttempt,
  type Operation,
  runCustomer,
} from '../simulation/world/customers.ts'

/** The customers of the simulation, over real HTTP and in real time, one coming after the other. */
export interface Customers {
  readonly operations: readonly Operation[]
  /** Nobody else comes; resolves when those who are there have done what they came for. */
  stop(): Promise<void>
  /**
   * Each request that has an Idempotency-Key is sent again until it has an answer for good. Resolves with
   * those that had none in time.
   */
  insist(limitMs: number): Promise<readonly Operation[]>
  close(): Promise<void>
}

export interface CustomersOptions {
  readonly url: string
  readonly seed: number
  readonly style: CustomerContext['style']
  readonly onAttempt: (operation: Operation, attempt: Attempt) => void
}

const ARRIVALS_EACH_SECOND = 3
/** Who comes while so many are there goes away again: what they do is bounded, whatever is wrong. */
const MOST_AT_ONCE = 60
/** Longer than services call each other, so that most hear what became of a slow request. */
const PATIENCE = { answerMs: 10_000, tries: 12 }
const AGAIN_MS = 250
const ASKED_AT_ONCE = 16

export function startCustomers(options: CustomersOptions): Customers {
  const { url, seed, style, onAttempt } = options
  const chances = createChances(seed)
  const client = createHttpClient()
  const operations: Operation[] = []
  const known: CustomerContext['known'] = []
  const there = new Set<Promise<void>>()
  let count = 0

  function customer(name: string): CustomerContext {
    return {
      ...{ chances, style, onAttempt, patience: PATIENCE, operations, known, name },
      http: callsTo(url, client.call),
      scheduler,
      chance: chances(name),
      // Only what one account does must be told apart by its amounts.
      unique: createUniqueValues(chances(`marks of ${name}`)),
      accountKeys: { count: 0 },
    }
  }

  function arrive(): void {
    const gapMs = (2 * chances('arrivals').next() * 1_000) / ARRIVALS_EACH_SECOND
    next = setTimeout(arrive, gapMs)
    if (there.size >= MOST_AT_ONCE) return
    count += 1
    const visiting = runCustomer(customer(`c${count}`)).finally(() => there.delete(visiting))
    there.add(visiting)
  }

  let next = setTimeout(arrive, 0)
  return {
    operations,
    async stop() {
      clearTimeout(next)
      await Promise.all(there)
    },
    async insist(limitMs) {
      const at = customer('insistent')
      const deadline = performance.now() + limitMs
      const rest = operations.filter(
        (operation) => operation.key !== undefined && !operation.attempts.some(isFinal),
      )
      const open: Operation[] = []
      const ask = async () => {
        for (let operation = rest.pop(); operation !== undefined; operation = rest.pop()) {
          while (!isFinal(await makeAttempt(at, operation))) {
            if (performance.now() > deadline) {
              open.push(operation)
              break
            }
            await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
          }
        }
      }
      await Promise.all(Array.from({ length: ASKED_AT_ONCE }, ask))
      return open
    },
    close: client.close,
  }
}

const scheduler: CustomerContext['scheduler'] = {
  now: () => Date.now(),
  after(delayMs, happen) {
    const timer = setTimeout(happen, delayMs)
    return () => clearTimeout(timer)
  },
}

/** The way of the simulation's customers into the world: the client that services use, too. */
function callsTo(url: string, client: HttpClient): CustomerContext['http'] {
  return async (call, timeoutMs) => {
    const path = call.url.slice(call.url.indexOf('/', 'http://'.length))
    const real = { ...call, target: 'order', url: `${url}${path}` } as HttpCall
    const { status, body } = await client(real, timeoutMs)
    return { status, body: isJson(body) ? body : JSON.stringify(body) }
  }
}

/** Every answer must be; one that is not is kept as a text, for the checker to see. */
function isJson(text: string): boolean {
  try {
    return text === '' || JSON.parse(text) !== undefined
  } catch {
    return false
  }
}
