import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import fc from 'fast-check'
import { Deposit, Pay } from '../../contracts/http.ts'
import { parseAmount } from '../../contracts/money.ts'
import { STYLES } from '../../contracts/style.ts'
import type { CallOptions } from './client.ts'
import { startProgram } from './program.ts'

/** Compares the OpenAPI document of each service with the requests that it accepts and its responses. */
const trifold = await startProgram()
after(() => trifold.close())

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly schema: { readonly type?: string; readonly enum?: unknown[]; readonly format?: string }
}

interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly parameters: readonly (Parameter | { readonly $ref: string })[]
  readonly requestBody?: { readonly required: boolean }
  readonly responses: Readonly<
    Record<string, { headers: object; content: Record<string, { schema: object }> }>
  >
}

interface Document {
  readonly tags: readonly { readonly name: string; readonly description?: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: object
}

const SERVICES = ['orders', 'billing', 'notification']
const documents = await Promise.all(
  SERVICES.map((service) => trifold.read<Document>(`/${service}/openapi.json`)),
)
const operations = documents.flatMap((document) =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ document, path, method, operation })),
  ),
)

test('every operation has a unique id, a described tag and problem responses', () => {
  for (const document of documents) {
    const own = operations.filter((one) => one.document === document)
    assert.equal(new Set(own.map(({ operation }) => operation.operationId)).size, own.length)
    const described = document.tags.filter(({ description }) => description).map(({ name }) => name)
    for (const { path, operation } of own) {
      assert.ok(operation.operationId, path)
      for (const tag of operation.tags) assert.ok(described.includes(tag), `${path} ${tag}`)
      assert.ok(Object.keys(operation.responses).some((status) => status.startsWith('4')))
    }
  }
})

/** Finds the operation of a call. A fixed segment of a path takes precedence over a parameter. */
function operationOf(method: string, target: string) {
  const path = target.replace(/\?.*/, '').split('/')
  const fits = operations
    .filter((one) => one.method === method.toLowerCase())
    .filter((one) => {
      const steps = one.path.split('/')
      return steps.length === path.length && steps.every((s, i) => s[0] === '{' || s === path[i])
    })
    .sort((a, b) => a.path.split('{').length - b.path.split('{').length)
  assert.ok(fits[0], `${method} ${target} is documented`)
  return fits[0]
}

/** Makes a call whose response must be as documented: status, type, headers and body. */
async function documented(status: number, method: string, target: string, options?: CallOptions) {
  const answer = await trifold.call(method, target, options)
  const name = `${method} ${target}: ${JSON.stringify(answer.body)}`
  assert.equal(answer.status, status, name)
  const { document, operation } = operationOf(method, target)
  const shown = operation.responses[answer.status]
  assert.ok(shown, `${name} has a documented status`)
  const type = answer.headers.get('content-type')?.split(';')[0] ?? ''
  assert.ok(shown.content[type], `${name} has a documented type, not ${type}`)
  const ajv = new Ajv2020.default({ strict: false })
  addFormats.default(ajv)
  ajv.addSchema({ $id: 'document', components: document.components }, 'document')
  const text = JSON.stringify(shown.content[type].schema)
  const fits = ajv.compile(JSON.parse(text.replaceAll('"#/components', '"document#/components')))
  assert.ok(fits(answer.body), `${name}: ${ajv.errorsText(fits.errors)}`)
  for (const header of ['x-next-cursor', 'x-replay', 'retry-after', 'preference-applied']) {
    if (answer.headers.has(header)) assert.ok(header in shown.headers, `${name} shows ${header}`)
  }
  return answer
}

const NOBODY = '00000000-0000-4000-8000-000000000000'

test('responses of the order service are as documented', async () => {
  const account = await trifold.fundedAccount(130)
  const mine = `profileId=${account}`
  const one = { json: { productQuantity: 1 } }
  for (const style of STYLES) {
    await documented(201, 'POST', `/orders?${mine}`, { ...one, style, key: `${style}-${account}` })
  }
  const again = { json: { productQuantity: 2 }, key: `http-${account}` }
  await documented(422, 'POST', `/orders?${mine}`, again)
  await documented(402, 'POST', `/orders?${mine}`, { json: { productQuantity: 9 }, style: 'http' })
  await documented(400, 'POST', `/orders?${mine}`, { json: { productQuantity: 0 } })
  await documented(400, 'POST', `/orders?${mine}`, {
    ...one,
    headers: { 'x-interaction-style': 'x' },
  })
  const asText = { raw: 'x', headers: { 'content-type': 'text/plain' } }
  await documented(415, 'POST', `/orders?${mine}`, asText)
  const page = await documented(200, 'GET', `/orders?${mine}&limit=1`)
  assert.ok(page.headers.get('x-next-cursor'))
  const [{ id }] = page.body as [{ id: string }]
  await documented(200, 'GET', `/orders/${id}?${mine}`, { headers: { prefer: 'wait=5' } })
  await documented(403, 'GET', `/orders/${id}?profileId=${NOBODY}`)
  await documented(404, 'GET', `/orders/${NOBODY}?${mine}`)
  await documented(404, 'DELETE', `/orders/${NOBODY}?${mine}`)
  await documented(200, 'DELETE', `/orders/${id}?${mine}`)
  await documented(200, 'GET', '/orders/pending')
  await documented(200, 'GET', '/orders/outbox')
  await documented(200, 'GET', '/orders/dead-letters')
  await documented(404, 'POST', `/orders/dead-letters/${NOBODY}/replay`)
  await documented(200, 'GET', '/orders/health')
})

test('responses of the billing service are as documented', async () => {
  const account = (await documented(200, 'POST', '/billing/account/create')).body
  await documented(200, 'POST', `/billing/account/${account}?amount=10.50`)
  await documented(400, 'POST', `/billing/account/${account}?amount=0`)
  await documented(404, 'POST', `/billing/account/${NOBODY}?amount=1`)
  await documented(200, 'GET', `/billing/account/${account}`)
  await documented(404, 'GET', `/billing/account/${NOBODY}`)
  const pay = { json: { accountId: account, amount: 10 } }
  const paid = (await documented(200, 'POST', '/billing/account', pay)).body
  await documented(402, 'POST', '/billing/account', pay)
  const other = { json: { accountId: account, amount: 1, orderId: paid } }
  await documented(409, 'POST', '/billing/account', other)
  await documented(404, 'POST', '/billing/account', { json: { accountId: NOBODY, amount: 1 } })
  await documented(200, 'GET', `/billing/payments/${paid}`)
  await documented(404, 'GET', `/billing/payments/${NOBODY}`)
  await documented(409, 'POST', `/billing/payments/${paid}/void`, { json: { accountId: NOBODY } })
  await documented(200, 'POST', `/billing/payments/${paid}/void`)
  await documented(409, 'POST', '/billing/account', { json: { ...pay.json, orderId: paid } })
  const entries = await documented(200, 'GET', `/billing/account/${account}/entries?limit=1`)
  assert.ok(entries.headers.get('x-next-cursor'))
})

test('responses of the notification service are as documented', async () => {
  const accountId = crypto.randomUUID()
  const notice = { json: { accountId, event: 'DEPOSIT_ACCEPTED', value: 10 } }
  const id = (await documented(200, 'POST', '/notification', notice)).body
  await documented(400, 'POST', '/notification', { json: { accountId, event: 'ORDER_PAID' } })
  await documented(200, 'GET', `/notification/${id}`)
  await documented(404, 'GET', `/notification/${NOBODY}`)
  await documented(200, 'GET', `/notification/account/${accountId}?limit=1`)
  const contact = `/notification/contact/${accountId}`
  await documented(404, 'GET', contact)
  await documented(200, 'PUT', contact, { json: { email: 'ann@shop.example' } })
  await documented(400, 'PUT', contact, { json: { email: 'ann' } })
  await documented(200, 'GET', contact)
  await documented(200, 'DELETE', contact)
  await documented(200, 'DELETE', `/notification/account/${accountId}`)
})

test('a body is optional exactly if the document says so', async () => {
  for (const { method, path, operation } of operations) {
    if (operation.requestBody === undefined) continue
    const target = `${path.replaceAll(/\{\w+\}/g, NOBODY)}?profileId=${NOBODY}`
    const { body } = await trifold.call<{ field?: string }>(method.toUpperCase(), target)
    assert.equal(body.field === 'body', operation.requestBody.required, `${method} ${path}`)
  }
})

test('a null character in any text is accepted or rejected, and never causes an internal error', async () => {
  for (const { method, path, operation } of operations) {
    const target = path.replaceAll(/\{\w+\}/g, NOBODY)
    for (const one of operation.parameters) {
      if ('$ref' in one || one.in !== 'query') continue
      const url = `${target}?profileId=${NOBODY}&${one.name}=a%00b`
      const { status } = await trifold.call(method.toUpperCase(), url)
      assert.ok(status < 500, `${method} ${url}: ${status}`)
    }
  }
})

const amountText = fc.oneof(
  fc.stringMatching(/^[0-9]{0,17}(\.[0-9]{0,3})?$/),
  fc.stringMatching(/^0{0,8}(1000000000|999999999|0)(\.(00|01|0|9))?$/),
)

interface Documented<Schema> {
  readonly documentedAs: Schema
}

test('a deposit accepts exactly the documented amounts', () => {
  const { amount } = Deposit.properties
  const { documentedAs } = amount as typeof amount & Documented<{ pattern: string }>
  const pattern = new RegExp(documentedAs.pattern)
  fc.assert(
    fc.property(amountText, (text) => {
      assert.equal(pattern.test(text), typeof parseAmount(text) === 'bigint', text)
    }),
    { numRuns: 2_000 },
  )
})

test('a payment accepts exactly the documented amounts', () => {
  const { amount } = Pay.properties
  const { documentedAs } = amount as typeof amount &
    Documented<{ exclusiveMinimum: number; maximum: number; multipleOf: number }>
  const { exclusiveMinimum, maximum, multipleOf } = documentedAs
  for (const hundredths of [-100, -1, 0, 1, 50, 99_999_999_999, 100_000_000_000, 100_000_000_001]) {
    const value = hundredths / 100
    const isShown = value > exclusiveMinimum && value <= maximum
    assert.equal(isShown, typeof parseAmount(value) === 'bigint', String(value))
  }
  assert.equal(typeof parseAmount(multipleOf), 'bigint')
  assert.equal(typeof parseAmount(multipleOf / 10), 'string')
})
