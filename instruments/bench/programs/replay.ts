import type { Queryable } from '../../../platform/database/database.ts'
import { locksAccount, PRICE_MINOR, type Recording, roleOf, type Statement } from './recording.ts'

/** An order for which recorded transactions are run again. */
export interface OtherOrder {
  /** Replace the ids of the recording. */
  readonly ids: readonly string[]
  readonly account: string
  locked?: { readonly version: number; readonly balanceMinor: bigint }
}

export function newOrder(recording: Recording, account: string, newId: () => string): OtherOrder {
  return { ids: recording.ids.map(newId), account }
}

/** Runs the statements of one transaction; the caller begins and commits it. */
export async function replay(
  db: Queryable,
  statements: readonly Statement[],
  recording: Recording,
  order: OtherOrder,
): Promise<void> {
  for (const { text, params } of statements) {
    const values = params.map((value) => valueFor(value, recording, order))
    const rows = await db.query<NonNullable<OtherOrder['locked']>>(text, values)
    if (locksAccount(text)) order.locked = rows[0]!
  }
}

function valueFor(value: unknown, recording: Recording, order: OtherOrder): unknown {
  if (Array.isArray(value)) return value.map((one) => valueFor(one, recording, order))
  const role = roleOf(value, recording)
  switch (role?.kind) {
    case undefined:
      return value
    case 'id':
      return `${order.ids[role.place]}${role.suffix}`
    case 'account':
      return `${order.account}${role.suffix}`
    case 'newVersion':
      return order.locked!.version + 1
    case 'newBalance':
      return order.locked!.balanceMinor - PRICE_MINOR
  }
}
