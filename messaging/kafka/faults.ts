import { findErrorBy } from '@platformatic/kafka'
import type { Runtime } from '../../platform/async/runtime.ts'

/** True if Kafka answered with one of these errors, as its protocol names them. */
export function isKafkaError(error: unknown, ...ids: readonly string[]): boolean {
  return ids.some((id) => findErrorBy(error as Error, 'apiId', id) !== null)
}

/** The broker is away, or says that it cannot serve now and may later. */
export function isUnavailable(error: unknown): boolean {
  const is = (property: string, value: unknown) =>
    findErrorBy(error as Error, property, value) !== null
  return is('code', 'PLT_KFK_NETWORK') || is('canRetry', true)
}

/** The group has moved on without this member, or is about to: it has to join again. */
export function needsRejoin(error: unknown): boolean {
  return findErrorBy(error as Error, 'needsRejoin', true) !== null
}

/** Resolves with true when the work is done, well or not, and with false when that takes too long. */
export async function within(
  limitMs: number,
  runtime: Runtime,
  work: Promise<unknown>,
): Promise<boolean> {
  const done = new AbortController()
  const finished = work.then(
    () => true,
    () => true,
  )
  const late = runtime.sleep(limitMs, done.signal).then(() => false)
  const inTime = await Promise.race([finished, late])
  done.abort()
  return inTime
}
