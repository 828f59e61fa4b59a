import { idempotencyOwnerColumn } from '../../../chassis/idempotency.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const idempotencyOwner: Migration = {
  id: 10,
  name: 'idempotency owner',
  sql: idempotencyOwnerColumn(SCHEMA),
}
