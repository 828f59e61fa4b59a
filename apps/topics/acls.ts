import {
  type Acl,
  AclOperations,
  AclPermissionTypes,
  Admin,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka'
import type { ServiceName } from '../../contracts/access.ts'
import { EVENTS } from '../../contracts/events.ts'
import type { KafkaSecurity } from '../../messaging/kafka/security.ts'

/** The topics that each service reads, as the consumer group of its own name. */
const READS: Readonly<Record<ServiceName, readonly string[]>> = {
  order: ['payment'],
  billing: ['billing'],
  notification: ['payment'],
}

/** The topics that each service writes: those of the events that it sends, and the balances. */
const WRITES: Readonly<Record<ServiceName, readonly string[]>> = {
  order: topicsFrom('order'),
  billing: [...topicsFrom('billing'), 'balance'],
  notification: [],
}

function topicsFrom(service: 'order' | 'billing'): string[] {
  const sent = Object.values(EVENTS).filter(({ from }) => from === service)
  return [...new Set(sent.map(({ topic }) => topic))]
}

/**
 * Allows each service, as the Kafka user of its own name, what it needs and nothing else, and returns a sentence about
 * each. Idempotent. The broker needs an authorizer; ACLs that exist are kept.
 */
export async function createAcls(
  brokers: string,
  security: KafkaSecurity | undefined,
): Promise<string[]> {
  const client = { clientId: 'topics', bootstrapBrokers: brokers.split(',') }
  const admin = new Admin({ ...client, ...security })
  try {
    const services = Object.keys(READS) as ServiceName[]
    await admin.createAcls({ creations: services.flatMap(aclsOf) })
    return services.map((service) => {
      const writes = WRITES[service].join(', ') || 'nothing'
      return `user ${service}: may read ${READS[service].join(', ')} and write ${writes}`
    })
  } finally {
    await admin.close()
  }
}

function aclsOf(service: ServiceName): Acl[] {
  const { TOPIC, GROUP } = ResourceTypes
  const { READ, WRITE } = AclOperations
  return [
    allow(service, GROUP, service, READ),
    ...READS[service].map((topic) => allow(service, TOPIC, topic, READ)),
    ...WRITES[service].map((topic) => allow(service, TOPIC, topic, WRITE)),
  ]
}

function allow(
  user: string,
  resourceType: Acl['resourceType'],
  resourceName: string,
  operation: Acl['operation'],
): Acl {
  return {
    resourceType,
    resourceName,
    operation,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: `User:${user}`,
    host: '*',
    permissionType: AclPermissionTypes.ALLOW,
  }
}
