import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import type { Crossing } from './boundaries.ts'
import type { Site, Sites } from './sites.ts'

/** Places that no scenario comes to, each with its reason. */
export interface Uncrossed {
  /** Of all services unless some are named. */
  readonly services?: readonly ServiceName[]
  /** The beginning of names of sites. */
  readonly name: string
  readonly reason: string
}

export const UNCROSSED: readonly Uncrossed[] = [
  {
    name: 'chassis/measured.ts',
    reason: 'takes the time of a call whose place is a boundary itself; it is not used here',
  },
  ...[
    'migrate transaction',
    'findPending transaction',
    'createTable',
    'apply',
    'takeTurn',
    'buildIndex',
    'setLocal',
  ].map((name) => ({
    name: `platform/database/migrate.ts ${name}`,
    reason: 'makes the tables, each migration in one transaction; runs begin with tables',
  })),
  {
    name: 'platform/database/database.ts databaseTime',
    reason: 'only the audit asks for the time in this way',
  },
  {
    name: 'platform/http/client.ts tracedCalls call',
    reason: 'passes on a call whose place is a boundary itself; nothing is traced here',
  },
  {
    services: ['order', 'billing'],
    name: 'messaging/outbox/outbox.ts createOutbox forget',
    reason: 'only notification forgets an account',
  },
  {
    services: ['order', 'billing'],
    name: 'messaging/dead-letters/dead-letters.ts removeLettersOf',
    reason: 'only notification forgets an account',
  },
  {
    name: 'messaging/outbox/lanes.ts holdLanes close',
    reason: 'belongs to an orderly end; whoever dies before it has not ended in order',
  },
  {
    services: ['order', 'billing'],
    name: 'messaging/outbox/relay-calls.ts attempt letter',
    reason: 'only notification writes letters; the calls of the others are boundaries themselves',
  },
  {
    services: ['notification'],
    name: 'messaging/outbox/relay-to-broker.ts send send',
    reason: 'notification sends nothing to the broker',
  },
  {
    services: ['notification'],
    name: 'messaging/outbox/outbox.ts createOutbox takeForBroker',
    reason: 'notification sends nothing to the broker',
  },
  {
    services: ['order', 'notification'],
    name: 'messaging/outbox/outbox.ts createOutbox unattempted',
    reason: 'only billing waits for the first try of a call',
  },
  {
    services: ['billing'],
    name: 'chassis/idempotency.ts createIdempotency complete',
    reason: 'billing knows its answer when it stores a key',
  },
]

/**
 * What keeps the matrix from being complete: places in the code that nothing crashed at and that are
 * not listed, places that are listed and were come to all the same, and places that the code does
 * not show.
 */
export function gaps(
  sites: Sites,
  crashed: Iterable<Pick<Crossing, 'service' | 'place'>>,
  uncrossed: readonly Uncrossed[] = UNCROSSED,
): string[] {
  const keys = new Set<string>()
  const found: string[] = []
  for (const { service, place } of crashed) {
    keys.add(`${service} ${place}`)
    if (sites.get(service)?.has(place)) continue
    found.push(`${service}: something is done at ${place}, where the code shows no boundary`)
  }
  const used = new Set<Uncrossed>()
  for (const service of SERVICES) {
    for (const site of sites.get(service)?.values() ?? []) {
      const listed = uncrossed.find((one) => isListed(one, service, site))
      if (listed) used.add(listed)
      const isCrashed = keys.has(`${service} ${site.place}`)
      const where = `${service}: ${site.name} (${site.place})`
      if (!isCrashed && !listed) found.push(`${where} was never crashed`)
      if (isCrashed && listed) found.push(`${where} was crashed, though it is listed as uncrossed`)
    }
  }
  for (const one of uncrossed) {
    if (!used.has(one)) found.push(`nothing in the code is named ${one.name}, as a reason says`)
  }
  return [...new Set(found)]
}

const isListed = ({ services, name }: Uncrossed, service: ServiceName, site: Site) =>
  (services === undefined || services.includes(service)) && site.name.startsWith(name)
