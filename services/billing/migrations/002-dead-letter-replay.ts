import { deadLetterReplayColumns } from '../../../messaging/dead-letters/dead-letters.ts'
import type { Migration } from '../../../platform/database/migrate.ts'
import { SCHEMA } from './001-initial.ts'

export const deadLetterReplay: Migration = {
  id: 2,
  name: 'dead letter replay',
  sql: deadLetterReplayColumns(SCHEMA),
}
