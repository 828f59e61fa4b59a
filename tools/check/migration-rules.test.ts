import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Migration } from '../../platform/database/migrate.ts'
import * as billing from '../../services/billing/migrations/all-migrations.ts'
import * as notification from '../../services/notification/migrations/all-migrations.ts'
import * as order from '../../services/order/migrations/all-migrations.ts'
import { brokenRules } from './migration-rules.ts'

const broken = (sql: string) => brokenRules({ id: 99, name: 'tried', sql })

describe('the rules for migrations', () => {
  for (const [name, { MIGRATIONS, COMPATIBLE_FROM }] of Object.entries({
    order,
    billing,
    notification,
  })) {
    test(`are met by the unreleased migrations of ${name}`, () => {
      const fresh = MIGRATIONS.filter(({ id }: Migration) => id > COMPATIBLE_FROM)
      assert.deepEqual(fresh.flatMap(brokenRules), [])
    })
  }

  for (const sql of [
    'create index order_state on orders.order (state)',
    'create unique index on orders.order (number)',
    'alter table orders.order add column token uuid default gen_random_uuid()',
    'alter table orders.order add seq bigint generated always as identity',
    'alter table orders.order alter column price type numeric',
    'alter table orders.order alter price set not null',
    "update orders.order set style = 'http'",
    'delete from orders.watch',
    'alter table orders.order drop column price',
    'drop table orders.watch',
    'alter table orders.order rename price to cost',
  ]) {
    test(`reject: ${sql}`, () => assert.equal(broken(sql).length, 1))
  }

  for (const sql of [
    'create table orders.fresh (id uuid primary key); create index fresh_id on orders.fresh (id)',
    "alter table orders.order add column owner text not null default ''",
    'alter table orders.order add column seen timestamptz default now()',
    'alter table orders.order add constraint positive check (price > 0) not valid',
    'alter table orders.order validate constraint positive',
  ]) {
    test(`allow: ${sql}`, () => assert.deepEqual(broken(sql), []))
  }
})
