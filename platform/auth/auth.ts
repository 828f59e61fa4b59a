import { readFile } from 'node:fs/promises'
import type { JSONWebKeySet } from 'jose'
import { Agent, request } from 'undici'
import type { Log, Runtime } from '../async/runtime.ts'
import { ConfigError } from '../process/config.ts'
import { registerSecret } from '../telemetry/redact.ts'
import { type AuthConfig, algorithmsOf, authProblems } from './config.ts'
import { createKeySet } from './key-set.ts'
import { createVerifier, type Issuer, type Verifier } from './verifier.ts'

/** How a process authenticates its callers. */
export interface Auth {
  readonly verify: Verifier['verify']
  /** A header, in lower case, that may contain the token instead of Authorization. */
  readonly legacyHeader: string | undefined
  /** Seconds since the keys of the issuer were last loaded. */
  keysAgeSeconds(): number
  close(): Promise<void>
}

export interface AuthParts {
  readonly runtime: Pick<Runtime, 'now' | 'monotonic'>
  readonly log: Log
  /** Issuers besides the configured one. */
  readonly others?: readonly Issuer[]
}

const URL_MAX_AGE_MS = 600_000
const FILE_MAX_AGE_MS = 30_000
const LOAD_TIMEOUT_MS = 5_000
const MAX_KEY_SET_BYTES = 1_048_576
const MIN_SECRET_BYTES = 32

/**
 * Prepares the authentication that the configuration describes; undefined if AUTH is off. Throws a ConfigError if
 * settings contradict each other or a file is unusable. Keys at a URL are loaded in the background.
 */
export async function openAuth(
  config: AuthConfig & { readonly HOST: string },
  parts: AuthParts,
): Promise<Auth | undefined> {
  const problems = authProblems(config)
  if (problems.length > 0) throw new ConfigError(problems)
  if (config.AUTH === 'off') return undefined
  const source = await openSource(config, parts, () => verifier.forget())
  const configured: Issuer = {
    issuer: config.AUTH_ISSUER,
    audience: config.AUTH_AUDIENCE,
    algorithms: source.algorithms,
    key: source.key,
  }
  const verifier = createVerifier({
    issuers: [configured, ...(parts.others ?? [])],
    profileClaim: config.AUTH_PROFILE_CLAIM,
    scopeClaim: config.AUTH_SCOPE_CLAIM,
    clockToleranceSeconds: config.AUTH_CLOCK_TOLERANCE_S,
    now: parts.runtime.now,
  })
  return {
    verify(token) {
      source.refreshIfOld()
      return verifier.verify(token)
    },
    legacyHeader: config.AUTH_LEGACY_HEADER.toLowerCase() || undefined,
    keysAgeSeconds: source.ageSeconds,
    close: source.close,
  }
}

interface Source {
  readonly key: Issuer['key']
  readonly algorithms: readonly string[]
  refreshIfOld(): void
  ageSeconds(): number
  close(): Promise<void>
}

async function openSource(
  config: AuthConfig,
  { runtime, log }: AuthParts,
  onChange: () => void,
): Promise<Source> {
  const { AUTH_JWKS_URL: url, AUTH_JWKS_FILE: file, AUTH_SHARED_SECRET_FILE: secretFile } = config
  if (secretFile !== '') {
    const key = await secretIn(secretFile)
    const nothing = async () => undefined
    return {
      key,
      algorithms: ['HS256'],
      refreshIfOld: () => undefined,
      ageSeconds: () => 0,
      close: nothing,
    }
  }
  const agent = new Agent({ maxResponseSize: MAX_KEY_SET_BYTES })
  const keys = createKeySet({
    clock: runtime.monotonic,
    log,
    onChange,
    load: url === '' ? () => keySetIn(file) : () => keySetAt(url, agent),
    maxAgeMs: url === '' ? FILE_MAX_AGE_MS : URL_MAX_AGE_MS,
  })
  if (url === '') {
    const detail = await keySetIn(file).then(problemOfKeySet, (error) => (error as Error).message)
    if (detail !== undefined) throw new ConfigError([`AUTH_JWKS_FILE is unusable: ${detail}`])
  }
  keys.refreshIfOld()
  return {
    key: keys.keyFor,
    algorithms: algorithmsOf(config),
    refreshIfOld: keys.refreshIfOld,
    // Infinity tells an alert that no keys were ever loaded.
    ageSeconds: () => keys.ageSeconds() ?? Number.POSITIVE_INFINITY,
    close: () => agent.close(),
  }
}

async function secretIn(file: string): Promise<Uint8Array> {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new ConfigError([`AUTH_SHARED_SECRET_FILE is unusable: ${error.message}`])
  })
  const trimmed = text.trimEnd()
  registerSecret(trimmed)
  const secret = new TextEncoder().encode(trimmed)
  if (secret.length >= MIN_SECRET_BYTES) return secret
  throw new ConfigError([`AUTH_SHARED_SECRET_FILE needs at least ${MIN_SECRET_BYTES} bytes`])
}

async function keySetIn(file: string): Promise<unknown> {
  return JSON.parse(await readFile(file, 'utf8'))
}

function problemOfKeySet(set: unknown): string | undefined {
  const keys = (set as Partial<JSONWebKeySet> | null)?.keys
  return Array.isArray(keys) && keys.length > 0 ? undefined : 'it has no list of keys'
}

async function keySetAt(url: string, agent: Agent): Promise<unknown> {
  const signal = AbortSignal.timeout(LOAD_TIMEOUT_MS)
  const response = await request(url, { dispatcher: agent, signal })
  if (response.statusCode === 200) return response.body.json()
  await response.body.dump()
  throw new Error(`the issuer answered ${response.statusCode}`)
}
