import { Fault } from '../../contracts/problems.ts'
import { pathOf } from './request-target.ts'
import type { HttpServer } from './validation.ts'

/**
 * Makes the server respond with 405 and `Allow` if a path has routes, but none for the requested method. Call
 * this function before adding routes. The handler for unknown routes has to use `faultOf`.
 */
export function addMethodChecks(app: HttpServer): {
  faultOf(request: { readonly method: string; readonly url: string }): {
    readonly fault: Fault
    readonly allowed: readonly string[]
  }
} {
  const methodsByPattern = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const pattern = pathOf(url, '')
    const methods = methodsByPattern.get(pattern) ?? new Set()
    for (const one of [method].flat()) methods.add(one)
    methodsByPattern.set(pattern, methods)
  })

  // POST /account/create is a route. Without this hook, GET /account/create would match GET /account/:id.
  app.addHook('onRequest', (request, reply, done) => {
    if (!request.routeOptions.url?.includes(':')) return done()
    const methods = methodsByPattern.get(pathOf(request.url, ''))
    if (methods === undefined || methods.has(request.method)) return done()
    reply.header('allow', [...methods].join(', '))
    done(new Fault('METHOD_NOT_ALLOWED'))
  })

  // Fastify would reject a QUERY request without a content type before the handler for unknown routes runs.
  app.addHook('onRequest', (request, reply, done) => {
    if (request.method !== 'QUERY' || !request.is404) return done()
    const { fault, allowed } = faultOf(request)
    if (allowed.length > 0) reply.header('allow', allowed.join(', '))
    done(fault)
  })

  function methodsOfMatching(path: string): Set<string> {
    const steps = path.split('/')
    const matching = [...methodsByPattern].filter(([pattern]) => matches(pattern.split('/'), steps))
    return new Set(matching.flatMap(([, methods]) => [...methods]))
  }

  function faultOf({ method, url }: { readonly method: string; readonly url: string }) {
    const path = pathOf(url, '')
    const allowed = [...(methodsByPattern.get(path) ?? methodsOfMatching(path))]
    if (allowed.length > 0) return { fault: new Fault('METHOD_NOT_ALLOWED'), allowed }
    return { fault: new Fault('ROUTE_NOT_FOUND', { detail: `${method} ${path}` }), allowed }
  }

  return { faultOf }
}

function matches(pattern: readonly string[], path: readonly string[]): boolean {
  if (pattern.at(-1) === '*') {
    return matches(pattern.slice(0, -1), path.slice(0, pattern.length - 1))
  }
  const isMatch = (step: string, at: number) => step.startsWith(':') || step === path[at]
  return pattern.length === path.length && pattern.every(isMatch)
}
