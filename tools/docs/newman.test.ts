import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readNewman } from './newman.ts'

/** The output of newman, with a request that was repeated `times` times. */
function outputOf(id: string, times: number): string {
  const read = `↳ The message comes
  GET http://127.0.0.1:8000/notification/account/${id} [200 OK, ${times}kB, ${times}ms]
`
  const passed = '  ✓  it is there\n'
  return (
    `newman

Trifold acceptance

❏ http
↳ Open an account
  POST http://127.0.0.1:8000/billing/account/create [200 OK, 459B, ${times}ms]
  ✓  the answer is the id

${read}
` +
    `${read}\n`.repeat(times) +
    `${read}${passed}
❏ Bad input
↳ An order of nobody
  POST http://127.0.0.1:8000/orders [400 Bad Request, 1B, 1ms]
  ✓  it is refused
  ✓  by its code

┌─────────────────────────┬
│ total run duration: ${times}ms
`
  )
}

const ID = '01a20dcd-d325-7e5c-bb2d-613cff425da2'

test('runs that differ only in ids, times and repetitions are read the same', () => {
  const folders = readNewman(outputOf(ID, 1))
  assert.deepEqual(
    folders.map(({ name, requests, assertions }) => [name, requests, assertions]),
    [
      ['http', 2, 2],
      ['Bad input', 1, 2],
    ],
  )
  assert.match(folders[0]!.output, /account\/\{id 1\} \[200 OK\]\n {2}✓ {2}it is there/)
  assert.doesNotMatch(folders[1]!.output, /run duration/)
  assert.deepEqual(readNewman(outputOf(ID.replace('01a', '02b'), 7)), folders)
})
