import { readFile } from 'node:fs/promises'
import { generateKeyPair, SignJWT } from 'jose'
import { type ServiceName, serviceScope } from '../../contracts/access.ts'
import type { Log } from '../async/runtime.ts'
import type { HttpClient } from '../http/client.ts'
import type { AuthConfig } from './config.ts'
import type { Issuer } from './verifier.ts'

/** Returns the token of a service for its next call. */
export type TokenSource = () => Promise<string>

/** The token in a file, which another program renews. */
export const tokenInFile =
  (file: string): TokenSource =>
  async () =>
    (await readFile(file, 'utf8')).trim()

/**
 * Wraps a client so that each call carries the service's own token. The customer's token would expire while a row
 * waits in the outbox. Without a token no call is sent, and the response is 401, as if the receiver had rejected it.
 */
export function withServiceToken(http: HttpClient, tokenOf: TokenSource, log: Log): HttpClient {
  return async (call, timeoutMs) => {
    let token: string
    try {
      token = await tokenOf()
    } catch (err) {
      log.warn({ err, target: call.target }, 'the token of this service cannot be read')
      return { status: 401, body: '' }
    }
    const headers = { ...call.headers, authorization: `Bearer ${token}` }
    return http({ ...call, headers }, timeoutMs)
  }
}

const LIFETIME_MS = 600_000
const RENEW_AFTER_MS = 0.8 * LIFETIME_MS

/**
 * An issuer for the calls between services of one process, with a key pair that exists only in its memory. `now` is
 * in milliseconds since 1970.
 */
export async function createOwnIssuer({ AUTH_AUDIENCE: audience }: AuthConfig, now: () => number) {
  const { publicKey, privateKey } = await generateKeyPair('EdDSA')
  const issuer: Issuer = {
    issuer: `urn:trifold:process:${crypto.randomUUID()}`,
    audience,
    algorithms: ['EdDSA'],
    key: async () => publicKey,
  }
  const sign = (name: ServiceName, atMs: number) =>
    new SignJWT({ scope: serviceScope(name) })
      .setProtectedHeader({ alg: 'EdDSA' })
      .setIssuer(issuer.issuer)
      .setAudience(audience)
      .setSubject(name)
      .setExpirationTime(Math.floor((atMs + LIFETIME_MS) / 1_000))
      .sign(privateKey)

  return {
    issuer,
    tokensOf(name: ServiceName): TokenSource {
      let last: { readonly token: Promise<string>; readonly atMs: number } | undefined
      return () => {
        const nowMs = now()
        if (last === undefined || Math.abs(nowMs - last.atMs) > RENEW_AFTER_MS) {
          last = { token: sign(name, nowMs), atMs: nowMs }
        }
        return last.token
      }
    },
  }
}
