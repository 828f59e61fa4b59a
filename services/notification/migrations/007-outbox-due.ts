import { outboxDueIndex } from '../../../messaging/outbox/outbox.ts'
import type { Migration } from '../../../platform/database/migrate.ts'

export const outboxDue: Migration = { id: 7, name: 'outbox due', index: outboxDueIndex }
