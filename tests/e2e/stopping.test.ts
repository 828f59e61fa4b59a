import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { assertCleanBooks } from './books.ts'
import { assertSettled, beginBurst, PATIENT } from './order-burst.ts'
import { spawnProgram, startProgram, temporaryFolder } from './program.ts'

const { folder, remove } = await temporaryFolder()
after(remove)

test('a second program on its folder is refused and says why, and the first goes on', async (t) => {
  const first = await startProgram({ DATA_DIR: folder })
  t.after(() => first.close())
  const account = await first.fundedAccount(100)
  const second = spawnProgram(folder)
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
  await assertCleanBooks(first)
})

test('a wrong configuration is refused before anything starts, each fault named', async () => {
  const child = spawnProgram(folder, { PORT: 'http', INTERACTION_STYLE: 'rpc', LAB: 'perhaps' })
  assert.equal((await child.ended).code, 2)
  for (const name of ['PORT', 'INTERACTION_STYLE', 'LAB']) {
    assert.match(child.output(), new RegExp(`^ +${name} must be `, 'm'))
  }
})

test('told to stop in a burst, it answers every request that it took, and keeps all', async (t) => {
  const child = spawnProgram(folder, PATIENT)
  t.after(() => child.kill('SIGKILL'))
  const client = await child.ready
  const before = await client.fundedAccount(12.34)
  const burst = await beginBurst(client)
  await burst.answered(2)
  child.kill('SIGTERM')
  await burst.over
  assert.deepEqual(await child.ended, { code: 0, signal: null }, child.output())

  const trifold = await startProgram({ DATA_DIR: folder })
  t.after(() => trifold.close())
  const ids = await assertSettled(trifold, burst)
  // Whatever was taken has become an order, so an order without an answer is a request without one.
  for (const { answer, account } of burst.sent) {
    const id = answer?.status === 201 ? answer.body : answer?.body.orderId
    if (id) ids.get(account)?.delete(id)
  }
  for (const unanswered of ids.values()) assert.deepEqual([...unanswered], [])
  assert.equal(await trifold.balance(before), 12.34)
  assert.equal((await trifold.messages(before)).length, 1)
  await assertCleanBooks(trifold)
})
