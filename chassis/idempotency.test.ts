import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import type { Queryable } from '../platform/database/database.ts'
import { migrate } from '../platform/database/migrate.ts'
import { openTestDatabase } from '../tests/support/backends.ts'
import { createClock } from '../tests/support/harness.ts'
import {
  createIdempotency,
  idempotencyOwnerColumn,
  idempotencyTable,
  keyedRequest,
  keysOf,
  lookUp,
  repeatResult,
  sendStored,
} from './idempotency.ts'

const database = await openTestDatabase()
after(() => database.close())
await migrate(database, 'keys', [
  { id: 1, name: 'initial', sql: idempotencyTable('keys') },
  { id: 2, name: 'owner', sql: idempotencyOwnerColumn('keys') },
])
const idempotency = createIdempotency('keys')
const clock = createClock({ frozen: true, database })
const created = { status: 201, body: '"an id"' }

const remember = (key: string, response: typeof created | null, request = 'POST /orders') =>
  database.transaction((tx) => idempotency.remember(tx, [{ key, owner: '', request, response }]))
const find = async (key: string) => (await idempotency.find(database, [key])).get(key)

describe('a stored key', () => {
  test('is found with its response when several known and unknown keys are read', async () => {
    await remember('a1', created)
    await remember('a2', null)
    const found = await idempotency.find(database, ['a1', 'a2', 'a3'])
    assert.deepEqual([...found.keys()].sort(), ['a1', 'a2'])
    assert.deepEqual(found.get('a1'), {
      key: 'a1',
      owner: '',
      request: 'POST /orders',
      response: created,
    })
    assert.equal(found.get('a2')?.response, null)
  })

  test('causes a conflict if it is stored again, alone or with other keys, and stays unchanged', async () => {
    await remember('b1', created)
    await assert.rejects(remember('b1', null), { name: 'DatabaseError', kind: 'conflict' })
    const both = database.transaction((tx) =>
      idempotency.remember(
        tx,
        ['b2', 'b1'].map((key) => ({ key, owner: '', request: 'other {}', response: null })),
      ),
    )
    await assert.rejects(both, { kind: 'conflict' })
    assert.deepEqual((await find('b1'))?.response, created)
    assert.equal(await find('b2'), undefined)
  })

  test('gets its response once the outcome is known, and keeps the first response', async () => {
    await remember('c1', null)
    const refused = { status: 402, body: '{"code":"NOT_ENOUGH_MONEY"}' }
    await idempotency.complete(database, [{ key: 'c1', ...refused }])
    assert.deepEqual((await find('c1'))?.response, refused)
    await idempotency.complete(database, [
      { key: 'c1', ...created },
      { key: 'unknown', ...created },
    ])
    assert.deepEqual((await find('c1'))?.response, refused)
    assert.equal(await find('unknown'), undefined)
  })

  test('is deleted after it expires, and can then be used again', async () => {
    await remember('d1', created)
    clock.advance(1)
    await remember('d2', created)
    clock.advance(1_000)
    await idempotency.expire(database, 1_000)
    assert.equal(await find('d1'), undefined)
    assert.notEqual(await find('d2'), undefined)
    await remember('d1', null)
  })

  test('is deleted in batches, however many keys have expired', async () => {
    const keys = Array.from({ length: 4_100 }, (_, n) => ({
      key: `many-${n}`,
      owner: '',
      request: 'r {}',
      response: created,
    }))
    await database.transaction((tx) => idempotency.remember(tx, keys))
    clock.advance(2_000)
    const deleted: number[] = []
    const counting: Queryable = {
      query: async <Row>(text: string, params?: readonly unknown[]) => {
        const rows = await database.query<Row & { deleted: number }>(text, params)
        deleted.push(rows[0]!.deleted)
        return rows
      },
    }
    await idempotency.expire(counting, 1_000)
    assert.ok(Math.max(...deleted) <= 2_000, deleted.join())
    assert.equal(await find('many-4099'), undefined)
  })

  test('is not stored when its transaction fails', async () => {
    const failed = database.transaction(async (tx) => {
      await idempotency.remember(tx, [{ key: 'e1', owner: '', request: 'r {}', response: created }])
      throw new Error('after all not')
    })
    await assert.rejects(failed, /after all not/)
    assert.equal(await find('e1'), undefined)
  })
})

describe('a repeated request', () => {
  const first = keyedRequest('k', 'POST /orders', { profileId: 'p', productQuantity: 3 })!

  test('is the same whatever the order of its fields', () => {
    const again = keyedRequest('k', 'POST /orders', { productQuantity: 3, profileId: 'p' })
    assert.deepEqual(again, first)
  })

  test('is a different request if its content or call differs', () => {
    const others = [
      keyedRequest('k', 'POST /orders', { profileId: 'p', productQuantity: 4 }),
      keyedRequest('k', 'POST /orders', { profileId: 'p' }),
      keyedRequest('k', 'POST /payments', { profileId: 'p', productQuantity: 3 }),
    ]
    for (const other of others) assert.notEqual(other?.request, first.request)
  })

  test('without a key is not stored', () => {
    assert.equal(keyedRequest(undefined, 'POST /orders', {}), undefined)
  })

  test('gets the stored response', () => {
    const { request } = first
    assert.deepEqual(repeatResult(first, { request, response: created }), {
      kind: 'repeated',
      response: created,
    })
  })

  const code = (stored: Parameters<typeof repeatResult>[1]) => {
    const repetition = repeatResult(first, stored)
    return repetition.kind === 'refused' ? repetition.fault.code : undefined
  }

  test('is rejected while the first request is in progress', () => {
    assert.equal(code({ request: first.request, response: null }), 'IDEMPOTENCY_KEY_IN_PROGRESS')
  })

  test('is rejected if its content differs, with or without a stored response', () => {
    for (const response of [null, created]) {
      assert.equal(code({ request: 'another {}', response }), 'IDEMPOTENCY_KEY_REUSED')
    }
  })
})

describe('the owner of a key', () => {
  const of = (owner: string, key: string) =>
    keyedRequest(key, 'POST /orders', { profileId: owner, productQuantity: 3 })!
  const find = (request: ReturnType<typeof of>) => idempotency.find(database, keysOf(request))

  test('gets the response to its own request, even if another owner uses the same key', async () => {
    const [anna, boris] = [of('anna', 'shared'), of('boris', 'shared')]
    await idempotency.remember(database, [{ ...anna, response: created }])
    const found = lookUp(await find(boris), boris)
    assert.equal(found.stored, undefined)
    const refused = { status: 402, body: '{}' }
    await idempotency.remember(database, [{ ...found.keyed, response: refused }])
    assert.deepEqual(lookUp(await find(boris), boris).stored?.response, refused)
    assert.deepEqual(lookUp(await find(anna), anna).stored?.response, created)
  })

  test('is derived from the request if the previous version stored the key without an owner', async () => {
    const [anna, boris] = [of('anna', 'older'), of('boris', 'older')]
    await database.query(
      `insert into keys.idempotency (key, request, status, body, created)
       values ($1, $2, 201, '"an id"', now())`,
      [anna.key, anna.request],
    )
    assert.deepEqual(lookUp(await find(anna), anna).stored?.response, created)
    assert.equal(lookUp(await find(boris), boris).stored, undefined)
  })
})

test('requests that write the same amount differently count as the same request', () => {
  const deposit = (amount: string) => keyedRequest('k', 'POST deposit', { accountId: 'a', amount })!
  for (const amount of ['1', '1.0', '1.00']) {
    const { request } = deposit(amount)
    assert.equal(repeatResult(deposit('1.0'), { request, response: created }).kind, 'repeated')
  }
  assert.equal(
    repeatResult(deposit('1'), { ...deposit('1.01'), response: created }).kind,
    'refused',
  )
})

test('a stored response is sent byte for byte', () => {
  const send = (response: { status: number; body: string }) => {
    const sent: Record<string, unknown> = {}
    sendStored(
      {
        code: (status) => (sent.status = status),
        type: (name) => (sent.type = name),
        send: (body) => (sent.body = body),
      },
      response,
    )
    return sent
  }
  const json = 'application/json; charset=utf-8'
  assert.deepEqual(send(created), { status: 201, type: json, body: '"an id"' })
  // Fastify adds a charset to the content type of a string, but not to that of bytes.
  const type = 'application/problem+json'
  const bytes = (body: string) => new TextEncoder().encode(body)
  const poor = { status: 402, body: '{"retryable":false}' }
  assert.deepEqual(send(poor), { ...poor, body: bytes(poor.body), type })
})
