import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readNewman } from './newman.ts'

/** What newman prints, of a request that was repeated so many times. */
function printed(id: string, times: number): string {
  const look = `↳ The message comes
  GET http://127.0.0.1:8000/notification/account/${id} [200 OK, ${times}kB, ${times}ms]
`
  const said = '  ✓  it is there\n'
  return (
    `newman

Trifold acceptance

❏ http
↳ Open an account
  POST http://127.0.0.1:8000/billing/account/create [200 OK, 459B, ${times}ms]
  ✓  the answer is the id

${look}
` +
    `${look}\n`.repeat(times) +
    `${look}${said}
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

test('a run of newman reads the same whatever its ids, times and repetitions were', () => {
  const folders = readNewman(printed(ID, 1))
  assert.deepEqual(
    folders.map(({ name, requests, assertions }) => [name, requests, assertions]),
    [
      ['http', 2, 2],
      ['Bad input', 1, 2],
    ],
  )
  assert.match(folders[0]!.output, /account\/\{id 1\} \[200 OK\]\n {2}✓ {2}it is there/)
  assert.doesNotMatch(folders[1]!.output, /run duration/)
  assert.deepEqual(readNewman(printed(ID.replace('01a', '02b'), 7)), folders)
})
