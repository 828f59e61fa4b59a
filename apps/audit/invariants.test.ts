import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { type InteractionStyle, STYLES } from '../../contracts/style.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import type { Queryable } from '../../platform/database/database.ts'
import { eventually } from '../../tests/e2e/client.ts'
import { startProgram } from '../../tests/e2e/program.ts'
import { type AuditInput, INVARIANTS, type Letter, type Violation } from './findings.ts'
import { audit } from './invariants.ts'
import { lettersIn } from './maildir.ts'

const trifold = await startProgram()
after(() => trifold.close())
const { orders: database } = trifold.databases

interface Flow {
  readonly account: string
  readonly paid: string
  readonly refused: string
  readonly refunded: string
}

const flows = {} as Record<InteractionStyle, Flow>
for (const style of STYLES) flows[style] = await run(style)
await eventually(async () => assert.deepEqual(await within([]), []))
const letters = await lettersIn(trifold.maildir)

describe('the data of a settled program', () => {
  test('satisfies every invariant, and each invariant is checked on some rows', async () => {
    const checked = new Set<string>()
    const input = { ...inOne(database), letters, settled: true }
    assert.deepEqual(
      await audit(input, (invariant, count) => count > 0 && checked.add(invariant)),
      [],
    )
    assert.deepEqual([...checked].sort(), Object.keys(INVARIANTS))
    assert.ok(letters.length > 0)
  })

  test('satisfies the invariants even if the log and the letters cannot be read', async () => {
    const { bus: _, ...input } = inOne(database)
    assert.deepEqual(await audit(input), [])
    assert.deepEqual(await audit({ ...input, settled: true }), [])
  })
})

const CHECKS_OF_TRANSFER = `
alter table billing.transfer drop constraint transfer_check, drop constraint transfer_check1,
  drop constraint transfer_check2`

describe('broken data', () => {
  const { events, http, hybrid } = flows

  breaking('a balance that is not the sum of its entries', 'I1', [
    ['update billing.account set balance_minor = balance_minor + 1 where id = $1', events.account],
  ])
  breaking('a pending amount that was not requested', 'I1', [
    ['update billing.account set pending_minor = 1 where id = $1', events.account],
  ])
  breaking('a version that is missing from the ledger', 'I1', [
    [
      'update billing.transfer set version = version + 1 where account_id = $1 and version = 4',
      http.account,
    ],
    ['update billing.account set version = version + 1 where id = $1', http.account],
  ])
  breaking('a balance in the ledger that does not follow from the previous one', 'I1', [
    [
      `update billing.transfer set balance_after_minor = balance_after_minor + 1
      where account_id = $1 and version = 2`,
      http.account,
    ],
  ])
  breaking('a transfer between the wrong sides', 'I1', [
    [
      `update billing.transfer set debit = 'revenue' where account_id = $1 and version = 1`,
      http.account,
    ],
  ])
  breaking('a transfer with only one side', 'I1', [
    [CHECKS_OF_TRANSFER],
    [
      `update billing.transfer set debit = 'customer' where account_id = $1 and version = 1`,
      http.account,
    ],
  ])

  breaking('a second debit for an order', 'I2', [
    [
      `with paid as (
        insert into billing.transfer select account_id, 5, kind, debit, credit, amount_minor,
          balance_after_minor - amount_minor, order_id, deposit_id, created
        from billing.transfer where order_id = $1
        returning account_id, version, balance_after_minor)
      update billing.account a set balance_minor = p.balance_after_minor, version = p.version
      from paid p where a.id = p.account_id`,
      hybrid.paid,
    ],
  ])
  breaking('a payment that took no money', 'I2', [
    [`update billing.payment set state = 'PAID' where order_id = $1`, hybrid.refused],
    [`update orders.orders set state = 'APPROVED' where id = $1`, hybrid.refused],
    [
      `update notification.message set event = 'ORDER_PAID', event_id = $1 where event_id = $2`,
      `${hybrid.refused}/ORDER_PAID`,
      `${hybrid.refused}/PAYMENT_FAIL`,
    ],
  ])
  breaking('a payment whose amount differs from the amount taken', 'I2', [
    ['update billing.payment set amount_minor = amount_minor + 1 where order_id = $1', http.paid],
    ['update orders.orders set price_minor = price_minor + 1 where id = $1', http.paid],
  ])
  breaking('a deposit that is in the account but was never applied', 'I2', [
    [
      `insert into billing.deposit (id, account_id, amount_minor, state, style, ask_at, created)
      select deposit_id || '2', account_id, amount_minor, 'APPLIED', 'http', created, created
      from billing.transfer where account_id = $1 and version = 1`,
      http.account,
    ],
    [
      `update billing.transfer set deposit_id = deposit_id || '2'
      where account_id = $1 and version = 1`,
      http.account,
    ],
    [
      `update notification.message set event_id = replace(event_id, '/', '2/')
      where account_id = $1 and event = 'DEPOSIT_ACCEPTED'`,
      http.account,
    ],
    [
      `delete from billing.deposit where account_id = $1 and id || '2' in
      (select id from billing.deposit)`,
      http.account,
    ],
    [
      'update billing.deposit set amount_minor = amount_minor + 1 where account_id = $1',
      http.account,
    ],
  ])

  breaking('an approved order that was not paid', 'I3', [
    [`update orders.orders set state = 'APPROVED', reason = null where id = $1`, http.refused],
  ])
  breaking('an approved order whose payment was refunded', 'I3', [
    [`update orders.orders set state = 'APPROVED', reason = null where id = $1`, http.refunded],
  ])
  breaking('a canceled order that was paid', 'I3', [
    [`update orders.orders set state = 'CANCELED', reason = 'DELETED' where id = $1`, events.paid],
  ])
  breaking('an order whose price differs from the amount paid', 'I3', [
    ['update orders.orders set price_minor = price_minor + 1 where id = $1', events.paid],
  ])

  breaking('a pending order that is not in the table watch', 'I4', [
    [`update orders.orders set state = 'PENDING', reason = null where id = $1`, http.refused],
  ])

  breaking('a payment that was not announced', 'I5', [
    ['delete from notification.message where event_id = $1', `${http.paid}/ORDER_PAID`],
  ])
  breaking('a refund that was not announced', 'I5', [
    ['delete from notification.message where event_id = $1', `${events.refunded}/PAYMENT_REFUNDED`],
  ])
  breaking('a refusal that was not announced', 'I5', [
    ['delete from notification.message where event_id = $1', `${hybrid.refused}/PAYMENT_FAIL`],
  ])
  breaking('an unreachable billing service that the order service did not announce', 'I5', [
    ['delete from billing.payment where order_id = $1', hybrid.refused],
    ['delete from notification.message where event_id = $1', `${hybrid.refused}/PAYMENT_FAIL`],
    [`update orders.orders set reason = 'BILLING_UNREACHABLE' where id = $1`, hybrid.refused],
  ])
  breaking('a message about a payment that was never made', 'I5', [
    [
      `update notification.message set event_id = $1 where event_id = $2`,
      `${systemRuntime.uuid()}/PAYMENT_FAIL`,
      `${http.refused}/PAYMENT_FAIL`,
    ],
    ['delete from billing.payment where order_id = $1', http.refused],
  ])
  breaking('a message to an account that did not pay', 'I5', [
    [
      'update notification.message set account_id = $1 where event_id = $2',
      systemRuntime.uuid(),
      `${http.paid}/ORDER_PAID`,
    ],
  ])

  breaking('a refund that was announced before its payment', 'I6', [
    [
      `update notification.message set event = 'PAYMENT_REFUNDED', event_id = 'x' where event_id = $1`,
      `${events.refunded}/ORDER_PAID`,
    ],
    [
      `update notification.message set event = 'ORDER_PAID', event_id = $1 where event_id = $2`,
      `${events.refunded}/ORDER_PAID`,
      `${events.refunded}/PAYMENT_REFUNDED`,
    ],
    [
      `update notification.message set event_id = $1 where event_id = 'x'`,
      `${events.refunded}/PAYMENT_REFUNDED`,
    ],
  ])

  breaking('two messages of an account with the same time', 'I7', [
    [
      `update notification.message m set created = p.created
      from notification.message p where p.event_id = $1 and m.event_id = $2`,
      `${http.paid}/ORDER_PAID`,
      `${http.refused}/PAYMENT_FAIL`,
    ],
  ])
  breaking('a second message about an event', 'I7', [
    ['alter table notification.message drop constraint message_event_id_key'],
    [
      `insert into notification.message (id, event_id, account_id, event, text, created)
      select $1::uuid, event_id, account_id, event, text, created + interval '1 hour'
      from notification.message where event_id = $2`,
      systemRuntime.uuid(),
      `${http.paid}/ORDER_PAID`,
    ],
  ])
  breaking('a letter that was delivered twice', 'I7', [], [...letters, letters[0]!])
  breaking(
    'a letter of no message',
    'I7',
    [],
    [{ messageId: `<${systemRuntime.uuid()}@trifold>`, recipient: 'a@b.example' }],
  )

  breaking('an order that another account paid', 'I8', [
    ['update orders.orders set profile_id = $1 where id = $2', systemRuntime.uuid(), http.paid],
  ])

  breaking('a row that is left in an outbox', 'I9', [
    [
      `insert into billing.outbox (carrier, lane, destination, key, event_id, body, headers, created, due)
      values ('http', 0, '/notification/', 'k', 'e', '', '{}', $1, $1)`,
      new Date(),
    ],
  ])
  breaking('an Idempotency-Key without a response', 'I9', [
    [
      `insert into orders.idempotency (key, request, created) values ('k', 'POST /orders {}', $1)`,
      new Date(),
    ],
  ])
  breaking('a deposit that stays requested', 'I9', [
    [
      `insert into billing.deposit (id, account_id, amount_minor, state, style, ask_at, created)
      values ('d', $1, 100, 'REQUESTED', 'events', $2, $2)`,
      http.account,
      new Date(),
    ],
    ['update billing.account set pending_minor = 100 where id = $1', http.account],
  ])
  breaking('a log with messages that a group has not read', 'I9', [
    [
      `update bus.partition set next_offset = next_offset + 1 where topic = 'payment' and partition = 0`,
    ],
  ])
  breaking('the lease of a relay that died', 'I9', [
    [
      'insert into billing.relay_member (id, until) values ($1, $2)',
      systemRuntime.uuid(),
      new Date(0),
    ],
  ])

  test('a dead letter violates I9, with its position and reason', async () => {
    const violations = await within([
      [
        `insert into orders.dead_letter (id, source, topic, partition, "offset", headers, code, reason, created)
        values ($1, 'broker', 'payment', 3, 17, '{}', 'UNREADABLE', 'no JSON', $2)`,
        systemRuntime.uuid(),
        new Date(),
      ],
    ])
    assert.deepEqual(violations, [
      {
        invariant: 'I9',
        subject: 'dead letter payment/3/17',
        sentence: 'was stored by orders, UNREADABLE: no JSON',
      },
    ])
  })
})

describe('data while work is in flight', () => {
  const { events, http } = flows
  const unheard = [
    'delete from notification.message where event_id = $1',
    `${events.paid}/ORDER_PAID`,
  ] as const
  const inFlight = { settled: false }

  test('may have an announcement that is still in an outbox', async () => {
    const waiting = [
      `
insert into billing.outbox (carrier, lane, destination, key, event_id, body, headers, created, due)
values ('broker', 0, 'payment', 'k', $1, '', '{}', $2, $2)`,
      `${events.paid}/ORDER_PAID`,
      new Date(),
    ] as const
    assert.deepEqual(await within([unheard, waiting], inFlight), [])
    assert.deepEqual(named(await within([unheard], inFlight)), ['I5'])
  })

  test('may have an announcement that is in the log and has not been read yet', async () => {
    const unread = [
      `
update bus.group_offset set next_offset = 0 where group_name = 'notification'`,
    ] as const
    assert.deepEqual(await within([unheard, unread], inFlight), [])
  })

  test('may have a refund that the order service has not been notified of yet', async () => {
    const unaware = [
      `update orders.orders set state = 'APPROVED', reason = null where id = $1`,
      http.refunded,
    ] as const
    assert.deepEqual(await within([unaware], inFlight), [])
  })

  test('may have pending orders until a minute past their deadline', async () => {
    const pending = (deadline: number): Break[] => [
      [`update orders.orders set state = 'PENDING', reason = null where id = $1`, http.refused],
      [
        'insert into orders.watch (order_id, ask_at, deadline) values ($1, $2, $2)',
        http.refused,
        new Date(deadline),
      ],
    ]
    assert.deepEqual(await within(pending(Date.now() - 30_000), inFlight), [])
    assert.deepEqual(named(await within(pending(Date.now() - 90_000), inFlight)), ['I4'])
  })
})

/** An SQL statement and its parameters. */
type Break = readonly [text: string, ...params: unknown[]]

function breaking(
  what: string,
  invariant: keyof typeof INVARIANTS,
  breaks: readonly Break[],
  found?: readonly Letter[],
): void {
  test(`${what} violates only ${invariant}`, async () => {
    const violations = await within(breaks, found && { letters: found })
    assert.deepEqual(named(violations), [invariant], JSON.stringify(violations, null, 1))
  })
}

const named = (violations: readonly Violation[]) => [
  ...new Set(violations.map(({ invariant }) => invariant)),
]

/** Makes these changes, returns the violations that the audit finds, and rolls the changes back. */
async function within(
  breaks: readonly Break[],
  given: Partial<AuditInput> = {},
): Promise<readonly Violation[]> {
  let violations: readonly Violation[] = []
  const undo = new Error('taken back')
  await assert.rejects(
    database.transaction(async (tx) => {
      for (const [text, ...params] of breaks) await tx.query(text, params)
      violations = await audit({ ...inOne(tx), settled: true, ...given })
      throw undo
    }),
    undo,
  )
  return violations
}

function inOne(db: Queryable): AuditInput {
  return { orders: db, billing: db, notification: db, bus: db, now: Date.now() }
}

/** Runs in one style: a deposit, an order that is refunded, an order that is refused, and an order that is paid. */
async function run(style: InteractionStyle): Promise<Flow> {
  const account = await trifold.createAccount()
  const json = { email: `${style}@b.example` }
  await trifold.read(`/notification/contact/${account}`, { json }, 'PUT')
  await trifold.deposit(account, 199, style)
  await eventually(async () => assert.equal(await trifold.balance(account), 199))
  const order = async (quantity: number) => {
    const { body } = await trifold.order(account, { style, quantity, key: systemRuntime.uuid() })
    const id = body.orderId ?? body
    await trifold.getOrder(account, id)
    return id
  }
  const refunded = await order(2)
  await trifold.deleteOrder(account, refunded)
  await eventually(async () => assert.equal((await trifold.payment(refunded)).state, 'REFUNDED'))
  return { account, refunded, refused: await order(1000), paid: await order(1) }
}
