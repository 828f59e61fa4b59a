import { outboxKeyIndex } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const outboxKey: Migration = {
  id: 3,
  name: 'outbox key',
  sql: outboxKeyIndex(SCHEMA),
}
