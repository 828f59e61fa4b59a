import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import { Fault } from '../../contracts/problems.ts'
import type { Log } from '../async/runtime.ts'

/** The public keys of an issuer. While they cannot be loaded again, the last good set stays in use. */
export interface KeySet {
  readonly keyFor: JWTVerifyGetKey
  /** Loads the keys again in the background if they are older than `maxAgeMs`. */
  refreshIfOld(): void
  /** Seconds since the last successful load; undefined before the first. */
  ageSeconds(): number | undefined
}

export interface KeySetOptions {
  readonly load: () => Promise<unknown>
  readonly maxAgeMs: number
  /** Milliseconds, monotonic. */
  readonly clock: () => number
  readonly log: Log
  /** Called when another set replaces the present one. */
  readonly onChange: () => void
}

/** Between attempts to load the keys, which tokens with unknown key ids cause. */
const COOLDOWN_MS = 5_000

export function createKeySet(options: KeySetOptions): KeySet {
  const { load, maxAgeMs, clock, log, onChange } = options
  let keys: ReturnType<typeof createLocalJWKSet> | undefined
  let text = ''
  let loadedMs = Number.NEGATIVE_INFINITY
  let attemptedMs = Number.NEGATIVE_INFINITY

  let loading: Promise<void> | undefined

  async function reload(): Promise<void> {
    attemptedMs = clock()
    try {
      const set = (await load()) as JSONWebKeySet
      const next = createLocalJWKSet(set)
      if (set.keys.length === 0) throw new Error('the key set is empty')
      const isChanged = text !== '' && text !== JSON.stringify(set)
      keys = next
      text = JSON.stringify(set)
      loadedMs = clock()
      if (isChanged) onChange()
    } catch (err) {
      log.warn({ err }, 'the keys of the issuer of tokens cannot be loaded')
    } finally {
      loading = undefined
    }
  }

  /** Joins the load in progress, or starts one unless the last attempt was too recent. */
  async function refresh(): Promise<void> {
    if (loading === undefined && clock() - attemptedMs >= COOLDOWN_MS) loading = reload()
    await loading
  }

  return {
    async keyFor(header, token) {
      if (keys === undefined) await refresh()
      if (keys === undefined) {
        const detail = 'the keys of the issuer of tokens have not been loaded yet'
        throw new Fault('SERVICE_UNAVAILABLE', { detail })
      }
      try {
        return await keys(header, token)
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
        await refresh()
        return await keys(header, token)
      }
    },
    refreshIfOld() {
      if (clock() - loadedMs >= maxAgeMs) void refresh()
    },
    ageSeconds: () => (keys === undefined ? undefined : (clock() - loadedMs) / 1_000),
  }
}
