import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { root } from '../../tools/repository-files.ts'
import type { Store } from '../simulation/servers/empty-store.ts'
import { openStore } from '../simulation/servers/store.ts'
import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import type { Planted } from '../simulation/world/world.ts'
import type { Crossing } from './boundaries.ts'
import { gaps, UNCROSSED } from './completeness.ts'
import { type Cell, runCell } from './run.ts'
import { readSites, type Sites } from './sites.ts'

/** A bounded part of what `npm run crash-matrix` does for every boundary. */
const TIMEOUT = { timeout: 300_000 }
const EVENTS: Cell = { scenario: 'approved', style: 'events', instances: 1 }
const HTTP: Cell = { scenario: 'deletion', style: 'http', instances: 1 }

let store: Store
before(async () => {
  store = await openStore()
}, TIMEOUT)
after(() => store.close())

const isAt = (service: ServiceName, phase: string, what: string) => (crossing: Crossing) =>
  crossing.service === service &&
  crossing.phase === phase &&
  [crossing.of, crossing.member].includes(what)

test('an order in events is paid once, wherever a process dies', TIMEOUT, async () => {
  const { crossings } = await runCell(store, EVENTS)
  const where = [
    isAt('order', 'after', 'applyBatch'),
    isAt('order', 'after', 'send'),
    isAt('billing', 'before', 'settleRequests'),
    isAt('billing', 'after', 'settleRequests'),
    isAt('order', 'before', 'commit'),
    isAt('notification', 'after', 'letter'),
  ]
  // The first that order works off is the order that is placed, the last is its outcome.
  const placed = crossings.findIndex(isAt('order', 'after', 'applyBatch'))
  for (const crashAt of [placed, ...where.map((isHere) => crossings.findLastIndex(isHere))]) {
    assert.ok(crashAt >= 0)
    const { deaths, ends, violations, ...again } = await runCell(store, { ...EVENTS, crashAt })
    assert.deepEqual(violations, [])
    assert.deepEqual({ deaths, ends }, { deaths: 1, ends: ['APPROVED'] })
    assert.deepEqual(again.crossings.slice(0, crashAt + 1), crossings.slice(0, crashAt + 1))
  }
})

test('a deleted order in http costs nothing, though its caller dies twice', TIMEOUT, async () => {
  const { crossings } = await runCell(store, HTTP)
  for (const phase of ['before', 'in flight', 'after']) {
    const crashAt = crossings.findIndex(isAt('order', phase, 'call'))
    const { deaths, violations } = await runCell(store, { ...HTTP, crashAt, twice: true })
    assert.deepEqual(violations, [])
    assert.equal(deaths, 2)
  }
})

/** A consumer that is done with messages before they have had their effect. */
const commitsTooEarly: NonNullable<Planted['parts']> = (_, parts) => ({
  ...parts,
  bus: {
    ...parts.bus,
    async subscribe(group, topics) {
      const subscription = await parts.bus.subscribe(group, topics)
      return {
        ...subscription,
        async take() {
          const batches = await subscription.take()
          await subscription.commit(batches)
          return batches
        },
        commit: async () => {},
      }
    },
  },
})

test('offsets that are committed before their transaction are found out', TIMEOUT, async () => {
  const { crossings } = await runCell(store, EVENTS, commitsTooEarly)
  const crashAt = crossings.findLastIndex(isAt('notification', 'before', 'writeMessages'))
  assert.ok(crashAt >= 0)
  const { violations } = await runCell(store, { ...EVENTS, crashAt }, commitsTooEarly)
  // Neither the payment nor the outcome of the order has reached the customer.
  assert.deepEqual(
    violations.map(({ invariant }) => invariant),
    ['I5', 'I5'],
  )
})

let sites: Sites
const everything = () =>
  SERVICES.flatMap((service) =>
    [...sites.get(service)!.values()]
      .filter(
        ({ name }) =>
          !UNCROSSED.some(
            (one) => name.startsWith(one.name) && (one.services ?? SERVICES).includes(service),
          ),
      )
      .map(({ place }) => ({ service, place })),
  )

test('the boundaries are those of the code', TIMEOUT, () => {
  sites = readSites()
  const names = [...sites.get('order')!.values()].map(({ name }) => name)
  for (const name of [
    'services/order/store.ts insertOrders query',
    'services/order/billing-calls.ts billingCalls post call',
    'messaging/outbox/relay-to-broker.ts send send',
    'messaging/consumer/consumer.ts startConsumer commit commit',
    'messaging/consumer/settlement.ts createSettlement attempt transaction',
    'platform/database/notifier.ts createNotifier send notify',
  ]) {
    assert.ok(names.includes(name), name)
  }
  assert.deepEqual(gaps(sites, everything()), [])
})

test('a boundary that nothing crashed at leaves a gap', TIMEOUT, () => {
  for (const left of everything()) {
    const crashed = everything().filter(
      ({ service, place }) => service !== left.service || place !== left.place,
    )
    const found = gaps(sites, crashed)
    assert.equal(found.length, 1)
    assert.match(found[0]!, new RegExp(`^${left.service}: .* was never crashed$`))
  }
})

test('a boundary that is new in the code leaves a gap', TIMEOUT, () => {
  const path = 'services/billing/store.ts'
  const text = readFileSync(join(root, path), 'utf8')
  const added = `${text}\nexport const forget = (db: Queryable) => db.query('delete from payment')\n`
  assert.match(
    gaps(readSites(new Map([[path, added]])), everything()).join(),
    /^billing: services\/billing\/store\.ts forget query \(.*\) was never crashed$/,
  )
})

test('a reason that is not needed, or of nothing, is a gap', TIMEOUT, () => {
  const [first] = everything()
  const { name } = sites.get(first!.service)!.get(first!.place)!
  const needless = { services: [first!.service], name, reason: 'none' }
  assert.match(gaps(sites, everything(), [...UNCROSSED, needless]).join(), /listed as uncrossed$/)
  const void_ = { name: 'services/order/gone.ts', reason: 'none' }
  assert.match(gaps(sites, everything(), [...UNCROSSED, void_]).join(), /nothing in the code/)
})

test('what is done where the code shows no boundary is a gap', TIMEOUT, () => {
  const unseen = { service: 'order', place: 'services/order/order.ts:1:1' } as const
  assert.match(gaps(sites, [...everything(), unseen]).join(), /shows no boundary$/)
})
