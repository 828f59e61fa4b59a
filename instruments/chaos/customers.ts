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

/** The customers of the simulation, over real HTTP and in real time, arriving one by one. */
export interface Customers {
  readonly operations: readonly Operation[]
  /** Stops new arrivals; resolves when the customers who have arrived are done. */
  stop(): Promise<void>
  /**
   * Retries each request that has an Idempotency-Key until it has a final response. Resolves with the
   * requests that had none within `limitMs`.
   */
  retryUnanswered(limitMs: number): Promise<readonly Operation[]>
  close(): Promise<void>
}

export interface CustomersOptions {
  readonly url: string
  readonly seed: number
  readonly style: CustomerContext['style']
  readonly onAttempt: (operation: Operation, attempt: Attempt) => void
}

const ARRIVALS_PER_SECOND = 3
/**
 * While this many customers are active, no new customer arrives, so that customers cannot pile up without
 * limit during a fault.
 */
const MAX_CUSTOMERS = 60
/** Longer than the time-out of calls between services, so that most customers get the outcome of a slow request. */
const PATIENCE = { timeoutMs: 10_000, attempts: 12 }
const RETRY_PAUSE_MS = 250
const RETRY_CONCURRENCY = 16

export function startCustomers(options: CustomersOptions): Customers {
  const { url, seed, style, onAttempt } = options
  const chances = createChances(seed)
  const client = createHttpClient()
  const operations: Operation[] = []
  const known: CustomerContext['known'] = []
  const active = new Set<Promise<void>>()
  let count = 0

  function customer(name: string): CustomerContext {
    return {
      style,
      onAttempt,
      patience: PATIENCE,
      operations,
      known,
      name,
      http: callsTo(url, client.call),
      scheduler,
      chance: chances(name),
      // Amounts need to be unique within one account only.
      unique: createUniqueValues(chances(`marks of ${name}`)),
      accountKeys: { count: 0 },
    }
  }

  function arrive(): void {
    const gapMs = (2 * chances('arrivals').next() * 1_000) / ARRIVALS_PER_SECOND
    next = setTimeout(arrive, gapMs)
    if (active.size >= MAX_CUSTOMERS) return
    count += 1
    const visiting = runCustomer(customer(`c${count}`)).finally(() => active.delete(visiting))
    active.add(visiting)
  }

  let next = setTimeout(arrive, 0)
  return {
    operations,
    async stop() {
      clearTimeout(next)
      await Promise.all(active)
    },
    async retryUnanswered(limitMs) {
      const context = customer('insistent')
      const deadline = performance.now() + limitMs
      const queue = operations.filter(
        (operation) => operation.key !== undefined && !operation.attempts.some(isFinal),
      )
      const unanswered: Operation[] = []
      const retryQueued = async () => {
        for (let operation = queue.pop(); operation !== undefined; operation = queue.pop()) {
          while (!isFinal(await makeAttempt(context, operation))) {
            if (performance.now() > deadline) {
              unanswered.push(operation)
              break
            }
            await new Promise((resolve) => setTimeout(resolve, RETRY_PAUSE_MS))
          }
        }
      }
      await Promise.all(Array.from({ length: RETRY_CONCURRENCY }, retryQueued))
      return unanswered
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

/** Sends the requests of the simulation's customers with the HTTP client that services use. */
function callsTo(url: string, client: HttpClient): CustomerContext['http'] {
  return async (call, timeoutMs) => {
    const path = call.url.slice(call.url.indexOf('/', 'http://'.length))
    const real = { ...call, target: 'order', url: `${url}${path}` } as HttpCall
    const { status, body } = await client(real, timeoutMs)
    return { status, body: isJson(body) ? body : JSON.stringify(body) }
  }
}

/** Every response must be JSON; any other is kept as text, so that the checker reports it. */
function isJson(text: string): boolean {
  try {
    return text === '' || JSON.parse(text) !== undefined
  } catch {
    return false
  }
}
