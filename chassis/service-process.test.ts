import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from '../tests/e2e/program.ts'
import { AUTH_SETTINGS, newKey, writeKeys } from '../tests/support/tokens.ts'

const MAIN = fileURLToPath(new URL('../services/order/main.ts', import.meta.url))

test('a service that calls others does not start with AUTH=jwt and without a token of its own', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const AUTH_JWKS_FILE = join(folder, 'keys.json')
  await writeKeys(AUTH_JWKS_FILE, await newKey('one'))
  const settings = { DATABASE_URL: 'postgres://127.0.0.1:1/none', PORT: '0', AUTH_JWKS_FILE }
  const env = { ...process.env, ...AUTH_SETTINGS, ...settings }
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(process.execPath, [MAIN], { cwd: folder, env }, (error, _stdout, stderr) =>
      resolve({ code: error?.code, stderr }),
    )
  })
  assert.equal(code, 2)
  assert.match(stderr, /AUTH=jwt needs SERVICE_TOKEN_FILE/)
})
