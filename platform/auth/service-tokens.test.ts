import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import Type from 'typebox'
import { temporaryFolder } from '../../tests/e2e/program.ts'
import { AUTH_SETTINGS } from '../../tests/support/tokens.ts'
import type { HttpCall } from '../http/client.ts'
import { readConfig } from '../process/config.ts'
import { createLog } from '../telemetry/telemetry.ts'
import { authConfig } from './config.ts'
import { createOwnIssuer, tokenInFile, withServiceToken } from './service-tokens.ts'
import { createVerifier } from './verifier.ts'

const CALL: HttpCall = {
  target: 'billing',
  method: 'POST',
  url: 'http://127.0.0.1/',
  headers: { 'x-a': '1' },
}

test('each call carries the token that is in the file at that time', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const file = join(folder, 'token')
  const sent: HttpCall[] = []
  const http = async (call: HttpCall) => {
    sent.push(call)
    return { status: 200, body: '' }
  }
  const client = withServiceToken(http, tokenInFile(file), createLog('silent', 'order'))
  for (const token of ['first', 'second']) {
    await writeFile(file, `${token}\n`)
    assert.equal((await client(CALL, 1)).status, 200)
  }
  await rm(file)
  assert.equal((await client(CALL, 1)).status, 401)
  assert.deepEqual(
    sent.map(({ headers }) => headers),
    [
      { 'x-a': '1', authorization: 'Bearer first' },
      { 'x-a': '1', authorization: 'Bearer second' },
    ],
  )
})

test('tokens of a process name the service, are reused, and are renewed before they expire', async () => {
  let nowMs = Date.now()
  const now = () => nowMs
  const config = readConfig(Type.Object(authConfig), AUTH_SETTINGS)
  const own = await createOwnIssuer(config, now)
  const verifier = createVerifier({
    issuers: [own.issuer],
    profileClaim: 'sub',
    scopeClaim: 'scope',
    clockToleranceSeconds: 0,
    now,
  })
  const tokenOf = own.tokensOf('billing')
  const first = await tokenOf()
  nowMs += 400_000
  assert.equal(await tokenOf(), first)
  assert.equal((await verifier.verify(first)).service, 'billing')
  nowMs += 190_000
  const second = await tokenOf()
  assert.notEqual(second, first)
  nowMs += 400_000
  assert.equal((await verifier.verify(second)).service, 'billing')
  await assert.rejects(async () => verifier.verify(first), /expired/)
})
