import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { JWTPayload } from 'jose'
import Type from 'typebox'
import type { Principal } from '../../contracts/access.ts'
import { Fault } from '../../contracts/problems.ts'
import { AUTH_SETTINGS, newKey, sign, type TestKey, writeKeys } from '../../tests/support/tokens.ts'
import { systemRuntime } from '../async/runtime.ts'
import { ConfigError, httpConfig, readConfig } from '../process/config.ts'
import { createLog } from '../telemetry/telemetry.ts'
import { openAuth } from './auth.ts'
import { authConfig } from './config.ts'
import { uuidV5 } from './verifier.ts'

const log = createLog('silent', 'auth')
const NOW = Math.floor(Date.now() / 1_000)

const configOf = (settings: Readonly<Record<string, string>>) =>
  readConfig(Type.Object({ ...authConfig, HOST: httpConfig.HOST }), settings)

/** Authentication with a clock that the test can advance. */
async function open(t: TestContext, settings: Readonly<Record<string, string>>) {
  let aheadMs = 0
  const config = configOf({ ...AUTH_SETTINGS, ...settings })
  const runtime = {
    now: () => systemRuntime.now() + aheadMs,
    monotonic: () => systemRuntime.monotonic() + aheadMs,
  }
  const auth = await openAuth(config, { runtime, log })
  assert.ok(auth)
  t.after(() => auth.close())
  return {
    auth,
    advance(ms: number) {
      aheadMs += ms
    },
    verify: async (token: string): Promise<Principal> => auth.verify(token),
    async codeOf(token: string): Promise<string> {
      try {
        await auth.verify(token)
        return 'OK'
      } catch (error) {
        assert.ok(error instanceof Fault, String(error))
        return error.code
      }
    },
  }
}

async function folder(t: TestContext) {
  const path = await mkdtemp(join(tmpdir(), 'trifold-auth-'))
  t.after(() => rm(path, { recursive: true }))
  return (name: string) => join(path, name)
}

async function withFile(t: TestContext, ...keys: readonly TestKey[]) {
  const file = (await folder(t))('keys.json')
  await writeKeys(file, ...keys)
  return { file, ...(await open(t, { AUTH_JWKS_FILE: file })) }
}

/** An issuer that publishes its keys over HTTP and can be down. */
async function issuer(t: TestContext, ...keys: readonly TestKey[]) {
  const state = { isUp: true, keys, loads: 0 }
  const server = createServer((_request, response) => {
    state.loads += 1
    response.statusCode = state.isUp ? 200 : 503
    response.end(JSON.stringify({ keys: state.keys.map(({ jwk }) => jwk) }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`
  return { state, url }
}

const KEYS = { es: await newKey('one'), rs: await newKey('two', 'RS256') }

for (const [name, key] of Object.entries({ ...KEYS, ed: await newKey('three', 'EdDSA') })) {
  test(`accepts a token signed with ${name}, and at once if it is repeated`, async (t) => {
    const { auth } = await withFile(t, key)
    const token = await sign(key, { sub: 'ann', scope: 'orders:read service:order' })
    const principal = await auth.verify(token)
    assert.deepEqual(principal, {
      issuer: AUTH_SETTINGS.AUTH_ISSUER,
      subject: 'ann',
      profileId: uuidV5(
        uuidV5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', AUTH_SETTINGS.AUTH_ISSUER),
        'ann',
      ),
      scopes: new Set(['orders:read', 'service:order']),
      service: 'order',
    })
    assert.equal(auth.verify(token), principal)
  })
}

const REJECTED: Readonly<Record<string, JWTPayload>> = {
  'that has expired': { exp: NOW - 10 },
  'that is not valid yet': { nbf: NOW + 60 },
  'without exp': { exp: undefined },
  'without sub': { sub: undefined },
  'with an empty sub': { sub: '' },
  'of another issuer': { iss: 'https://other.test' },
  'without an issuer': { iss: undefined },
  'for another audience': { aud: 'other' },
  'without an audience': { aud: undefined },
  'of more than 8 KB': { padding: 'x'.repeat(8_192) },
}
for (const [what, claims] of Object.entries(REJECTED)) {
  test(`rejects a token ${what}`, async (t) => {
    const { codeOf } = await withFile(t, KEYS.es)
    assert.equal(await codeOf(await sign(KEYS.es, { scope: 'a' })), 'OK')
    assert.equal(await codeOf(await sign(KEYS.es, claims)), 'UNAUTHENTICATED')
  })
}

test('rejects forged tokens', async (t) => {
  const { codeOf } = await withFile(t, KEYS.es, KEYS.rs)
  const forged = await newKey('one')
  const valid = await sign(KEYS.es)
  const [, payload, signature] = valid.split('.')
  const encode = (header: object) => Buffer.from(JSON.stringify(header)).toString('base64url')
  const publicKey = new TextEncoder().encode(JSON.stringify(KEYS.rs.jwk))
  const tokens = {
    'signed by a stranger': await sign(forged),
    'alg none without a signature': `${encode({ alg: 'none' })}.${payload}.`,
    'alg none with a signature': `${encode({ alg: 'none', kid: 'one' })}.${payload}.${signature}`,
    'HS256 with the public key': await sign({ kid: 'two', alg: 'HS256', privateKey: publicKey }),
    'an algorithm that is not listed': await sign(await newKey('four', 'ES384')),
    'a changed payload': valid.replace(payload!, encode({ ...claimsOf(valid), sub: 'bob' })),
    'no token': 'no token',
    'an empty token': '',
  }
  for (const [what, token] of Object.entries(tokens)) {
    assert.equal(await codeOf(token), 'UNAUTHENTICATED', what)
  }
})

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

test('a verified token is rejected after it has expired', async (t) => {
  const { codeOf, advance } = await withFile(t, KEYS.es)
  const token = await sign(KEYS.es)
  assert.equal(await codeOf(token), 'OK')
  advance(304_000)
  assert.equal(await codeOf(token), 'OK')
  advance(2_000)
  assert.equal(await codeOf(token), 'UNAUTHENTICATED')
})

test('takes the profile from the configured claim in lower case, and scopes from a list', async (t) => {
  const file = (await folder(t))('keys.json')
  await writeKeys(file, KEYS.es)
  const { verify } = await open(t, {
    AUTH_JWKS_FILE: file,
    AUTH_PROFILE_CLAIM: 'profile',
    AUTH_SCOPE_CLAIM: 'roles',
  })
  const profile = '0190A0A0-0000-7000-8000-00000000000A'
  const token = await sign(KEYS.es, { profile, roles: ['orders:read', 7] })
  const { profileId, scopes } = await verify(token)
  assert.equal(profileId, profile.toLowerCase())
  assert.deepEqual(scopes, new Set(['orders:read']))
})

test('after a rotation, accepts the new key and rejects tokens of the withdrawn one', async (t) => {
  const [old, next] = [await newKey('old'), await newKey('next')]
  const { state, url } = await issuer(t, old)
  const { codeOf, advance } = await open(t, { AUTH_JWKS_URL: url })
  const token = await sign(old)
  assert.equal(await codeOf(token), 'OK')
  state.keys = [next]
  advance(6_000)
  assert.equal(await codeOf(await sign(next)), 'OK')
  assert.equal(await codeOf(token), 'UNAUTHENTICATED')
})

test('unknown key ids make it load the keys only once in five seconds', async (t) => {
  const { state, url } = await issuer(t, KEYS.es)
  const { codeOf, advance } = await open(t, { AUTH_JWKS_URL: url })
  assert.equal(await codeOf(await sign(KEYS.es)), 'OK')
  advance(6_000)
  const strangers = await Promise.all(['a', 'b', 'c'].map((kid) => newKey(kid)))
  for (const stranger of strangers) {
    assert.equal(await codeOf(await sign(stranger)), 'UNAUTHENTICATED')
  }
  assert.equal(state.loads, 2)
})

test('keeps the last good keys while the issuer is down, and reports their age', async (t) => {
  const { state, url } = await issuer(t, KEYS.es)
  const { auth, codeOf, advance } = await open(t, { AUTH_JWKS_URL: url })
  assert.equal(await codeOf(await sign(KEYS.es)), 'OK')
  state.isUp = false
  advance(700_000)
  assert.equal(await codeOf(await sign(KEYS.es, { exp: NOW + 3_000 })), 'OK')
  assert.ok(auth.keysAgeSeconds() >= 700)
})

test('responds with 503 until the keys have been loaded, and recovers', async (t) => {
  const { state, url } = await issuer(t, KEYS.es)
  state.isUp = false
  const { auth, codeOf, advance } = await open(t, { AUTH_JWKS_URL: url })
  const token = await sign(KEYS.es)
  assert.equal(await codeOf(token), 'SERVICE_UNAVAILABLE')
  assert.equal(auth.keysAgeSeconds(), Number.POSITIVE_INFINITY)
  state.isUp = true
  advance(6_000)
  assert.equal(await codeOf(token), 'OK')
})

test('with a shared secret, accepts HS256 only', async (t) => {
  const file = (await folder(t))('secret')
  const secret = 'a secret of more than 32 bytes, for tests'
  await writeFile(file, `${secret}\n`)
  const { codeOf } = await open(t, { AUTH_SHARED_SECRET_FILE: file })
  const privateKey = new TextEncoder().encode(secret)
  assert.equal(await codeOf(await sign({ kid: 'one', alg: 'HS256', privateKey })), 'OK')
  assert.equal(await codeOf(await sign(KEYS.es)), 'UNAUTHENTICATED')
})

test('reports settings that contradict each other, and unusable files', async (t) => {
  const path = await folder(t)
  await writeFile(path('short'), 'short')
  await writeFile(path('empty.json'), '{"keys":[]}')
  const wrong: readonly (readonly [RegExp, Readonly<Record<string, string>>])[] = [
    [/exactly one of/, {}],
    [/exactly one of/, { AUTH_JWKS_FILE: 'a', AUTH_JWKS_URL: 'https://a.test' }],
    [/https:\/\/ unless/, { AUTH_JWKS_URL: 'http://issuer.test/jwks' }],
    [
      /AUTH_ISSUER must name/,
      { AUTH_ISSUER: 'urn:trifold:development', AUTH_JWKS_URL: 'https://a.test' },
    ],
    [/AUTH_JWKS_FILE is unusable/, { AUTH_JWKS_FILE: path('missing') }],
    [/AUTH_JWKS_FILE is unusable/, { AUTH_JWKS_FILE: path('empty.json') }],
    [/at least 32 bytes/, { AUTH_SHARED_SECRET_FILE: path('short') }],
    [/AUTH_ALGORITHMS must be/, { AUTH_JWKS_FILE: 'a', AUTH_ALGORITHMS: 'ES256,none' }],
    [/AUTH_ALGORITHMS must be/, { AUTH_JWKS_FILE: 'a', AUTH_ALGORITHMS: 'HS256' }],
    [/AUTH_LEGACY_HEADER must be/, { AUTH_JWKS_FILE: 'a', AUTH_LEGACY_HEADER: 'x token' }],
  ]
  for (const [message, settings] of wrong) {
    await assert.rejects(open(t, settings), (error) => {
      assert.ok(error instanceof ConfigError, String(error))
      assert.match(error.message, message)
      return true
    })
  }
})

test('without authentication, listens on loopback only, unless told otherwise', async () => {
  const openOff = (settings: Readonly<Record<string, string>>) =>
    openAuth(configOf(settings), { runtime: systemRuntime, log })
  for (const HOST of ['127.0.0.1', '127.1.2.3', 'localhost', '::1']) {
    assert.equal(await openOff({ HOST }), undefined)
  }
  for (const HOST of ['0.0.0.0', '::', '192.168.1.7', '127.example.org']) {
    await assert.rejects(openOff({ HOST }), (error) => {
      assert.ok(error instanceof ConfigError)
      assert.match(error.message, new RegExp(`HOST=${HOST} .*AUTH=jwt.*AUTH_OFF_ANYWHERE=true`))
      return true
    })
    assert.equal(await openOff({ HOST, AUTH_OFF_ANYWHERE: 'true' }), undefined)
  }
})
