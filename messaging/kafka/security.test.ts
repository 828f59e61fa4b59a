import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import Type from 'typebox'
import { createAcls } from '../../apps/topics/acls.ts'
import { createTopics } from '../../apps/topics/main.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { readConfig } from '../../platform/process/config.ts'
import { createLog } from '../../platform/telemetry/telemetry.ts'
import { openAuthority } from '../../tools/servers/certificates.ts'
import { startKafka } from '../../tools/servers/kafka.ts'
import { freePorts } from '../../tools/servers/ports.ts'
import { busConformance, message } from '../bus.conformance.ts'
import type { Bus } from '../bus.ts'
import { TOPICS } from '../topics.ts'
import { createKafkaBus } from './bus.ts'
import { type KafkaSecurity, kafkaSecurity, kafkaSecurityConfig } from './security.ts'

/** How long a reader may take to get a message that is there. */
const READ_LIMIT_MS = 10_000
const USERS = ['admin', 'order', 'billing', 'notification']

const folder = mkdtempSync(join(tmpdir(), 'trifold-security-'))
// The broker starts before the first test is defined, because node:test runs `after` hooks as soon as no test
// is left.
const secure = process.env.TEST_KAFKA_BROKERS === undefined ? undefined : await startSecureKafka()
after(async () => {
  await secure?.kafka.close()
  rmSync(folder, { recursive: true, force: true })
})

const fileWith = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}
const PASSWORD = fileWith('password', 'secret\n')

const securityOf = (variables: Record<string, string>, brokers = 'kafka.example:9093') =>
  kafkaSecurity(readConfig(Type.Object(kafkaSecurityConfig), variables), brokers)

describe('the configuration of TLS and SASL', () => {
  test('is plain text without a login by default', () => {
    assert.deepEqual(securityOf({}), {})
  })

  test('reads the password and the token at every login, without the last line break', async () => {
    const password = fileWith('changing', 'first\n')
    const { sasl } = securityOf({ ...scram('order'), KAFKA_SASL_PASSWORD_FILE: password })
    const current = sasl?.password as () => Promise<string>
    assert.equal(await current(), 'first')
    writeFileSync(password, 'second\n')
    assert.equal(await current(), 'second')
  })

  test('uses a renewed certificate from the next connection on, and the last one while it is missing', () => {
    const ca = fileWith('renewed.pem', 'old')
    const { tls } = securityOf({ KAFKA_TLS: 'true', KAFKA_TLS_CA_FILE: ca })
    const nextConnection = () => String({ ...tls }.ca)
    assert.equal(nextConnection(), 'old')
    writeFileSync(ca, 'new')
    assert.equal(nextConnection(), 'new')
    rmSync(ca)
    assert.equal(nextConnection(), 'new')
  })

  test('sends the host names of the brokers, but no addresses', () => {
    const KAFKA_TLS = 'true'
    assert.equal(securityOf({ KAFKA_TLS }).tlsServerName, true)
    assert.equal(securityOf({ KAFKA_TLS }, '10.0.0.1:9093').tlsServerName, false)
    const named = { KAFKA_TLS, KAFKA_TLS_SERVER_NAME: 'broker' }
    assert.equal(securityOf(named, '[::1]:9093').tlsServerName, 'broker')
  })

  const rejected: readonly [Record<string, string>, RegExp][] = [
    [{ KAFKA_TLS_CA_FILE: PASSWORD }, /KAFKA_TLS_CA_FILE has no effect without KAFKA_TLS=true/],
    [{ KAFKA_TLS: 'true', KAFKA_TLS_CERT_FILE: PASSWORD }, /must be set together/],
    [{ KAFKA_TLS: 'true', KAFKA_TLS_CA_FILE: '/no/such/file' }, /CA_FILE cannot be read/],
    [{ KAFKA_SASL_MECHANISM: 'SCRAM-SHA-256' }, /SCRAM-SHA-256 needs KAFKA_SASL_USERNAME/],
    [{ KAFKA_SASL_MECHANISM: 'OAUTHBEARER' }, /OAUTHBEARER needs KAFKA_SASL_TOKEN_FILE/],
    [{ KAFKA_SASL_USERNAME: 'order' }, /has no effect on the mechanism none/],
    [{ ...scram('order'), KAFKA_SASL_MECHANISM: 'PLAIN' }, /PLAIN sends the password unencrypted/],
  ]
  for (const [variables, message] of rejected) {
    test(`is rejected: ${message.source}`, () => {
      assert.throws(() => securityOf(variables), { name: 'ConfigError', message })
    })
  }

  test('rejects PLAIN without TLS for a host whose name only begins like a loopback address', () => {
    const plain = { ...scram('order'), KAFKA_SASL_MECHANISM: 'PLAIN' }
    assert.throws(() => securityOf(plain, '127.example.com:9092'), { name: 'ConfigError' })
  })

  test('allows PLAIN without TLS on loopback', () => {
    const plain = { ...scram('order'), KAFKA_SASL_MECHANISM: 'PLAIN' }
    for (const broker of ['127.0.0.1:9092', 'localhost:9092', '[::1]:9092']) {
      assert.equal(securityOf(plain, broker).sasl?.mechanism, 'PLAIN')
    }
  })
})

function scram(user: string): Record<string, string> {
  return {
    KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
    KAFKA_SASL_USERNAME: user,
    KAFKA_SASL_PASSWORD_FILE: PASSWORD,
  }
}

const NAME = 'the bus on Kafka with TLS, client certificates and SCRAM'
const WITHOUT = 'skipped, because TEST_KAFKA_BROKERS is not set'
if (secure === undefined) test(`${NAME}: ${WITHOUT}`, { skip: WITHOUT }, () => undefined)
else onSecureBroker(secure)

async function startSecureKafka() {
  const authority = openAuthority(join(folder, 'certificates'))
  const port = await freePorts(20_000 + 2 * Math.floor(Math.random() * 6_000), 1)
  const kafka = await startKafka({
    folder: join(folder, 'kafka'),
    listeners: [
      {
        name: 'SECURE',
        port,
        advertisedPort: port,
        security: {
          certificate: authority.issue('kafka'),
          clientCa: authority.ca,
          acls: true,
          users: Object.fromEntries(USERS.map((user) => [user, 'secret'])),
        },
      },
    ],
  })
  return { authority, kafka, brokers: `127.0.0.1:${port}` }
}

function onSecureBroker({
  authority,
  brokers,
}: Pick<NonNullable<typeof secure>, 'authority' | 'brokers'>): void {
  const { cert, key } = authority.issue('order')
  const variables = {
    ...scram('admin'),
    KAFKA_TLS: 'true',
    KAFKA_TLS_CA_FILE: authority.ca,
    KAFKA_TLS_CERT_FILE: cert,
    KAFKA_TLS_KEY_FILE: key,
  }
  const security = securityOf(variables, brokers)
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent', 'security')
  const open = (using: KafkaSecurity = security): Promise<Bus> =>
    createKafkaBus({
      brokers: [brokers],
      clientId: 'test',
      runtime: systemRuntime,
      log,
      security: using,
    })

  busConformance(NAME, async (topics) => {
    await createTopics(brokers, topics, { security })
    const buses = [await open()]
    return {
      bus: buses[0]!,
      async reopen() {
        await buses[0]!.close()
        buses.push(await open())
        return buses[1]!
      },
      async close() {
        for (const bus of buses) await bus.close()
      },
    }
  })

  const pings = async (changes: Record<string, string>, unset: readonly string[] = []) => {
    const kept = Object.entries({ ...variables, ...changes }).filter(([it]) => !unset.includes(it))
    const bus = await open(securityOf(Object.fromEntries(kept), brokers))
    await bus.ping().finally(() => bus.close())
  }

  test('a login with PLAIN over TLS is accepted', () => pings({ KAFKA_SASL_MECHANISM: 'PLAIN' }))

  test('with ACLs, a service reads and writes the topics of its events and no others', async () => {
    await createTopics(brokers, TOPICS, { security })
    await createAcls(brokers, security)
    await createAcls(brokers, security)
    const writer = await open()
    await writer.send(TOPICS.map(({ name }) => message(name, 'k', 'v')))
    await writer.close()
    const can = async (user: string, use: (bus: Bus) => Promise<unknown>) => {
      const bus = await open(securityOf({ ...variables, KAFKA_SASL_USERNAME: user }, brokers))
      // A reader without a right keeps trying, because the right may be granted later.
      const given = new AbortController()
      const tooLate = sleep(READ_LIMIT_MS, false, { signal: given.signal }).catch(() => false)
      const succeeds = use(bus).then(
        () => true,
        () => false,
      )
      const outcome = await Promise.race([succeeds, tooLate])
      given.abort()
      await bus.close()
      return outcome
    }
    const allowed: Record<string, string[]> = { order: [], billing: [], notification: [] }
    for (const [user, list] of Object.entries(allowed)) {
      for (const { name: topic } of TOPICS) {
        const write = (bus: Bus) => bus.send([message(topic, 'k', 'v')])
        if (await can(user, write)) list.push(`writes ${topic}`)
      }
      for (const { name: topic } of TOPICS) {
        const read = async (bus: Bus) => (await bus.subscribe(user, [topic])).take()
        if (await can(user, read)) list.push(`reads ${topic}`)
      }
    }
    assert.deepEqual(allowed, {
      order: ['writes billing', 'reads payment'],
      billing: ['writes billing', 'writes payment', 'writes balance', 'reads billing'],
      notification: ['reads payment'],
    })
    assert.equal(await can('order', (bus) => bus.subscribe('notification', ['payment'])), false)
  })

  const otherCa = openAuthority(join(folder, 'other'))
  const stranger = otherCa.issue('stranger')
  const attempts: Record<string, [Record<string, string>, string[]?]> = {
    'a wrong password': [{ KAFKA_SASL_PASSWORD_FILE: fileWith('wrong', 'guessed') }],
    'an unknown user': [{ KAFKA_SASL_USERNAME: 'nobody' }],
    'no client certificate': [{}, ['KAFKA_TLS_CERT_FILE', 'KAFKA_TLS_KEY_FILE']],
    'a client certificate of another authority': [
      { KAFKA_TLS_CERT_FILE: stranger.cert, KAFKA_TLS_KEY_FILE: stranger.key },
    ],
    'a broker whose authority is not trusted': [{ KAFKA_TLS_CA_FILE: otherCa.ca }],
    'a broker with another host name': [{ KAFKA_TLS_SERVER_NAME: 'kafka.example' }],
  }
  for (const [what, [changes, unset]] of Object.entries(attempts)) {
    test(`${what} is rejected`, () => assert.rejects(pings(changes, unset)))
  }
}
