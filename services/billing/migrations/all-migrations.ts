import { migrations } from './001-initial.ts'
import { deadLetterReplay } from './002-dead-letter-replay.ts'
import { outboxKey } from './003-outbox-key.ts'
import { outboxKeyExpressionIndex } from './004-outbox-key-expression.ts'
import { outboxDue } from './007-outbox-due.ts'
import { idempotencyOwner } from './010-idempotency-owner.ts'
import { deadLetterIdentityIndex } from './013-dead-letter-identity.ts'
import { placeOfRelayMember } from './019-relay-member-place.ts'

/** All migrations, in the order in which they run. */
export const MIGRATIONS = [
  ...migrations,
  deadLetterReplay,
  outboxKey,
  outboxKeyExpressionIndex,
  outboxDue,
  idempotencyOwner,
  deadLetterIdentityIndex,
  placeOfRelayMember,
]

/**
 * The last migration of the previous release. Code that has this migration may still start on the newer
 * schema, so that one release can be rolled back.
 */
export const COMPATIBLE_FROM = 4
