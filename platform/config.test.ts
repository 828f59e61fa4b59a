import assert from 'node:assert/strict'
import { test } from 'node:test'
import Type from 'typebox'
import { ConfigError, describeConfig, httpConfig, readConfig } from './config.ts'

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

test('takes the defaults where nothing is set, and the result is frozen', () => {
  const config = readConfig(schema, { HOST: '' })
  assert.equal(config.HOST, '127.0.0.1')
  assert.equal(config.PORT, 8081)
  assert.equal(config.BASE_PATH, '/otusapp/gur-ok')
  assert.equal(config.STYLE, 'events')
  assert.equal('DATABASE_URL' in config, false)
  assert.ok(Object.isFrozen(config))
})

test('reads numbers and booleans from text', () => {
  const config = readConfig(schema, { PORT: '0', OVERRIDE: '0', RATIO: '0.25', LOG_LEVEL: 'debug' })
  assert.equal(config.PORT, 0)
  assert.equal(config.OVERRIDE, false)
  assert.equal(config.RATIO, 0.25)
  assert.equal(config.LOG_LEVEL, 'debug')
  assert.equal(readConfig(schema, { OVERRIDE: 'true' }).OVERRIDE, true)
})

test('names every variable that is wrong at once, with what is expected', () => {
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

test('names a required variable that is not set', () => {
  assert.throws(() => readConfig(Type.Object({ URL: Type.String() }), { URL: '' }), {
    name: 'ConfigError',
    message: 'the configuration is wrong:\n  URL is not set; it must be text',
  })
})

test('refuses text that only looks like a number', () => {
  for (const PORT of ['0x50', '1e3', ' 80', '80.5', '8 0', '99999999999999999999', '--1']) {
    assert.match(problemsOf({ PORT })[0] ?? '', /^PORT must be an integer/, PORT)
  }
})

test('never shows the value of a secret', () => {
  const [problem] = problemsOf({ PASSWORD: 'hunter2' })
  assert.equal(problem, 'PASSWORD must be text of at least 12 characters')
})

test('refuses a base path that is no path', () => {
  for (const BASE_PATH of ['otusapp', '/a/', '/a b', 'http://x/']) {
    assert.equal(problemsOf({ BASE_PATH }).length, 1, BASE_PATH)
  }
  for (const BASE_PATH of ['/', '/a', '/a/b-c.d']) {
    assert.equal(problemsOf({ BASE_PATH }).length, 0, BASE_PATH)
  }
})

test('describes every variable for the documents', () => {
  const rows = describeConfig(schema)
  assert.deepEqual(rows[1], {
    name: 'PORT',
    type: 'an integer from 0 to 65535',
    default: 8081,
    description: 'The port to listen on; 0 takes any free one.',
  })
  assert.deepEqual(
    rows.map(({ name }) => name),
    Object.keys(schema.properties),
  )
})
