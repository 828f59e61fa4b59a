import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PGlite } from '@electric-sql/pglite'
import { freshCluster } from './cluster.ts'

/** The settings that initdb chooses, and the number of rows that it puts into the catalogs. */
const DECISIONS = `
  select version(), catalog_version_no, pg_control_version, data_page_checksum_version,
    bytes_per_wal_segment, database_block_size,
    (select json_agg(d order by d.datname) from (
      select datname, encoding, datcollate, datctype, datlocprovider, datlocale, datistemplate
      from pg_database) d) as databases,
    (select json_agg(r order by r.rolname) from (select rolname, rolsuper from pg_roles) r) as roles,
    (select json_agg(s order by s.name) from (
      select name, setting from pg_settings where source = 'configuration file') s) as settings,
    (select count(*) from pg_class) as relations,
    (select count(*) from pg_proc) as functions,
    (select count(*) from pg_depend) as dependencies
  from pg_control_init(), pg_control_system()`

test('the cluster image matches what initdb of the installed PGlite creates', async (t) => {
  const fromInitdb = await PGlite.create()
  t.after(() => fromInitdb.close())
  const fromImage = await PGlite.create({ loadDataDir: new Blob([await freshCluster()]) })
  t.after(() => fromImage.close())
  const [expected] = (await fromInitdb.query(DECISIONS)).rows
  const [found] = (await fromImage.query(DECISIONS)).rows
  assert.deepEqual(found, expected)
})
