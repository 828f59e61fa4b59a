import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import {
  type Access,
  type Grant,
  grantFor,
  type Principal,
  scopesOf,
} from '../../contracts/access.ts'
import { Fault } from '../../contracts/problems.ts'
import type { Auth } from '../auth/auth.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import type { HttpServer } from './validation.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call the route. Every route has to declare it. */
    access?: Access
  }
  interface FastifyInstance {
    /** The routes of the server, with who may call them. */
    routeTable(): RouteAccess[]
  }
  interface FastifyRequest {
    /** The authenticated caller; undefined if AUTH is off or the route is public. */
    principal: Principal | undefined
    /** Why the caller may call the route; undefined if AUTH is off or the route is public. */
    grant: Grant | undefined
    /** The profile to which the request is limited; undefined unless the caller is an authenticated customer. */
    ownProfile: string | undefined
  }
}

export interface RouteAccess {
  readonly method: string
  readonly url: string
  readonly access: Access
}

/**
 * Lets the server start only if every route declares who may call it. With `auth`, a request needs a token that the
 * route admits. The token is checked after the rate limit and before the body is read.
 */
export function addAccess(
  app: HttpServer,
  { auth, telemetry }: { readonly auth: Auth | undefined; readonly telemetry: Telemetry },
): void {
  const routes: RouteOptions[] = []
  app.addHook('onRoute', (route) => void routes.push(route))
  app.addHook('onReady', async () => {
    const undeclared = routes.find(({ config }) => config?.access === undefined)
    if (undeclared === undefined) return
    throw new Error(`${undeclared.method} ${undeclared.url} does not declare who may call it`)
  })
  app.decorate('routeTable', () => routes.flatMap(accessOf))
  app.decorateRequest('principal')
  app.decorateRequest('grant')
  app.decorateRequest('ownProfile')
  if (auth === undefined) return

  telemetry.gauge('trifold_auth_keys_age_seconds', auth.keysAgeSeconds)
  telemetry.count('trifold_auth_legacy_header_total', {}, 0)
  app.addHook('preParsing', (request, reply, payload, done) => {
    const { access } = request.routeOptions.config
    if (request.is404 || access === undefined || access === 'public') return done(null, payload)
    const fail = (error: Error) => {
      challenge(error, reply)
      done(error)
    }
    const admit = (principal: Principal) => {
      const fault = admitTo(access, principal, request)
      if (fault === undefined) return done(null, payload)
      challenge(fault, reply, access)
      done(fault)
    }
    try {
      const principal = auth.verify(tokenIn(request, auth, telemetry))
      if (principal instanceof Promise) principal.then(admit, fail)
      else admit(principal)
    } catch (error) {
      fail(error as Error)
    }
  })
  app.addHook('preHandler', (request, _reply, done) => {
    const { grant, ownProfile } = request
    if (grant?.role !== 'customer' || grant.own === undefined) return done()
    const [part, name] = grant.own.split('/') as ['params' | 'query' | 'body', string]
    const value = (request[part] as Readonly<Record<string, unknown>> | undefined)?.[name]
    done(value === ownProfile ? undefined : new Fault('NOT_YOURS'))
  })
}

function accessOf({ method, url, config }: RouteOptions): RouteAccess[] {
  const access = config?.access
  return access === undefined ? [] : [method].flat().map((one) => ({ method: one, url, access }))
}

function admitTo(
  access: readonly Grant[],
  principal: Principal,
  request: FastifyRequest,
): Fault | undefined {
  const grant = grantFor(access, principal)
  if (grant === undefined) {
    const detail = `the token needs the scope ${scopesOf(access).join(' or ')}`
    return new Fault('FORBIDDEN', { detail })
  }
  request.principal = principal
  request.grant = grant
  if (grant.role !== 'customer') return undefined
  request.ownProfile = principal.profileId
  // A customer may leave out the profile.
  if (grant.own?.startsWith('query/')) {
    const query = request.query as Record<string, unknown>
    query[grant.own.slice('query/'.length)] ??= principal.profileId
  }
  return undefined
}

const BEARER = 'bearer '
const NO_TOKEN = 'the request has no bearer token'

function tokenIn({ headers }: FastifyRequest, { legacyHeader }: Auth, telemetry: Telemetry) {
  const { authorization } = headers
  const bare = legacyHeader === undefined ? undefined : headers[legacyHeader]
  const isBearer = authorization?.slice(0, BEARER.length).toLowerCase() === BEARER
  const token = isBearer ? authorization?.slice(BEARER.length).trim() : undefined
  if (bare === undefined) {
    if (token !== undefined) return token
    throw new Fault('UNAUTHENTICATED', { detail: NO_TOKEN })
  }
  telemetry.count('trifold_auth_legacy_header_total')
  if (authorization === undefined || token === bare) return String(bare)
  const detail = `Authorization and ${legacyHeader} contain different tokens`
  throw new Fault('VALIDATION_FAILED', { field: `headers/${legacyHeader}`, detail })
}

/** RFC 6750: how to authenticate, what is wrong with the token, if there is one, or which scope it lacks. */
function challenge(error: Error, reply: FastifyReply, access: readonly Grant[] = []): void {
  if (!(error instanceof Fault)) return
  if (error.code === 'UNAUTHENTICATED') {
    const reason = error.details.detail === NO_TOKEN ? '' : ', error="invalid_token"'
    reply.header('www-authenticate', `Bearer realm="trifold"${reason}`)
  } else if (error.code === 'FORBIDDEN') {
    const scope = scopesOf(access).join(' ')
    const text = `Bearer realm="trifold", error="insufficient_scope", scope="${scope}"`
    reply.header('www-authenticate', text)
  }
}
