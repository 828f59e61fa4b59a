import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { openAuthority } from '../../tools/servers/certificates.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../../tools/servers/postgres.ts'
import { describeDatabase } from '../database/database.conformance.ts'
import { openPostgres } from './postgres.ts'

const WITHOUT = 'skipped: TEST_DATABASE_URL is not set'
const folder = mkdtempSync(join(tmpdir(), 'trifold-postgres-tls-'))
// The server may run as a different user.
chmodSync(folder, 0o755)
// Started before the first test, because hooks run as soon as no test is left.
const secure = process.env.TEST_DATABASE_URL === undefined ? undefined : await startSecurePostgres()
after(async () => {
  await secure?.postgres.close()
  rmSync(folder, { recursive: true, force: true })
})

async function startSecurePostgres() {
  const authority = openAuthority(join(folder, 'certificates'))
  const postgres = await startPostgres({
    folder: join(folder, 'postgres'),
    port: await freePorts(26_440, 1),
    maxConnections: 50,
    logFile: join(folder, 'postgres.log'),
    certificate: authority.issue('postgres', 'DNS:localhost'),
  })
  await makeDatabases(postgres.url, ['test'])
  return { authority, postgres }
}

const NAME = 'PostgreSQL with verify-full'
if (secure === undefined) test(`${NAME} (${WITHOUT})`, { skip: WITHOUT }, () => undefined)
else {
  const { authority, postgres } = secure
  const urlWith = (mode: string, ca: string, host = 'localhost') => {
    const url = new URL(databaseUrl(postgres.url, 'test'))
    url.hostname = host
    url.search = new URLSearchParams({ sslmode: mode, sslrootcert: ca }).toString()
    return url.href
  }
  const verified = urlWith('verify-full', authority.ca)

  describeDatabase(NAME, () => openPostgres({ url: verified }), {})

  describe(NAME, () => {
    const rejected = { name: 'DatabaseError', kind: 'unavailable' }

    test('encrypts the connections', async (t) => {
      const database = await openPostgres({ url: verified })
      t.after(() => database.close())
      const [row] = await database.query<{ ssl: boolean }>(
        'select ssl from pg_stat_ssl where pid = pg_backend_pid()',
      )
      assert.equal(row?.ssl, true)
    })

    test('rejects a server whose authority is not trusted', async (t) => {
      const { ca } = openAuthority(join(folder, 'other'))
      const database = await openPostgres({ url: urlWith('verify-full', ca) })
      t.after(() => database.close())
      await assert.rejects(database.query('select 1'), {
        ...rejected,
        message: /unable to verify|self.signed/,
      })
    })

    test('rejects a server with another host name', async (t) => {
      const database = await openPostgres({
        url: urlWith('verify-full', authority.ca, '127.0.0.1'),
      })
      t.after(() => database.close())
      await assert.rejects(database.query('select 1'), { ...rejected, message: /does not match/ })
    })
  })
}
