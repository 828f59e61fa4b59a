import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import { asyncApiPage } from '../platform/front-door/asyncapi-page.ts'
import { asyncApiDocument } from './asyncapi.ts'
import { decodeEvent, EVENTS } from './events.ts'

// The document as its readers get it, as JSON, without the hidden members that TypeBox adds to schemas.
const document = JSON.parse(JSON.stringify(asyncApiDocument())) as ReturnType<
  typeof asyncApiDocument
>
const ajv = new Ajv({ strict: false, allErrors: true })
addFormats.default(ajv)

describe('the AsyncAPI document', () => {
  test('is valid AsyncAPI 3.0.0', async () => {
    const address = import.meta.resolve('@asyncapi/specs/schemas/3.0.0.json')
    const specification = JSON.parse(await readFile(new URL(address), 'utf8'))
    // The schema of the AsyncAPI specification includes a copy of JSON Schema draft-07 with the same id as
    // Ajv's own copy.
    const bare = new Ajv({ strict: false, allErrors: true, meta: false, validateSchema: false })
    addFormats.default(bare)
    const validate = bare.compile(specification)
    assert.ok(validate(document), bare.errorsText(validate.errors))
    assert.ok(
      !validate({ ...document, channels: { billing: { messages: 1 } } }),
      'an invalid document was accepted',
    )
  })

  test('has every event on its topic and the balance stream', () => {
    const onTopics = Object.entries(document.channels).flatMap(([topic, channel]) =>
      Object.keys(channel.messages).map((name) => `${topic}/${name}`),
    )
    const expected = Object.entries(EVENTS).map(([name, { topic }]) => `${topic}/${name}`)
    assert.deepEqual(onTopics.sort(), [...expected, 'balance/BALANCE_CHANGED'].sort())
  })

  test('has no dangling reference', () => {
    for (const reference of references(document)) {
      assert.ok(resolve(reference), `${reference} does not exist`)
    }
  })

  test('lists what each service sends and receives', () => {
    const flows = Object.entries(document.operations).map(([id, { action, channel, messages }]) => [
      id,
      action,
      channel.$ref.split('/').at(-1),
      messages.map(({ $ref }) => $ref.split('/').at(-1)),
    ])
    const outcomes = ['ORDER_PAID', 'PAYMENT_FAIL', 'DEPOSIT_ACCEPTED', 'PAYMENT_REFUNDED']
    const requests = ['ORDER_CREATED', 'DEPOSIT_REQUEST', 'ORDER_CANCELED']
    assert.deepEqual(flows, [
      ['order-sends-billing', 'send', 'billing', ['ORDER_CREATED', 'ORDER_CANCELED']],
      ['order-sends-payment', 'send', 'payment', ['PAYMENT_FAIL']],
      ['order-receives-payment', 'receive', 'payment', outcomes],
      ['billing-sends-billing', 'send', 'billing', ['DEPOSIT_REQUEST']],
      ['billing-sends-payment', 'send', 'payment', outcomes],
      ['billing-sends-balance', 'send', 'balance', ['BALANCE_CHANGED']],
      ['billing-receives-billing', 'receive', 'billing', requests],
      ['notification-receives-payment', 'receive', 'payment', outcomes],
    ])
  })

  for (const message of Object.values(document.components.messages)) {
    test(`has an example of ${message.name} that matches its schemas and can be read`, () => {
      const validPayload = ajv.compile(message.payload)
      const validHeaders = ajv.compile(document.components.schemas.Headers)
      assert.ok(message.examples.length > 0)
      for (const { headers, payload } of message.examples) {
        assert.ok(validPayload(payload), ajv.errorsText(validPayload.errors))
        assert.ok(validHeaders(headers), ajv.errorsText(validHeaders.errors))
        assert.ok(!validPayload({ ...payload, extra: 1 }), 'bodies are closed')
        assert.ok(validHeaders({ 'x-other': '1' }), 'headers are open and optional')
        if (message.name === 'BALANCE_CHANGED') continue
        const topic = EVENTS[message.name].topic
        const value = new TextEncoder().encode(JSON.stringify(payload))
        const read = decodeEvent({ topic, partition: 0, offset: 0n, value, headers })
        assert.ok(typeof read !== 'string' && 'meta' in read, String(read))
        assert.equal(read.meta.id, headers.ce_id)
        assert.equal(read.meta.style, 'events')
        assert.equal(read.meta.traceparent, headers.traceparent)
      }
    })
  }
})

describe('the AsyncAPI page', () => {
  const page = asyncApiPage('asyncapi.json?a="b"&c')

  test('shows every message and header', () => {
    for (const name of Object.keys(document.components.messages)) {
      assert.ok(page.includes(`<article id="${name}">`), name)
    }
    for (const name of Object.keys(document.components.schemas.Headers.properties)) {
      assert.ok(page.includes(`<code>${name}</code>`), name)
    }
  })

  test('loads no resources and runs no scripts', () => {
    assert.doesNotMatch(page, /<script|<link|<img|@import|url\(|https?:|\son\w+=/i)
  })

  test('escapes the address of the JSON document', () => {
    assert.ok(page.includes('href="asyncapi.json?a=&quot;b&quot;&amp;c"'))
  })
})

function* references(node: unknown): Generator<string> {
  if (node === null || typeof node !== 'object') return
  for (const [name, value] of Object.entries(node)) {
    if (name === '$ref') yield value as string
    else yield* references(value)
  }
}

function resolve(reference: string): unknown {
  let node: unknown = document
  for (const part of reference.split('/').slice(1)) {
    node = (node as Record<string, unknown> | undefined)?.[part]
  }
  return node
}
