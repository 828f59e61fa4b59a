import assert from 'node:assert/strict'
import { test } from 'node:test'
import Type from 'typebox'
import {
  allowedHostsOf,
  ConfigError,
  describeConfig,
  durationMs,
  httpConfig,
  readConfig,
} from './config.ts'
import {
  brokerList,
  hostList,
  httpUrl,
  networkList,
  postgresUrl,
  smtpUrl,
} from './config-formats.ts'

const schema = Type.Object({
  ...httpConfig,
  PORT: Type.Integer({ ...httpConfig.PORT, default: 8081 }),
  STYLE: Type.Union([Type.Literal('http'), Type.Literal('events')], { default: 'events' }),
  OVERRIDE: Type.Boolean({ default: true }),
  RATIO: Type.Number({ default: 0.5, minimum: 0, maximum: 1 }),
  PASSWORD: Type.Optional(Type.String({ minLength: 12, secret: true })),
  DATABASE_URL: Type.Optional(Type.String({ description: 'Where the database is.' })),
})

function problemsOf(environment: Record<string, string>): readonly string[] {
  try {
    readConfig(schema, environment)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

test('readConfig uses the defaults of unset variables, and freezes the result', () => {
  const config = readConfig(schema, { HOST: '' })
  assert.equal(config.HOST, '127.0.0.1')
  assert.equal(config.PORT, 8081)
  assert.equal(config.BASE_PATH, '/otusapp/gur-ok')
  assert.equal(config.STYLE, 'events')
  assert.equal('DATABASE_URL' in config, false)
  assert.ok(Object.isFrozen(config))
})

test('readConfig reads numbers and booleans from text', () => {
  const config = readConfig(schema, { PORT: '0', OVERRIDE: '0', RATIO: '0.25', LOG_LEVEL: 'debug' })
  assert.equal(config.PORT, 0)
  assert.equal(config.OVERRIDE, false)
  assert.equal(config.RATIO, 0.25)
  assert.equal(config.LOG_LEVEL, 'debug')
  assert.equal(readConfig(schema, { OVERRIDE: 'true' }).OVERRIDE, true)
})

test('readConfig names all invalid variables at once, with the expected values', () => {
  const problems = problemsOf({ PORT: '70000', OVERRIDE: 'yes', STYLE: 'soap', LOG_LEVEL: 'loud' })
  assert.deepEqual(
    problems.map((problem) => problem.split(' (')[0]),
    [
      'PORT must be an integer from 0 to 65535, not "70000"',
      'LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent, not "loud"',
      'STYLE must be one of http, events, not "soap"',
      'OVERRIDE must be true or false, not "yes"',
    ],
  )
})

test('readConfig names a required variable that is not set', () => {
  assert.throws(() => readConfig(Type.Object({ URL: Type.String() }), { URL: '' }), {
    name: 'ConfigError',
    message: 'the configuration is invalid:\n  URL is not set; it must be text',
  })
})

test('readConfig rejects text that only looks like a number', () => {
  for (const PORT of ['0x50', '1e3', ' 80', '80.5', '8 0', '99999999999999999999', '--1']) {
    assert.match(problemsOf({ PORT })[0] ?? '', /^PORT must be an integer/, PORT)
  }
})

test('readConfig never shows the value of a secret', () => {
  const [problem] = problemsOf({ PASSWORD: 'hunter2' })
  assert.equal(problem, 'PASSWORD must be text of at least 12 characters')
})

test('readConfig rejects an invalid base path', () => {
  for (const BASE_PATH of ['otusapp', '/a/', '/a b', 'http://x/', '/orders', '/lab/x', '/a/..']) {
    assert.equal(problemsOf({ BASE_PATH }).length, 1, BASE_PATH)
  }
  for (const BASE_PATH of ['/', '/a', '/a/b-c.d']) {
    assert.equal(problemsOf({ BASE_PATH }).length, 0, BASE_PATH)
  }
})

/** Each URL has a password, which must not occur in any message. */
const SECRET = 'canary'
const BAD_URLS: Readonly<Record<string, readonly string[]>> = {
  BILLING: [
    `http://u:${SECRET}@host`,
    'billing:8000',
    'ftp://billing',
    'http://',
    `//u:${SECRET}@host`,
  ],
  DATABASE: [
    `postgres://u:${SECRET}/more@host/name`,
    `postgres://u:${SECRET}#more@host/name`,
    `postgres://u:1/${SECRET}@host/name`,
    `mysql://u:${SECRET}@host/name`,
    SECRET,
    `postgres://u:${SECRET}@host:99999/name`,
  ],
  MAIL: [
    `smpt://u:${SECRET}@host`,
    `smtp://u:${SECRET}%@host`,
    `smtp://${SECRET}:587/x`,
    `smtp://u:1/${SECRET}@host`,
    'smtp://',
    `u:${SECRET}@host`,
  ],
  BROKERS: [
    'host',
    'host:0',
    'host:9092/x',
    `u:${SECRET}@host:9092`,
    'a:1;b:2',
    'host:99999',
    'http://a:1',
  ],
  HOSTS: ['host:8000', 'http://host', 'a b', `u:${SECRET}@host`],
  NETWORKS: ['10.0.0.0/33', 'private', '10.0.0.0/8/8', '::1/129', '10.0.0'],
}
const GOOD_URLS: Readonly<Record<string, readonly string[]>> = {
  BILLING: ['http://billing:8000', 'https://billing.example/shop'],
  DATABASE: ['postgres://u:p%2F@host:5432/name?sslmode=require', 'postgresql:///name?host=/run/a'],
  MAIL: ['smtp://u:p%40@host:587', 'smtps://host'],
  BROKERS: ['a:9092', 'A.b-c:9092, [::1]:9093'],
  HOSTS: ['*', 'arch.homework,[::1],LOCALHOST'],
  NETWORKS: ['10.0.0.0/8, ::1', '127.0.0.1,fc00::/7'],
}
const text = { description: 'see its name' }
const urls = Type.Object({
  BILLING: Type.Optional(httpUrl(text)),
  DATABASE: Type.Optional(postgresUrl({ ...text, secret: true })),
  MAIL: Type.Optional(smtpUrl({ ...text, secret: true })),
  BROKERS: Type.Optional(brokerList(text)),
  HOSTS: Type.Optional(hostList(text)),
  NETWORKS: Type.Optional(networkList(text)),
})

for (const name of Object.keys(BAD_URLS)) {
  test(`readConfig rejects an invalid ${name} without showing its password`, () => {
    for (const value of BAD_URLS[name]!) {
      const rejection = { name: 'ConfigError', message: new RegExp(`^ +${name} must be `, 'm') }
      assert.throws(() => readConfig(urls, { [name]: value }), rejection, value)
      try {
        readConfig(urls, { [name]: value })
      } catch (error) {
        assert.doesNotMatch(String(error), new RegExp(SECRET))
      }
    }
    for (const value of GOOD_URLS[name]!) {
      assert.deepEqual(readConfig(urls, { [name]: value }), { [name]: value })
    }
  })
}

test('readConfig rejects a duration that is too long for a timer', () => {
  const durations = Type.Object({
    WAIT_MS: durationMs({ default: 1, minimum: 1, description: '' }),
  })
  for (const WAIT_MS of ['2147483648', '86400001', '0']) {
    assert.throws(
      () => readConfig(durations, { WAIT_MS }),
      /WAIT_MS must be an integer from 1 to 86400000/,
    )
  }
})

test('by default, ALLOWED_HOSTS stands for loopback names on loopback, and for any name elsewhere', () => {
  const hostsOf = (HOST: string, ALLOWED_HOSTS = '') => allowedHostsOf({ HOST, ALLOWED_HOSTS })
  const local = ['localhost', '127.0.0.1', '[::1]']
  for (const host of ['localhost', '127.0.0.1', '::1', '127.0.0.2']) {
    for (const name of local) assert.ok((hostsOf(host) as Set<string>).has(name), host)
  }
  assert.equal(hostsOf('0.0.0.0'), 'any')
  assert.equal(hostsOf('127.0.0.1', '*'), 'any')
  assert.deepEqual(hostsOf('0.0.0.0', 'Shop.example, [::1]'), new Set(['shop.example', '[::1]']))
})

test('describeConfig describes every variable for the documents', () => {
  const rows = describeConfig(schema)
  assert.deepEqual(rows[1], {
    name: 'PORT',
    type: 'an integer from 0 to 65535',
    default: 8081,
    description: 'The port to listen on; 0 means any free port.',
  })
  assert.deepEqual(
    rows.map(({ name }) => name),
    Object.keys(schema.properties),
  )
})
