import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { assertInvariantsHold } from './invariants.ts'
import { assertSettled, PATIENT, startBurst } from './order-burst.ts'
import { inFolder, spawnMain, startApart, startProgram, temporaryFolder } from './program.ts'
import { ON_STACK } from './world.ts'

const ALONE =
  'a second program on the same folder exits with the reason, and the first keeps serving'
const skip = ON_STACK && 'separate services have no data folder'

test(skip ? `${ALONE} (skipped: ${skip})` : ALONE, { skip }, async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const first = await startProgram({ DATA_DIR: folder })
  t.after(() => first.close())
  const account = await first.fundedAccount(100)
  const second = spawnMain('apps/all-in-one', inFolder(folder))
  t.after(() => second.kill('SIGKILL'))
  const { code } = await second.ended
  assert.equal(code, 1)
  assert.match(
    second.output(),
    new RegExp(`in use by another Trifold process \\(pid ${process.pid}\\)`),
  )
  await assert.rejects(second.ready)

  const { status, body: id } = await first.order(account)
  assert.equal(status, 201)
  assert.equal((await first.getOrder(account, id)).state, 'APPROVED')
  await assertInvariantsHold(first)
})

const UNREAD = 'a client that does not read its responses does not keep the program from stopping'

test(skip ? `${UNREAD} (skipped: ${skip})` : UNREAD, { skip }, async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const child = spawnMain('apps/all-in-one', inFolder(folder))
  t.after(() => child.kill('SIGKILL'))
  const { hostname, port, host } = new URL((await child.ready).url)
  const client = connect(Number(port), hostname)
  t.after(() => client.destroy())
  const page = '/orders/docs/static/swagger-ui-bundle.js'
  client.write(`GET ${page} HTTP/1.1\r\nhost: ${host}\r\n\r\n`.repeat(20))
  await once(client, 'readable')
  child.kill('SIGTERM')
  const { code } = await child.ended
  assert.equal(code, 0, child.output())
})

for (const [main, faults] of [
  ['apps/all-in-one', { PORT: 'http', INTERACTION_STYLE: 'rpc', LAB: 'perhaps' }],
  ['services/order', { PORT: 'http', INTERACTION_STYLE: 'rpc', DATABASE_CONNECTIONS: '1' }],
  ['services/billing', { PORT: 'http', INTERACTION_STYLE: 'rpc', DATABASE_CONNECTIONS: '1' }],
  ['services/notification', { PORT: 'http', LOG_LEVEL: 'loud', DATABASE_CONNECTIONS: '1' }],
] as const) {
  test(`${main}: rejects an invalid configuration before it starts any part, and names each error`, async () => {
    const child = spawnMain(main, faults)
    assert.equal((await child.ended).code, 2)
    for (const name of Object.keys(faults)) {
      assert.match(child.output(), new RegExp(`^ +${name} must be `, 'm'))
    }
  })
}

test('a program that is stopped in a burst responds to every request that it accepted, and loses no order', async (t) => {
  const apart = await startApart(PATIENT)
  t.after(() => apart.close())
  const { client } = apart
  const before = await client.fundedAccount(12.34)
  const burst = await startBurst(client)
  await burst.answered(2)
  await apart.stop()
  await burst.over

  const trifold = await apart.restart()
  const ids = await assertSettled(trifold, burst)
  // Every accepted request has become an order, so an order without a response is a request without one.
  for (const { answer, account } of burst.sent) {
    const id = answer?.status === 201 ? answer.body : answer?.body.orderId
    if (id) ids.get(account)?.delete(id)
  }
  for (const unanswered of ids.values()) assert.deepEqual([...unanswered], [])
  assert.equal(await trifold.balance(before), 12.34)
  assert.equal((await trifold.messages(before)).length, 1)
  await assertInvariantsHold(trifold)
})
