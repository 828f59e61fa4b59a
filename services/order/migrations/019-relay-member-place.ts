import { relayMemberPlace } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const placeOfRelayMember: Migration = {
  id: 19,
  name: 'relay member place',
  sql: relayMemberPlace(SCHEMA),
}
