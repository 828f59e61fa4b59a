import { Connection, type CreationEvent, findErrorBy, instancesChannel } from '@platformatic/kafka'
import type { Runtime } from '../../platform/async/runtime.ts'

// A connection can emit a second error, for example when the broker rejects a certificate after the TLS handshake. The
// client handles only the first, and an 'error' event without a listener would end the process. Nothing is hidden:
// requests on the connection fail with the error as well.
instancesChannel.subscribe((event) => {
  const { instance } = event as CreationEvent<unknown>
  if (instance instanceof Connection) instance.on('error', () => undefined)
})

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
