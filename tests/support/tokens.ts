import { writeFile } from 'node:fs/promises'
import { type CryptoKey, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'

export interface TestKey {
  readonly kid: string
  readonly alg: string
  readonly privateKey: CryptoKey
  /** The public key as it is published. */
  readonly jwk: object
}

export async function newKey(kid: string, alg = 'ES256'): Promise<TestKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg)
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } }
}

export const writeKeys = (file: string, ...keys: readonly TestKey[]) =>
  writeFile(file, JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }))

const ISSUER = 'https://issuer.test'
export const AUTH_SETTINGS = { AUTH: 'jwt', AUTH_ISSUER: ISSUER, AUTH_AUDIENCE: 'trifold' } as const

/** A valid token with these claims; a claim that is undefined is left out. */
export function sign(
  { kid, alg, privateKey }: Pick<TestKey, 'kid' | 'alg'> & { privateKey: CryptoKey | Uint8Array },
  claims: JWTPayload & { readonly scope?: unknown } = {},
): Promise<string> {
  const now = Math.floor(Date.now() / 1_000)
  const all = { iss: ISSUER, aud: 'trifold', sub: 'ann', exp: now + 300, ...claims }
  const header = { alg, kid, typ: 'JWT' }
  return new SignJWT(all).setProtectedHeader(header).sign(privateKey)
}
