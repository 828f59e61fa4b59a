import { SERVICES, type ServiceName } from '../simulation/world/lives.ts'
import type { Crossing } from './boundaries.ts'
import type { Site, Sites } from './sites.ts'

/** Sites that no scenario reaches, with the reason. */
export interface Uncrossed {
  /** The services to which the entry applies; all of them if absent. */
  readonly services?: readonly ServiceName[]
  /** The beginning of the sites' names. */
  readonly name: string
  readonly reason: string
}

export const UNCROSSED: readonly Uncrossed[] = [
  {
    name: 'chassis/measured.ts',
    reason: 'measures calls that have boundaries of their own; not used in the simulation',
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
    reason: 'creates the tables, one transaction per migration; runs start with tables in place',
  })),
  {
    name: 'platform/database/database.ts databaseTime',
    reason: 'only the audit reads the time like this',
  },
  {
    name: 'platform/http/client.ts tracedCalls call',
    reason: 'passes on calls that have boundaries of their own; tracing is off in the simulation',
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
    reason: 'part of an orderly shutdown, which a process that dies does not reach',
  },
  {
    services: ['order', 'billing'],
    name: 'messaging/outbox/relay-calls.ts attempt letter',
    reason:
      'only notification writes letters; the calls of other services are boundaries themselves',
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
    reason: 'only billing waits for the first attempt at a call',
  },
  {
    services: ['billing'],
    name: 'chassis/idempotency.ts createIdempotency complete',
    reason: 'billing knows its response when it stores a key',
  },
]

/**
 * Lists the gaps in the matrix: sites without a crash that are not in `uncrossed`, sites in `uncrossed` that
 * had a crash after all, crashes at places that are no site, and entries of `uncrossed` that match no site.
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
    found.push(`${service}: crossed a boundary at ${place}, where readSites found none`)
  }
  const used = new Set<Uncrossed>()
  for (const service of SERVICES) {
    for (const site of sites.get(service)?.values() ?? []) {
      const listed = uncrossed.find((one) => isListed(one, service, site))
      if (listed) used.add(listed)
      const isCrashed = keys.has(`${service} ${site.place}`)
      const where = `${service}: ${site.name} (${site.place})`
      if (!isCrashed && !listed) found.push(`${where} had no crash`)
      if (isCrashed && listed) found.push(`${where} had a crash but is listed as uncrossed`)
    }
  }
  for (const one of uncrossed) {
    if (!used.has(one)) found.push(`no site matches the uncrossed name ${one.name}`)
  }
  return [...new Set(found)]
}

const isListed = ({ services, name }: Uncrossed, service: ServiceName, site: Site) =>
  (services === undefined || services.includes(service)) && site.name.startsWith(name)
