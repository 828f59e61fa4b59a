import { topicIncarnationTable } from '../../../messaging/consumer/incarnations.ts'
import { deadLetterIdentity } from '../../../messaging/dead-letters/dead-letters.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const deadLetterIdentityIndex: Migration = {
  id: 13,
  name: 'dead letter identity',
  sql: topicIncarnationTable(SCHEMA) + deadLetterIdentity(SCHEMA),
}
