import assert from 'node:assert/strict'
import { test } from 'node:test'
import { redact, registerSecret, registerSecrets } from './redact.ts'

test('redact masks a registered secret wherever it occurs, in each of its encodings', () => {
  registerSecret('s3cr"t/with\\all@of#it?%')
  for (const form of [
    's3cr"t/with\\all@of#it?%',
    JSON.stringify({ a: 's3cr"t/with\\all@of#it?%' }),
    encodeURIComponent('s3cr"t/with\\all@of#it?%'),
    btoa('s3cr"t/with\\all@of#it?%'),
  ]) {
    assert.doesNotMatch(redact(`before ${form} after`), /s3cr|with|czNj/)
  }
})

test('redact masks a password whose characters make the URL invalid', () => {
  for (const [index, special] of ['/', '@', '#', '%', '?', ':'].entries()) {
    const [left, right] = [`left${index}part`, `right${index}part`]
    registerSecret(`smtp://mailer:${left}${special}${right}@mail.example:587`)
    const redacted = redact(`Invalid URL smtp://mailer:${left}${special}${right}@mail.example:587`)
    assert.doesNotMatch(redacted, /left|right/)
    assert.doesNotMatch(redact(`getaddrinfo ENOTFOUND ${right}@mail.example`), /right/)
  }
})

test('redact masks a password whose parts are too short to be masked by themselves', () => {
  registerSecret('smtp://mailer:p/q@r@mail.example:587')
  assert.equal(redact('535 rejected p/q@r'), '535 rejected ***')
})

test('redact masks the credentials of any URL, registered or not', () => {
  assert.equal(redact('to amqp://me:pw@host:1/x'), 'to amqp://***@host:1/x')
  assert.equal(redact('{"url":"https://me@host"}'), '{"url":"https://***@host"}')
  const plain = 'see http://127.0.0.1:8000/orders and mail a@b.example'
  assert.equal(redact(plain), plain)
})

test('registerSecrets finds the secrets in an environment by the names of variables and in URLs', () => {
  registerSecrets({
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer header-canary,x-key=other-canary',
    SMTP_PASSWORD: 'password-canary',
    DATABASE_URL: 'postgres://me@host/db?password=query-canary&x=1',
    BILLING_URL: 'http://127.0.0.1:8002',
    PATH: '/usr/bin',
    KAFKA_SASL_PASSWORD_FILE: '/run/secrets/kafka',
  })
  const redacted = redact(
    'header-canary other-canary password-canary query-canary /usr/bin 127.0.0.1 /run/secrets/kafka',
  )
  assert.equal(redacted, '*** *** *** *** /usr/bin 127.0.0.1 /run/secrets/kafka')
})

test('redact takes linear time on hostile text', () => {
  for (const text of ['://'.repeat(6_000), 'a'.repeat(16_384), `://${'@'.repeat(16_384)}`]) {
    const times = Array.from({ length: 10 }, () => {
      const start = performance.now()
      redact(text)
      return performance.now() - start
    })
    assert.ok(Math.min(...times) < 5, `${Math.min(...times)} ms`)
  }
})
