import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import Type from 'typebox'
import { systemRuntime } from '../async/runtime.ts'
import { createLog, createTelemetry } from '../telemetry/telemetry.ts'
import { createHttpServer } from './server.ts'

const PREFIX = '/otusapp/gur-ok'
const State = Type.Union([Type.Literal('ON'), Type.Literal('OFF')], { $id: 'State' })

async function build(t: TestContext) {
  const app = await createHttpServer({
    service: 'billing',
    title: 'Billing',
    basePath: PREFIX,
    bodyLimitBytes: 65536,
    rateLimitPerMinute: 0,
    log: createLog('silent', 'billing', { write: () => {} }),
    telemetry: createTelemetry('billing'),
    readiness: {},
    runtime: systemRuntime,
  })
  app.addHook('onRoute', (route) => {
    route.config = { access: 'public', ...route.config }
  })
  t.after(() => app.close())
  app.post(
    '/billing/:id',
    {
      schema: {
        operationId: 'doIt',
        summary: 'Do it',
        problems: ['ACCOUNT_NOT_FOUND'],
        responseHeaders: { 'x-done': { type: 'string' } },
        params: Type.Object({ id: Type.String({ format: 'uuid' }) }),
        querystring: Type.Object({ limit: Type.Integer({ default: 5 }), amount: Type.String() }),
        headers: Type.Object({ 'idempotency-key': Type.Optional(Type.String()) }),
        body: Type.Object({ state: State }, { additionalProperties: false }),
        response: {
          200: Type.Object({ state: State, before: Type.Union([State, Type.Null()]) }),
        },
      },
    },
    async (request) => ({ state: request.body.state, before: null }),
  )
  app.get(
    '/billing/list',
    {
      schema: {
        operationId: 'list',
        querystring: Type.Object({ cursor: Type.Optional(Type.String()) }),
        response: { 200: Type.Array(State) },
      },
    },
    async () => [],
  )
  app.post(
    '/billing/:id/undo',
    {
      schema: {
        operationId: 'undo',
        params: Type.Object({ id: Type.String() }),
        headers: Type.Object({
          'x-style': Type.Optional(Type.String({ documentedAs: { type: 'string', enum: ['a'] } })),
        }),
        body: Type.Optional(Type.Object({ state: State })),
        response: { 200: Type.Null() },
      },
    },
    async () => null,
  )
  return app
}

interface Operation {
  operationId: string
  tags: string[]
  parameters: ({ name: string; in: string; required: boolean; schema: object } | Reference)[]
  requestBody?: { required: boolean; content: Record<string, { schema: object }> }
  responses: Record<
    string,
    {
      description: string
      headers: Record<string, object>
      content: Record<string, { schema: ProblemSchema }>
    }
  >
}

interface Reference {
  $ref: string
}

interface ProblemSchema {
  allOf: Reference[]
  properties: { code: { enum: string[] } }
}

interface Document {
  openapi: string
  info: object
  servers: { url: string }[]
  tags: { name: string; description: string }[]
  security: object[]
  components: { schemas: Record<string, object> }
  paths: Record<string, Record<string, Operation>>
}

const named = ({ parameters }: Operation) =>
  parameters.flatMap((one) => ('$ref' in one ? [] : [one]))

test('the document lists the routes and both servers, and says that no authentication is required', async (t) => {
  const app = await build(t)
  const answer = await app.inject('/billing/openapi.json')
  assert.match(String(answer.headers['content-type']), /^application\/json/)
  const document: Document = answer.json()
  assert.equal(document.openapi, '3.1.0')
  assert.deepEqual(document.servers, [{ url: '/' }, { url: PREFIX }])
  assert.deepEqual(document.security, [])
  assert.deepEqual(Object.keys(document.paths).sort(), [
    '/billing/health',
    '/billing/list',
    '/billing/{id}',
    '/billing/{id}/undo',
  ])
  assert.deepEqual(
    document.tags.map(({ name }) => name),
    ['health', 'billing'],
  )

  const operation = document.paths['/billing/{id}']!.post!
  const parameters = named(operation).map((one) => `${one.in} ${one.name} ${one.required}`)
  assert.deepEqual(parameters.sort(), [
    'header idempotency-key false',
    'path id true',
    'query amount true',
    'query limit false',
  ])
  assert.equal(operation.requestBody!.required, true)
  assert.deepEqual(document.components.schemas.State, { type: 'string', enum: ['ON', 'OFF'] })
})

test('an operation has each status of its problems, with their codes', async (t) => {
  const document: Document = (await (await build(t)).inject('/billing/openapi.json')).json()
  const { responses } = document.paths['/billing/{id}']!.post!
  const codes = Object.entries(responses).flatMap(([status, { content }]) => {
    const problem = content['application/problem+json']?.schema
    return problem ? [[status, problem.properties.code.enum]] : []
  })
  assert.deepEqual(Object.fromEntries(codes), {
    400: ['VALIDATION_FAILED', 'MALFORMED_JSON'],
    403: ['CROSS_SITE_REQUEST'],
    404: ['ACCOUNT_NOT_FOUND'],
    408: ['REQUEST_TIMEOUT'],
    413: ['BODY_TOO_LARGE'],
    414: ['URI_TOO_LONG'],
    415: ['UNSUPPORTED_MEDIA_TYPE'],
    421: ['MISDIRECTED_REQUEST'],
    429: ['TOO_MANY_REQUESTS'],
    431: ['HEADERS_TOO_LARGE'],
    500: ['INTERNAL'],
    503: ['DATABASE_UNAVAILABLE', 'SERVICE_UNAVAILABLE'],
  })
  const reading = document.paths['/billing/list']!.get!
  assert.ok(!('415' in reading.responses), 'bodies of GET are not read')
})

test('an operation has its optional body, its response headers and the exact schemas of looser ones', async (t) => {
  const document: Document = (await (await build(t)).inject('/billing/openapi.json')).json()
  const undo = document.paths['/billing/{id}/undo']!.post!
  assert.equal(undo.requestBody!.required, false)
  const style = named(undo).find(({ name }) => name === 'x-style')!
  assert.deepEqual(style.schema, { type: 'string', enum: ['a'] })
  const headersOf = (operation: Operation) => Object.keys(operation.responses[200]!.headers)
  assert.deepEqual(headersOf(undo), ['x-request-id'])
  assert.deepEqual(headersOf(document.paths['/billing/list']!.get!), [
    'x-request-id',
    'x-next-cursor',
  ])
  assert.deepEqual(headersOf(document.paths['/billing/{id}']!.post!), ['x-request-id', 'x-done'])
})

test('every schema of the document is valid JSON Schema 2020-12 without dangling references', async (t) => {
  const app = await build(t)
  const document: Document = (await app.inject('/billing/openapi.json')).json()
  const ajv = new Ajv2020.default({ strict: true, allowUnionTypes: true })
  addFormats.default(ajv)
  ajv
    .addSchema({ $id: 'document', components: document.components } as object, 'document')
    .addKeyword('components')
  const pointed = (schema: object) =>
    JSON.parse(JSON.stringify(schema).replaceAll('"#/components', '"document#/components'))

  for (const [path, operations] of Object.entries(document.paths)) {
    for (const operation of Object.values(operations)) {
      const { requestBody, responses } = operation
      const parameters = named(operation)
      const inPath = parameters.filter((one) => one.in === 'path').map((one) => one.name)
      assert.deepEqual(
        inPath,
        [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]),
      )
      const answers = Object.values(responses)
      for (const answer of answers) assert.ok(answer.description)
      const contents = [requestBody, ...answers].flatMap((one) => Object.values(one?.content ?? {}))
      for (const { schema } of [...parameters, ...contents]) ajv.compile(pointed(schema))
    }
  }
})

test('a problem matches the schema of problems', async (t) => {
  const app = await build(t)
  const document: Document = (await app.inject('/billing/openapi.json')).json()
  const ajv = new Ajv2020.default({ strict: true })
  addFormats.default(ajv)
  const fits = ajv.compile(document.components.schemas.Problem!)
  assert.ok(fits((await app.inject('/nowhere')).json()), JSON.stringify(fits.errors))
})

for (const prefix of ['', PREFIX]) {
  test(`the page works offline under "${prefix}/", without external resources`, async (t) => {
    const app = await build(t)
    const bare = await app.inject(`${prefix}/billing/docs`)
    assert.equal(bare.statusCode, 302)
    const at = new URL(String(bare.headers.location), `http://host${prefix}/billing/docs`)
    assert.equal(at.href, `http://host${prefix}/billing/docs/`)

    const page = await app.inject(at.pathname)
    assert.match(String(page.headers['content-type']), /^text\/html/)
    const links = [...page.body.matchAll(/(?:href|src)="([^"]+)"/g)].map((match) => match[1]!)
    assert.ok(links.length > 5)
    for (const link of [...links, './json']) {
      const target = new URL(link, at)
      assert.ok(target.href.startsWith(at.href), link)
      assert.equal((await app.inject(target.pathname)).statusCode, 200, link)
    }
    assert.equal((await app.inject(`${at.pathname}json`)).json().openapi, '3.1.0')
  })
}

test('the security policy lets the page load its own files, over plain HTTP too', async (t) => {
  const app = await build(t)
  const page = await app.inject('/billing/docs/')
  const policy = String(page.headers['content-security-policy'])
  assert.match(policy, /default-src 'self'/)
  assert.match(policy, /script-src 'self'/)
  assert.match(policy, /style-src 'self'/)
  assert.match(policy, /img-src 'self' data:/)
  assert.doesNotMatch(policy, /upgrade-insecure-requests/)
  assert.doesNotMatch(page.body, /<script(?![^>]*src=)|<style|\son\w+=/)
})
