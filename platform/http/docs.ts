import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema } from 'fastify'
import { completeOperation, type Operation, SHARED_COMPONENTS } from './doc-operations.ts'
import { DATA_HEADERS } from './hooks.ts'
import { Problem } from './problems.ts'
import { pathWithoutQuery } from './request-target.ts'
import type { HttpServer } from './validation.ts'

export interface DocsOptions {
  readonly service: string
  readonly title: string
  /** The prefix, without a slash at its end; empty where there is none. */
  readonly basePath: string
}

/** The tags of operations. One without a tag has that of its service. */
const TAGS: Readonly<Record<string, string>> = {
  orders: 'Orders of customers',
  billing: 'Accounts, deposits and payments',
  notification: 'Messages and contacts of customers',
  operators: 'What operators need to find stuck orders',
  'dead letters': 'Messages that the service set aside',
  outbox: 'Messages, calls and letters that wait for delivery',
  health: 'Whether the service runs',
}

/** The OpenAPI document at /S/openapi.json, and the page that shows it, offline, at /S/docs/. */
export async function addDocs(app: HttpServer, { service, title, basePath }: DocsOptions) {
  const schemas = new Map<string, FastifySchema>()
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title,
        version: '1.0.0',
        description: 'There is no authentication yet: every caller may do everything.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/' }, ...(basePath ? [{ url: basePath }] : [])],
      security: [],
      components: { schemas: { Problem: Problem as object }, ...SHARED_COMPONENTS },
    },
    stripBasePath: false,
    // A schema with a name of its own is found under it.
    refResolver: { buildLocalReference: (json, _base, _part, i) => String(json.$id ?? `def-${i}`) },
    transform: ({ schema, url }) => {
      const tagged = { ...schema, tags: schema?.tags ?? [service] }
      if (schema?.operationId) schemas.set(schema.operationId, tagged)
      return { schema: readable(tagged), url }
    },
    transformObject: (document) =>
      complete('openapiObject' in document ? document.openapiObject : {}, schemas) as object,
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

/** A query parameter that has a default may be left out, although TypeBox requires it. */
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

/** The document with its operations completed, and a description for each tag that they have. */
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
 * A union of literals reads better as one enum, to people and to generators of clients, and `documentedAs`
 * takes the place of its schema.
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
