import { createHash, hash } from 'node:crypto'
import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { type Principal, serviceOf } from '../../contracts/access.ts'
import { Fault } from '../../contracts/problems.ts'
import { isUuid } from '../../contracts/uuid.ts'

/** An issuer whose tokens are accepted. */
export interface Issuer {
  readonly issuer: string
  readonly audience: string
  readonly algorithms: readonly string[]
  readonly key: JWTVerifyGetKey | Uint8Array
}

export interface VerifierOptions {
  readonly issuers: readonly Issuer[]
  /** The claim with the id of the customer's profile. */
  readonly profileClaim: string
  /** The claim with the scopes, as a list or as text separated by spaces. */
  readonly scopeClaim: string
  readonly clockToleranceSeconds: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

export interface Verifier {
  /**
   * The caller whose token this is; at once if the token was verified before. Throws or rejects with a Fault:
   * UNAUTHENTICATED, or SERVICE_UNAVAILABLE if no keys have been loaded yet.
   */
  verify(token: string): Principal | Promise<Principal>
  /** Forgets all verified tokens, because a key may have been withdrawn. */
  forget(): void
}

const MAX_TOKEN_CHARACTERS = 8_192
const MAX_CACHED = 10_000

export function createVerifier(options: VerifierOptions): Verifier {
  const { now, clockToleranceSeconds } = options
  /** By the hash of the token, so that no token stays in memory. */
  const verified = new Map<string, { readonly principal: Principal; readonly endMs: number }>()
  let generation = 0

  async function verifyNew(token: string, digest: string): Promise<Principal> {
    const startedIn = generation
    const claims = await verifiedClaims(token)
    const principal = principalOf(claims, options)
    // A set of keys that was replaced during the verification may have contained a withdrawn key.
    if (startedIn === generation) {
      if (verified.size >= MAX_CACHED) verified.delete(verified.keys().next().value!)
      verified.set(digest, { principal, endMs: (claims.exp! + clockToleranceSeconds) * 1_000 })
    }
    return principal
  }

  async function verifiedClaims(token: string): Promise<JWTPayload> {
    try {
      const { iss } = decodeJwt(token)
      const issuer = options.issuers.find((one) => one.issuer === iss)
      if (issuer === undefined) throw rejected('the issuer of the token is not accepted')
      const { payload } = await jwtVerify(token, issuer.key, {
        issuer: issuer.issuer,
        audience: issuer.audience,
        algorithms: [...issuer.algorithms],
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(now()),
        requiredClaims: ['exp', 'sub'],
      })
      if (typeof payload.sub !== 'string' || payload.sub === '') {
        throw rejected('the token has no subject')
      }
      return payload
    } catch (error) {
      throw error instanceof Fault ? error : rejected(reasonOf(error), error)
    }
  }

  return {
    verify(token) {
      if (token.length > MAX_TOKEN_CHARACTERS) {
        throw rejected(`a token may have at most ${MAX_TOKEN_CHARACTERS} characters`)
      }
      const digest = hash('sha256', token, 'base64')
      const known = verified.get(digest)
      if (known !== undefined && now() < known.endMs) return known.principal
      verified.delete(digest)
      return verifyNew(token, digest)
    },
    forget() {
      generation += 1
      verified.clear()
    },
  }
}

function rejected(detail: string, cause?: unknown): Fault {
  return new Fault('UNAUTHENTICATED', { detail }, cause)
}

function reasonOf(error: unknown): string {
  if (error instanceof errors.JWTExpired) return 'the token has expired'
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'nbf') return 'the token is not valid yet'
    return `the claim ${error.claim} of the token is missing or not accepted`
  }
  return 'the token or its signature is invalid'
}

function principalOf(claims: JWTPayload, options: VerifierOptions): Principal {
  const issuer = claims.iss as string
  const subject = claims.sub as string
  const profile = claims[options.profileClaim]
  const scopes = scopesIn(claims[options.scopeClaim])
  return {
    issuer,
    subject,
    profileId:
      typeof profile === 'string' && isUuid(profile)
        ? profile.toLowerCase()
        : uuidV5(uuidV5(URL_NAMESPACE, issuer), subject),
    scopes,
    service: serviceOf(scopes),
  }
}

function scopesIn(claim: unknown): ReadonlySet<string> {
  if (typeof claim === 'string') return new Set(claim.split(' ').filter((scope) => scope !== ''))
  if (!Array.isArray(claim)) return new Set()
  return new Set(claim.filter((scope) => typeof scope === 'string'))
}

/** The namespace of RFC 9562 for names that are URLs. */
const URL_NAMESPACE = '6ba7b811-9dad-11d1-80b4-00c04fd430c8'

/** The UUID of version 5 (RFC 9562) of a name. */
export function uuidV5(namespace: string, name: string): string {
  const bytes = createHash('sha1')
    .update(Buffer.from(namespace.replaceAll('-', ''), 'hex'))
    .update(name)
    .digest()
    .subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x50
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return [8, 12, 16, 20, 32].map((end, at) => hex.slice([0, 8, 12, 16, 20][at], end)).join('-')
}
