import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { openBenchStack } from '../../instruments/bench/bench-stack.ts'
import { markBooks } from '../../instruments/bench/books.ts'
import { ACCEPT } from '../../instruments/bench/rows/accept.ts'
import { EVENTS, openShop } from '../../instruments/bench/rows/flow.ts'
import { SERVICES } from '../../tools/stack/options.ts'
import { temporaryFolder } from '../e2e/program.ts'

/** The orders that one contest of the benchmark leaves behind must not count in the next one. */

const { folder, remove } = await temporaryFolder()
const stack = await openBenchStack(() => undefined, folder)
after(async () => {
  await stack.close()
  await remove()
})

const PACE = { seconds: 1, rounds: 1, quick: true }
/** Orders that are still pending would be resent within the test. */
const IMPATIENT = { RESEND_AFTER_MS: '100' }

test('discards the orders that a contest leaves pending before the next one starts', async () => {
  const contest = await ACCEPT.open(stack, PACE)
  assert.ok((await contest.ours()).figure > 0)
  await contest.close()
  await stack.serve(SERVICES, IMPATIENT)
  await stack.rest()
  const { orderNumber, payments } = await markBooks(stack.urls)
  assert.deepEqual({ orderNumber, payments }, { orderNumber: 0n, payments: 0n })
  await stack.serve([])
})

test('records starting counts only when earlier orders are settled and announced', async () => {
  const shop = await openShop(stack)
  await stack.openBooks(EVENTS.accounts)
  const { accepted } = await shop.order(EVENTS, PACE)
  assert.ok(accepted > 0)
  await stack.openBooks(EVENTS.accounts)
  const before = await markBooks(stack.urls)
  await stack.rest()
  assert.deepEqual(await markBooks(stack.urls), before)
  await shop.close()
})
