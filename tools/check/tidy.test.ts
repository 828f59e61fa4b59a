import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { root } from '../repository-files.ts'
import { coreMatcher, findings } from './tidy.ts'

describe('tidy', () => {
  test('finds nothing in a tidy file', () => {
    const text = `import type { Runtime } from './runtime.ts'
export function later(runtime: Runtime, ms: number) {
  return new Date(runtime.now() + ms)
}
`
    quiet('messaging/later.ts', text, true)
  })

  test('requires kebab-case names that describe the content', () => {
    for (const path of ['a/fooBar.ts', 'a/Foo.ts', 'a/foo_bar.ts', 'a/foo.spec.ts']) {
      says(path, '', /kebab-case/)
    }
    for (const path of ['a/utils.ts', 'index.ts', 'a/types.test.ts', 'a/common.sql', 'lib.ts']) {
      says(path, '', /name it for its content/)
    }
    for (const path of ['001-initial.sql', 'a/b.conformance.ts', '.eslintrc.js', 'README.md']) {
      quiet(path, '')
    }
  })

  test('requires a reason for a file over 400 lines', () => {
    const lines = (count: number) => 'f()\n'.repeat(count)
    quiet('a/b.ts', lines(400))
    says('a/b.ts', lines(401), /has 401 lines/)
    says('a/b.ts', `/** Does things. */\n${lines(400)}`, /has 401 lines/)
    quiet('a/b.ts', `// Long, because it is one table.\n${lines(400)}`)
  })

  test('requires an issue for a loose end', () => {
    const [word, other] = ['TO'.concat('DO'), 'FIX'.concat('ME')]
    says('a/b.ts', `f()\n// ${word}: later`, new RegExp(`leaves a ${word}`), 2)
    says('a/b.sql', `-- ${other}`, new RegExp(`leaves a ${other}`))
    quiet('a/b.ts', `// ${word}(#12): later\n// ${word} #12\nconst ${word}S = 1`)
  })

  test('rejects retired words in code and documents', () => {
    says('a/b.ts', '// Rows are sent\n// anew.', /says "anew": say again/, 2)
    says('a/b.md', 'Those on their way are kept.', /say in flight/)
    quiet('a/b.md', 'A renewed lease is on the way out.')
  })

  test('rejects comparisons with the name of a style', () => {
    says('services/order/routes.ts', "const a = order.style === 'events'", /contracts\/style\.ts/)
    says('apps/audit/topics.ts', "if ('http' !== style) f()", /contracts\/style\.ts/)
    quiet(
      'services/order/routes.ts',
      "const a = flow.payment === 'event' || row.carrier === 'http'",
    )
    quiet('services/order/routes.test.ts', "const a = style === 'http'")
  })

  test('rejects properties that are packed into an inner object', () => {
    says('a/b.ts', 'f({\n  ...{ a, b },\n  c,\n})', /^spreads an object literal/, 2)
    says('a/b.test.ts', 'f({ ...({ a: 1 } as const), b })', /^spreads an object literal/)
    quiet('a/b.ts', 'f({ ...a, ...(b && { b }) })')
  })

  test('requires the environment to be read in one file', () => {
    const reads = [
      'f(process.env.A)',
      'f(globalThis.process.env)',
      "f(process['env'])",
      "import { env } from 'node:process'",
      "import { env as e } from 'process'",
      'const { env } = process',
    ]
    for (const text of reads) {
      says('platform/process/config.ts', text, /process\.env/)
      for (const path of [
        'platform/process/process.ts',
        'apps/liveness/main.ts',
        'tools/a.ts',
        'tests/e2e/a.ts',
        'instruments/chaos/a.ts',
        'platform/a.test.ts',
      ]) {
        quiet(path, text)
      }
    }
    quiet('platform/process/config.ts', 'f(config.env, vite.env)\n// process.env\n"process.env"')
  })
})

describe('tidy on functions', () => {
  const body = (count: number) => '  f()\n'.repeat(count)

  test('requires them to fit on a screen', () => {
    quiet('a/b.ts', `function x() {\n${body(68)}}`)
    says('a/b.ts', `\nfunction x() {\n${body(69)}}`, /^x has 71 lines/, 2)
    says('a/b.ts', `const x = () => {\n${body(69)}}`, /^x has 71 lines/)
    says('a/b.ts', `const o = { x() {\n${body(69)}} }`, /^x has 71 lines/)
    says('a/b.ts', `g(() => {\n${body(69)}})`, /^a function has 71 lines/)
  })

  test('counts the named functions of a factory separately', () => {
    quiet('a/b.ts', `function x() {\n${body(30)}function y() {\n${body(50)}}\nreturn y }`)
    quiet('a/b.ts', `function x() {\nreturn { y() {\n${body(55)}},\n z: () => {\n${body(55)}} } }`)
    says('a/b.ts', `function x() {\nfunction y() {\n${body(70)}}\nreturn y }`, /^y has 72 lines/, 2)
    says('a/b.ts', `function x() {\n${body(30)}g(() => {\n${body(50)}})\n}`, /^x has/)
  })

  test('requires a reason for a factory over 120 lines', () => {
    const inner = (count: number) =>
      `function y() {\n${body(55)}}\nfunction z() {\n${body(count)}}\n`
    quiet('a/b.ts', `function x() {\n${inner(59)}}`)
    says('a/b.ts', `function x() {\n${inner(60)}}`, /^x has 121 lines with its inner functions/)
    quiet('a/b.ts', `// Long, because it is one state.\nfunction x() {\n${inner(60)}}`)
  })

  test('ignores functions that declare tests', () => {
    const tests = `describe('x', () => {\n${body(80)}})`
    quiet('a/b.test.ts', tests)
    says('a/b.ts', tests, /has 82 lines/)
    const suite = `function suite() {\n${body(80)}check('x')\n}
function check(name) {\n  test(name, () => {})\n}`
    quiet('a/b.conformance.ts', suite)
    says('a/b.test.ts', `function x() {\n${body(80)}}`, /^x has 82 lines/)
  })
})

describe('tidy on SQL', () => {
  const statements = [
    "'select 1'",
    "'select a, b from t'",
    '`\nselect *\nfrom t where a = $' + '{x}`',
    "'INSERT INTO t VALUES (1)'",
    '`update only s.t as x set a = 1`',
    '`update $' + '{schema}.t set a = 1`',
    "'delete from t'",
    '`with gone as (delete from t returning *) select 1`',
    "'create unlogged table t ()'",
    "'select now()'",
  ]

  test('allows it only in store.ts, migrations, messaging, platform and chassis', () => {
    for (const text of statements) {
      says('services/order/routes.ts', `f(${text})`, /has SQL/)
      for (const path of [
        'services/order/store.ts',
        'messaging/outbox/outbox.ts',
        'chassis/idempotency.ts',
        'platform/database/migrate.ts',
        'services/order/migrations/001-initial.ts',
        'tools/audit.ts',
        'services/order/routes.test.ts',
      ]) {
        quiet(path, `f(${text})`)
      }
    }
  })

  test('does not mistake a sentence for SQL', () => {
    const sentences = [
      'Select a style from the list',
      'with retries',
      'update the order',
      'selected',
      'delete',
      'with',
    ]
    for (const text of sentences) quiet('apps/demo/page.ts', `f('${text}')`)
  })
})

describe('tidy on tests', () => {
  test('rejects a test marked to run alone', () => {
    for (const text of [
      "test.only('x', f)",
      "t.test('x', { only: true }, f)",
      "describe.only('x', f)",
    ]) {
      says('a/b.test.ts', text, /runs alone/)
    }
  })

  test('requires a reason for each skipped test', () => {
    for (const text of [
      "test.skip('x', f)",
      "it('x', { skip: true }, f)",
      't.skip()',
      "test.todo('x')",
    ]) {
      says('a/b.test.ts', text, /is left out/)
    }
    quiet('a/b.test.ts', "test('x', { skip: 'no Kafka here' }, f)\nt.skip('why')")
    quiet('a/b.test.ts', "test('x', { skip: !kafka && 'no Kafka here' }, f)\nstream.skip()")
  })
})

describe('tidy on the core', () => {
  test('requires clock, random numbers and host to be passed in', () => {
    const impure: Record<string, string> = {
      Buffer: 'Buffer.from(x)',
      process: 'process.pid',
      setTimeout: 'setTimeout(f, 1)',
      setInterval: 'const t = setInterval(f, 1)',
      'Date.now': 'const t = Date.now()',
      'Math.random': 'f(Math.random)',
      'new Date()': 'f(new Date())',
      crypto: 'crypto.randomUUID()',
      fetch: "fetch('x')",
      'AbortSignal.timeout': 'AbortSignal.timeout(1)',
      performance: 'f({ performance })',
    }
    for (const [name, text] of Object.entries(impure)) {
      says(
        'messaging/outbox/relay.ts',
        text,
        new RegExp(`^uses ${name.replace(/[()]/g, '\\$&')}:`),
        1,
        true,
      )
      quiet('platform/telemetry/telemetry.ts', text)
    }
  })

  test('distinguishes a member or a local name from the global', () => {
    const text = `x.process(y.fetch, { crypto: 1 })
interface A { process(): void; fetch: () => void }
function f(process) { return process() }
new Date(0)
`
    quiet('messaging/outbox/relay.ts', text, true)
  })

  test('allows the globals in systemRuntime', () => {
    const text = 'export const systemRuntime = { now: () => Date.now() }\n'
    quiet('platform/async/runtime.ts', text, true)
    says('platform/async/runtime.ts', `${text}const x = Date.now()`, /uses Date\.now/, 2, true)
    says('platform/other.ts', text, /uses Date\.now/, 1, true)
  })

  test('requires types to be imported separately from values, for the sake of the import rules', () => {
    for (const text of ["import { type A } from 'x'", "import a, { type A } from './x.ts'"]) {
      says('messaging/outbox/relay.ts', text, /a separate `import type`/, 1, true)
    }
    quiet('messaging/outbox/relay.ts', "import Type, { type Static } from 'typebox'", true)
    quiet(
      'messaging/outbox/relay.ts',
      "import { a, type A } from './x.ts'\nimport type { B } from 'y'",
      true,
    )
  })

  test('has the files that the import rules list', () => {
    const isCore = coreMatcher(readFileSync(`${root}.dependency-cruiser.json`, 'utf8'))
    for (const path of [
      'contracts/money.ts',
      'messaging/outbox/relay.ts',
      'messaging/embedded/bus.ts',
      'platform/async/runtime.ts',
      'platform/database/migrate.ts',
      'platform/telemetry/redact.ts',
      'chassis/idempotency.ts',
      'services/order/routes.ts',
      'services/billing/ledger.ts',
      'services/billing/migrations/001-initial.ts',
    ]) {
      assert.ok(isCore(path), path)
    }
    for (const path of [
      'contracts/money.test.ts',
      'messaging/kafka/bus.ts',
      'messaging/bus.conformance.ts',
      'platform/process/process.ts',
      'platform/telemetry/telemetry.ts',
      'chassis/service-process.ts',
      'services/order/main.ts',
      'services/order/service.ts',
      'apps/demo/main.ts',
      'tools/check/tidy.ts',
    ]) {
      assert.ok(!isCore(path), path)
    }
  })
})

function says(path: string, text: string, message: RegExp, line = 1, core = false): void {
  const found = findings(path, text, core)
  assert.equal(found.length, 1, `${path}: ${text}\n${JSON.stringify(found)}`)
  assert.match(found[0]!.message, message)
  assert.equal(found[0]!.line, line)
}

function quiet(path: string, text: string, core = false): void {
  assert.deepEqual(findings(path, text, core), [], `${path}: ${text}`)
}
