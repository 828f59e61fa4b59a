import { outboxKeyExpression } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const outboxKeyExpressionIndex: Migration = {
  id: 6,
  name: 'outbox key expression',
  sql: outboxKeyExpression(SCHEMA),
}
