import { findErrorBy } from '@platformatic/kafka'
import type { Runtime } from '../../platform/async/runtime.ts'

/** Whether Kafka responded with one of these errors, named as in its protocol. */
export function isKafkaError(error: unknown, ...ids: readonly string[]): boolean {
  return ids.some((id) => findErrorBy(error as Error, 'apiId', id) !== null)
}

/** Whether the broker cannot be reached, or says that the request may succeed later. */
export function isUnavailable(error: unknown): boolean {
  const is = (property: string, value: unknown) =>
    findErrorBy(error as Error, property, value) !== null
  return is('code', 'PLT_KFK_NETWORK') || is('canRetry', true)
}

/** Whether this member must rejoin, because the group is rebalancing or has done so without it. */
export function needsRejoin(error: unknown): boolean {
  return findErrorBy(error as Error, 'needsRejoin', true) !== null
}

/** Resolves with true when the work has ended, successfully or not, or with false after `limitMs`. */
export async function within(
  limitMs: number,
  runtime: Runtime,
  work: Promise<unknown>,
): Promise<boolean> {
  const timer = new AbortController()
  const ended = work.then(
    () => true,
    () => true,
  )
  const timedOut = runtime.sleep(limitMs, timer.signal).then(() => false)
  const isInTime = await Promise.race([ended, timedOut])
  timer.abort()
  return isInTime
}
