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

// A small sample of the crashes that `npm run crash-matrix` makes.

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

test('charges an order in events once, wherever a process dies', TIMEOUT, async () => {
  const { crossings } = await runCell(store, EVENTS)
  const where = [
    isAt('order', 'after', 'applyCommands'),
    isAt('order', 'after', 'send'),
    isAt('billing', 'before', 'settleRequests'),
    isAt('billing', 'after', 'settleRequests'),
    isAt('order', 'before', 'commit'),
    isAt('notification', 'after', 'letter'),
  ]
  // In the order service, the first call of `workOff` places the order, and the last one writes its outcome.
  const placed = crossings.findIndex(isAt('order', 'after', 'applyCommands'))
  for (const crashAt of [placed, ...where.map((isHere) => crossings.findLastIndex(isHere))]) {
    assert.ok(crashAt >= 0)
    const { deaths, finalStates, violations, ...second } = await runCell(store, {
      ...EVENTS,
      crashAt,
    })
    assert.deepEqual(violations, [])
    assert.deepEqual({ deaths, finalStates }, { deaths: 1, finalStates: ['APPROVED'] })
    assert.deepEqual(second.crossings.slice(0, crashAt + 1), crossings.slice(0, crashAt + 1))
  }
})

test(
  'refunds a deleted order in http, even if the calling process dies twice',
  TIMEOUT,
  async () => {
    const { crossings } = await runCell(store, HTTP)
    for (const phase of ['before', 'in flight', 'after']) {
      const crashAt = crossings.findIndex(isAt('order', phase, 'call'))
      const { deaths, violations } = await runCell(store, { ...HTTP, crashAt, twice: true })
      assert.deepEqual(violations, [])
      assert.equal(deaths, 2)
    }
  },
)

/** A planted bug: the consumer commits offsets as soon as it takes messages. */
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

test('detects offsets that are committed before their transaction', TIMEOUT, async () => {
  const { crossings } = await runCell(store, EVENTS, commitsTooEarly)
  const crashAt = crossings.findLastIndex(isAt('notification', 'before', 'applyCommands'))
  assert.ok(crashAt >= 0)
  const { violations } = await runCell(store, { ...EVENTS, crashAt }, commitsTooEarly)
  // The customer has no notice of the payment or of the outcome of the order.
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

test('reads the boundaries from the code', TIMEOUT, () => {
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

test('reports a boundary without a crash as a gap', TIMEOUT, () => {
  for (const omitted of everything()) {
    const crashed = everything().filter(
      ({ service, place }) => service !== omitted.service || place !== omitted.place,
    )
    const found = gaps(sites, crashed)
    assert.equal(found.length, 1)
    assert.match(found[0]!, new RegExp(`^${omitted.service}: .* had no crash$`))
  }
})

test('reports a new boundary in the code as a gap', TIMEOUT, () => {
  const path = 'services/billing/store.ts'
  const text = readFileSync(join(root, path), 'utf8')
  const added = `${text}\nexport const forget = (db: Queryable) => db.query('delete from payment')\n`
  assert.match(
    gaps(readSites(new Map([[path, added]])), everything()).join(),
    /^billing: services\/billing\/store\.ts forget query \(.*\) had no crash$/,
  )
})

test('reports an uncrossed entry that had a crash, or matches no site, as a gap', TIMEOUT, () => {
  const [first] = everything()
  const { name } = sites.get(first!.service)!.get(first!.place)!
  const needless = { services: [first!.service], name, reason: 'none' }
  assert.match(gaps(sites, everything(), [...UNCROSSED, needless]).join(), /listed as uncrossed$/)
  const unmatched = { name: 'services/order/gone.ts', reason: 'none' }
  assert.match(gaps(sites, everything(), [...UNCROSSED, unmatched]).join(), /no site matches/)
})

test('reports a crash at a place that is no site as a gap', TIMEOUT, () => {
  const unknown = { service: 'order', place: 'services/order/order.ts:1:1' } as const
  assert.match(gaps(sites, [...everything(), unknown]).join(), /where readSites found none$/)
})
