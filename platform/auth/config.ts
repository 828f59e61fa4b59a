import Type, { type Static } from 'typebox'
import { isLoopbackHost } from '../process/config.ts'
import { algorithmList, headerName, httpUrl, itemsOf } from '../process/config-formats.ts'

/** The issuer of `npm run token`. */
export const DEVELOPMENT_ISSUER = 'urn:trifold:development'

/** The variables of programs that authenticate their callers. */
export const authConfig = {
  AUTH: Type.Enum(['off', 'jwt'], {
    default: 'off',
    description:
      'Whether callers need a signed token (jwt), or may do everything without one (off).',
  }),
  AUTH_OFF_ANYWHERE: Type.Boolean({
    default: false,
    description:
      'Whether AUTH may be off while HOST is not loopback, for example because a gateway authenticates callers.',
  }),
  AUTH_ISSUER: Type.String({
    default: DEVELOPMENT_ISSUER,
    minLength: 1,
    description: 'The issuer of tokens, their claim iss. The default is that of npm run token.',
  }),
  AUTH_AUDIENCE: Type.String({
    default: 'trifold',
    minLength: 1,
    description: 'The audience that the claim aud of a token must contain.',
  }),
  AUTH_JWKS_URL: httpUrl({
    default: '',
    description: 'The https:// URL of the public keys of the issuer (JWKS); http:// on loopback.',
  }),
  AUTH_JWKS_FILE: Type.String({
    default: '',
    description: 'A file with the public keys of the issuer (JWKS), instead of AUTH_JWKS_URL.',
  }),
  AUTH_SHARED_SECRET_FILE: Type.String({
    default: '',
    description:
      'A file with a secret of at least 32 bytes, instead of public keys. Only HS256 is accepted then.',
  }),
  AUTH_ALGORITHMS: algorithmList({
    default: 'ES256,EdDSA,RS256,PS256',
    description: 'The accepted signatures of tokens.',
  }),
  AUTH_PROFILE_CLAIM: Type.String({
    default: 'sub',
    minLength: 1,
    description:
      "The claim with the id of the customer's profile. If it is not a UUID, the id is derived from iss and sub.",
  }),
  AUTH_SCOPE_CLAIM: Type.String({
    default: 'scope',
    minLength: 1,
    description: 'The claim with the scopes: a list, or text separated by spaces.',
  }),
  AUTH_CLOCK_TOLERANCE_S: Type.Integer({
    default: 5,
    minimum: 0,
    maximum: 300,
    description: "How many seconds the issuer's clock may differ.",
  }),
  AUTH_LEGACY_HEADER: headerName({
    default: '',
    description:
      'Another header that may contain the token, without "Bearer", such as x-jwt-token. Empty: none.',
  }),
} as const

const schema = Type.Object(authConfig)
export type AuthConfig = Static<typeof schema>

/** The variable of programs that call other services. */
export const serviceTokenConfig = {
  SERVICE_TOKEN_FILE: Type.String({
    default: '',
    description:
      'A file with the token of this service for its calls, read again for each call. Required if AUTH is jwt.',
  }),
} as const

/** What is wrong with the combination of these settings; empty if nothing is. */
export function authProblems(config: AuthConfig & { readonly HOST: string }): string[] {
  if (config.AUTH === 'off') {
    if (isLoopbackHost(config.HOST) || config.AUTH_OFF_ANYWHERE) return []
    return [
      `HOST=${config.HOST} is reachable from other machines, and AUTH=off lets every caller do everything: set AUTH=jwt (docs/security.md), or AUTH_OFF_ANYWHERE=true if a gateway authenticates callers`,
    ]
  }
  const { AUTH_JWKS_URL: url, AUTH_JWKS_FILE: file, AUTH_SHARED_SECRET_FILE: secret } = config
  const sources = [url, file, secret].filter((source) => source !== '')
  const problems: string[] = []
  if (sources.length !== 1) {
    problems.push(
      'AUTH=jwt needs exactly one of AUTH_JWKS_URL, AUTH_JWKS_FILE and AUTH_SHARED_SECRET_FILE',
    )
  }
  if (url !== '' && !isSecure(url)) {
    problems.push('AUTH_JWKS_URL must begin with https:// unless its host is loopback')
  }
  if (file === '' && config.AUTH_ISSUER === DEVELOPMENT_ISSUER) {
    problems.push(
      'AUTH_ISSUER must name the issuer of tokens; only AUTH_JWKS_FILE works without it',
    )
  }
  return problems
}

function isSecure(text: string): boolean {
  const { protocol, hostname } = new URL(text)
  return protocol === 'https:' || ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
}

export const algorithmsOf = (config: AuthConfig): string[] => itemsOf(config.AUTH_ALGORITHMS)
