import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema } from 'fastify'
import { type Grant, scopesOf } from '../../contracts/access.ts'
import { completeOperation, type Operation, SHARED_COMPONENTS } from './doc-operations.ts'
import { DATA_HEADERS } from './hooks.ts'
import { Problem } from './problems.ts'
import { pathWithoutQuery } from './request-target.ts'
import type { HttpServer } from './validation.ts'

export interface DocsOptions {
  readonly service: string
  readonly title: string
  /** The path prefix without a slash at its end; empty if there is none. */
  readonly basePath: string
  readonly isAuthenticated: boolean
}

/** The tags of operations. An operation without a tag gets the tag of its service. */
const TAGS: Readonly<Record<string, string>> = {
  orders: 'Orders of customers',
  billing: 'Accounts, deposits and payments',
  notification: 'Notices and contacts of customers',
  operators: 'Orders that are waiting for the billing service, for operators',
  'dead letters': 'Messages and outbox rows that can never succeed',
  outbox: 'Messages, calls and letters that wait for delivery',
  health: 'Whether the service is running',
}

/**
 * Adds the OpenAPI document at /S/openapi.json, where S is the service's path, and a page at /S/docs/ that
 * shows the document and works offline.
 */
export async function addDocs(app: HttpServer, options: DocsOptions) {
  const { service, title, basePath, isAuthenticated } = options
  const schemas = new Map<string, FastifySchema>()
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title,
        version: '1.0.0',
        description: isAuthenticated
          ? 'Every call except those without `security` needs a bearer token with one of the listed scopes.'
          : 'AUTH is off: every caller may do everything.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/' }, ...(basePath ? [{ url: basePath }] : [])],
      security: [],
      components: {
        schemas: { Problem: Problem as object },
        ...SHARED_COMPONENTS,
        ...(isAuthenticated && { securitySchemes: BEARER }),
      },
    },
    stripBasePath: false,
    // A schema with an $id keeps that id as its name.
    refResolver: { buildLocalReference: (json, _base, _part, i) => String(json.$id ?? `def-${i}`) },
    transform: ({ schema, url, route }) => {
      const { access = 'public' } = route.config ?? {}
      const tagged = {
        ...schema,
        tags: schema?.tags ?? [service],
        'x-access': access,
        ...(isAuthenticated && access !== 'public' && securedBy(access, schema)),
      }
      if (schema?.operationId) schemas.set(schema.operationId, tagged)
      return { schema: readable(tagged), url }
    },
    transformObject: (document) =>
      complete('openapiObject' in document ? document.openapiObject : {}, schemas) as object,
  })
  await app.register((scope) => addPage(scope, service, title))
  app.get(
    `/${service}/openapi.json`,
    { config: { quiet: true, access: 'public' }, schema: { hide: true } },
    () => app.swagger(),
  )
}

const BEARER = {
  bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
} as const

/** A customer may leave out the profile in the query, because the token names it. */
function securedBy(access: readonly Grant[], schema: FastifySchema | undefined): FastifySchema {
  const own = access.flatMap((grant) => ('own' in grant && grant.own) || [])
  const query = schema?.querystring as QuerySchema | undefined
  const required = query?.required?.filter((name) => !own.includes(`query/${name}`))
  return {
    security: scopesOf(access).map((scope) => ({ bearer: [scope] })),
    problems: [...(schema?.problems ?? []), 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_YOURS'],
    ...(query && { querystring: { ...query, required } }),
  }
}

async function addPage(scope: FastifyInstance, service: string, title: string): Promise<void> {
  scope.addHook('onRequest', (_request, reply, done) => {
    for (const name of Object.keys(DATA_HEADERS)) reply.removeHeader(name)
    done()
  })
  await scope.register(helmet, {
    // The gateway has to set both headers, because only the gateway knows whether it terminates TLS. Over
    // plain HTTP, the upgrade would break the page on every host except localhost.
    strictTransportSecurity: false,
    contentSecurityPolicy: { directives: { upgradeInsecureRequests: null } },
  })
  scope.addHook('onRoute', (route) => {
    route.config = { ...route.config, access: 'public' }
  })
  await scope.register(swaggerUi, {
    routePrefix: `/${service}/docs`,
    theme: { title },
    uiHooks: {
      // The links on the page are relative, so that they work under any prefix. Relative links require the
      // slash at the end.
      onRequest(request, reply, done) {
        if (pathWithoutQuery(request.url) === `/${service}/docs`) reply.redirect('docs/')
        else done()
      },
    },
  })
}

/**
 * Marks query parameters that have a default as optional in the document, because TypeBox marks them as
 * required.
 */
function readable(schema: FastifySchema): FastifySchema {
  const query = schema.querystring as QuerySchema | undefined
  const required = query?.required?.filter((name) => query.properties[name]?.default === undefined)
  return query ? { ...schema, querystring: { ...query, required } } : schema
}

interface QuerySchema {
  readonly required?: readonly string[]
  readonly properties: Readonly<Record<string, { readonly default?: unknown }>>
}

interface Document {
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

/** Completes the operations of the document, and adds a description for each tag that they use. */
function complete(document: object, schemas: ReadonlyMap<string, FastifySchema>): object {
  const { paths = {} } = document as Document
  const used = new Set<string>()
  const completed = Object.entries(paths).map(([path, operations]) => [
    path,
    Object.fromEntries(
      Object.entries(operations).map(([method, operation]) => {
        for (const tag of operation.tags ?? []) used.add(tag)
        const schema = schemas.get(operation.operationId ?? '') ?? {}
        return [method, completeOperation(method, operation, schema)]
      }),
    ),
  ])
  const tags = [...used].map((name) => ({ name, description: TAGS[name] }))
  return readableSchemas({ ...document, tags, paths: Object.fromEntries(completed) }) as object
}

/**
 * Turns each union of literals into one enum, which is easier to read for people and client generators, and
 * replaces a schema with its `documentedAs`.
 */
function readableSchemas(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(readableSchemas)
  if (node === null || typeof node !== 'object') return node
  const members = Object.entries(node).map(([name, value]) => [name, readableSchemas(value)])
  const { anyOf, documentedAs, ...others } = Object.fromEntries(members)
  if (documentedAs !== undefined) {
    const { description } = others
    return { ...documentedAs, ...(description && { description }) }
  }
  if (!Array.isArray(anyOf)) return anyOf === undefined ? others : { anyOf, ...others }
  if (!anyOf.every((one) => one.type === 'string' && one.enum)) return { anyOf, ...others }
  return { type: 'string', enum: anyOf.flatMap((one) => one.enum), ...others }
}
