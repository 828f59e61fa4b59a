import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema } from 'fastify'
import { DATA_HEADERS } from './http-hooks.ts'
import { PROBLEM_TYPE, Problem } from './http-problems.ts'
import type { HttpServer } from './http-validation.ts'
import { pathWithoutQuery } from './request-target.ts'

export interface DocsOptions {
  readonly service: string
  readonly title: string
  /** The prefix, without a slash at its end; empty where there is none. */
  readonly basePath: string
}

/** The OpenAPI document at /S/openapi.json, and the page that shows it, offline, at /S/docs/. */
export async function addDocs(app: HttpServer, { service, title, basePath }: DocsOptions) {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title, version: '1.0.0' },
      servers: [{ url: '/' }, ...(basePath ? [{ url: basePath }] : [])],
      components: { schemas: { Problem: Problem as object } },
    },
    stripBasePath: false,
    // A schema with a name of its own is found under it.
    refResolver: { buildLocalReference: (json, _base, _part, i) => String(json.$id ?? `def-${i}`) },
    transform: ({ schema, url }) => ({ schema: readable(schema), url }),
    transformObject: (document) =>
      collapseUnions('openapiObject' in document ? document.openapiObject : {}) as object,
  })
  await app.register((scope) => addPage(scope, service, title))
  app.get(`/${service}/openapi.json`, { config: { quiet: true }, schema: { hide: true } }, () =>
    app.swagger(),
  )
}

async function addPage(scope: FastifyInstance, service: string, title: string): Promise<void> {
  scope.addHook('onRequest', (_request, reply, done) => {
    for (const name of Object.keys(DATA_HEADERS)) reply.removeHeader(name)
    done()
  })
  await scope.register(helmet, {
    // Both are for the gateway to say, which knows whether TLS ends there: over plain HTTP the
    // upgrade would break the page on every host but localhost.
    strictTransportSecurity: false,
    contentSecurityPolicy: { directives: { upgradeInsecureRequests: null } },
  })
  await scope.register(swaggerUi, {
    routePrefix: `/${service}/docs`,
    theme: { title },
    uiHooks: {
      // The page's links are relative, so that they hold under any prefix; they need the slash.
      onRequest(request, reply, done) {
        if (pathWithoutQuery(request.url) === `/${service}/docs`) reply.redirect('docs/')
        else done()
      },
    },
  })
}

/**
 * A route's schema as the document shows it: every route may answer with a problem (which is sent as
 * text, past the serializers), and a query parameter that has a default may be left out.
 */
function readable(schema: FastifySchema | undefined): FastifySchema {
  const problem = {
    description: 'A problem: its code says which',
    content: { [PROBLEM_TYPE]: { schema: { $ref: '#/components/schemas/Problem' } } },
  }
  const query = schema?.querystring as QuerySchema | undefined
  const required = query?.required?.filter((name) => query.properties[name]?.default === undefined)
  return {
    ...schema,
    ...(query && { querystring: { ...query, required } }),
    response: { ...(schema?.response as object), default: problem },
  }
}

interface QuerySchema {
  readonly required?: readonly string[]
  readonly properties: Readonly<Record<string, { readonly default?: unknown }>>
}

/** A union of literals reads better as one enum, to people and to generators of clients. */
function collapseUnions(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(collapseUnions)
  if (node === null || typeof node !== 'object') return node
  const members = Object.entries(node).map(([name, value]) => [name, collapseUnions(value)])
  const { anyOf, ...others } = Object.fromEntries(members)
  if (!Array.isArray(anyOf)) return anyOf === undefined ? others : { anyOf, ...others }
  if (!anyOf.every((one) => one.type === 'string' && one.enum)) return { anyOf, ...others }
  return { type: 'string', enum: anyOf.flatMap((one) => one.enum), ...others }
}
