import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import Type from 'typebox'
import { CUSTOMER_SCOPES } from '../../contracts/access.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { openAuth } from '../../platform/auth/auth.ts'
import { authConfig } from '../../platform/auth/config.ts'
import { httpConfig, readConfig } from '../../platform/process/config.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { temporaryFolder } from '../../tests/e2e/program.ts'

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))
const ANN = '0190a0a0-0000-7000-8000-00000000000a'

/** Runs the command in an empty folder, so that it reads no .env. */
function run(folder: string, args: readonly string[], settings: Record<string, string> = {}) {
  const env = { ...process.env, DATA_DIR: folder, ...settings }
  return promisify(execFile)(process.execPath, [MAIN, ...args], { cwd: folder, env }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error) => ({ code: error.code as number, stdout: error.stdout, stderr: error.stderr }),
  )
}

test('prints a token that the printed settings make the program accept', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const runs = await Promise.all([
    run(folder, ['--profile', ANN]),
    run(folder, ['--scope', 'operator:read service:order', '--minutes', '5']),
  ])
  const [, file = ''] = /AUTH=jwt AUTH_JWKS_FILE=(\S+)/.exec(runs[0].stderr) ?? []
  const config = readConfig(Type.Object({ ...authConfig, HOST: httpConfig.HOST }), {
    AUTH: 'jwt',
    AUTH_JWKS_FILE: file,
  })
  const auth = await openAuth(config, { runtime: systemRuntime, log: createLog('silent', 'auth') })
  assert.ok(auth)
  t.after(() => auth.close())
  const [customer, operator] = await Promise.all(
    runs.map(async ({ stdout }) => auth.verify(stdout.trim())),
  )
  assert.equal(customer?.profileId, ANN)
  assert.deepEqual(customer?.scopes, new Set(CUSTOMER_SCOPES))
  assert.deepEqual(operator?.scopes, new Set(['operator:read', 'service:order']))
  const { mode } = await stat(join(folder, 'development-issuer', 'private-key.json'))
  assert.equal(mode & 0o077, 0)
})

test('signs nothing for a configured issuer, and reports wrong usage', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const configured = await run(folder, [], { AUTH_ISSUER: 'https://issuer.test' })
  assert.deepEqual([configured.code, configured.stdout], [2, ''])
  assert.match(configured.stderr, /https:\/\/issuer\.test/)
  for (const args of [['--minutes', '0'], ['--minutes', 'x'], ['--unknown']]) {
    const { code, stdout } = await run(folder, args)
    assert.deepEqual([code, stdout], [2, ''], args.join(' '))
  }
})
