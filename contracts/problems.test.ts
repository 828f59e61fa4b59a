import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { Fault, PROBLEMS, type ProblemCode, problemBody } from './problems.ts'

const codes = Object.keys(PROBLEMS) as ProblemCode[]

describe('the table of problems', () => {
  test('has codes in upper snake case, each with a unique title', () => {
    for (const code of codes) assert.match(code, /^[A-Z]+(_[A-Z]+)*$/)
    assert.equal(new Set(codes.map((code) => PROBLEMS[code].title)).size, codes.length)
  })

  test('has only error statuses, in ascending order', () => {
    const statuses = codes.map((code) => PROBLEMS[code].status)
    for (const status of statuses) assert.ok(status >= 400 && status <= 599, String(status))
    assert.deepEqual(statuses, statuses.toSorted())
  })

  test('marks a problem retryable unless the caller has to change the request', () => {
    for (const code of codes) {
      const { status, retryable } = PROBLEMS[code]
      // Not retryable, because the order was canceled, and this response is stored under the Idempotency-Key.
      if (code === 'BILLING_UNREACHABLE') assert.ok(!retryable)
      else if (status >= 500 || status === 429) assert.ok(retryable, code)
      else if (status !== 408 && status !== 409) assert.ok(!retryable, code)
    }
  })

  test('matches the list in docs/errors.md exactly', async () => {
    const text = await readFile(new URL('../docs/errors.md', import.meta.url), 'utf8')
    const rows = [...text.matchAll(/^\| `(\w+)` \| (\d+) \| (yes|no) \| (.+) \|$/gm)]
    const listed = rows.map(([, code, status, retryable, title]) => [
      code,
      status,
      retryable,
      title,
    ])
    const expected = codes.map((code) => {
      const { status, retryable, title } = PROBLEMS[code]
      return [code, String(status), retryable ? 'yes' : 'no', title]
    })
    assert.deepEqual(listed, expected)
  })
})

describe('a problem', () => {
  test('is an RFC 9457 body with the code and only the given details', () => {
    assert.deepEqual(problemBody('NOT_ENOUGH_MONEY', { orderId: 'o' }), {
      type: 'urn:trifold:problem:NOT_ENOUGH_MONEY',
      title: 'The account does not have enough money',
      status: 402,
      code: 'NOT_ENOUGH_MONEY',
      retryable: false,
      orderId: 'o',
    })
  })

  test('is thrown as a Fault that keeps its code, details and cause', () => {
    const cause = new Error('ECONNREFUSED')
    const fault = new Fault('BILLING_UNREACHABLE', { detail: 'no answer in 2 s' }, cause)
    assert.ok(fault instanceof Error)
    assert.equal(fault.message, 'no answer in 2 s')
    assert.equal(fault.code, 'BILLING_UNREACHABLE')
    assert.equal(fault.cause, cause)
    assert.equal(new Fault('INTERNAL').message, PROBLEMS.INTERNAL.title)
  })
})
