import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

/** The code of a program whose start runs the given code. */
const sourceOf = (start: string, options = '{}') => `
  import Type from '${import.meta.resolve('typebox')}'
  import { readConfig } from '${new URL('./config.ts', import.meta.url)}'
  import { runProcess } from '${new URL('./process.ts', import.meta.url)}'
  import { createLog, createTelemetry } from '${new URL('../telemetry/telemetry.ts', import.meta.url)}'
  const log = createLog('info', 'order')
  const busy = setInterval(() => {}, 1000)
  await runProcess('order', ${start}, ${options})`

/** Runs a program whose start runs the given code, and collects its output. */
function run(
  t: TestContext,
  start: string,
  options = '{}',
  env: Record<string, string> = {},
  folder = import.meta.dirname,
) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', sourceOf(start, options)], {
    cwd: folder,
    env: { ...process.env, ...env },
  })
  t.after(() => child.kill('SIGKILL'))
  let output = ''
  const checks = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
      for (const check of checks) check()
    })
  }
  const exit = once(child, 'exit').then(([code]) => code as number)
  return {
    child,
    exit: async () => ({ code: await exit, output }),
    prints: (text: string) =>
      new Promise<void>((resolve, reject) => {
        const check = () => output.includes(text) && resolve()
        checks.add(check)
        check()
        exit.then(() => reject(new Error(`ended without printing ${text}: ${output}`)))
      }),
  }
}

const WELL_BEHAVED = `async () => {
  console.log('started')
  return { close: async () => console.log('closed') }
}`

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`a process closes on ${signal} and ends with 0`, async (t) => {
    const program = run(t, WELL_BEHAVED)
    await program.prints('started')
    program.child.kill(signal)
    const { code, output } = await program.exit()
    assert.equal(code, 0)
    assert.match(output, /closed/)
  })
}

const NEVER_CLOSES = `async () => {
  console.log('started')
  return { close: () => { console.log('closing'); return new Promise(() => {}) } }
}`

test('a process ends with 1 if closing takes longer than the deadline', async (t) => {
  const program = run(t, NEVER_CLOSES, '{ deadlineMs: 50 }')
  await program.prints('started')
  program.child.kill('SIGTERM')
  const { code, output } = await program.exit()
  assert.equal(code, 1)
  assert.match(output, /did not close before its deadline/)
})

for (const [signal, expected] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const) {
  test(`a process ends at once with ${expected} on a second signal, ${signal}`, async (t) => {
    const program = run(t, NEVER_CLOSES)
    await program.prints('started')
    program.child.kill('SIGTERM')
    await program.prints('closing')
    // A repeated signal within 300 ms counts as the same Ctrl-C, passed on by npm. The signal is therefore
    // sent until it counts as a second one.
    const again = setInterval(() => program.child.kill(signal), 50)
    assert.equal((await program.exit()).code, expected)
    clearInterval(again)
  })
}

test('a process that gets a signal while it starts closes once it has started', async (t) => {
  const program = run(
    t,
    `async () => {
      console.log('starting')
      await new Promise((resolve) => process.once('SIGTERM', resolve))
      return { close: async () => console.log('closed') }
    }`,
  )
  await program.prints('starting')
  program.child.kill('SIGTERM')
  const { code, output } = await program.exit()
  assert.equal(code, 0)
  assert.match(output, /closed/)
})

/** A program that reports on standard error when it has written far more than a pipe can hold. */
const TALKATIVE = `async () => {
  for (let line = 0; line < 5_000; line += 1) log.info({ line }, 'x'.repeat(1_000))
  const { body } = await createTelemetry('order').scrape()
  process.stderr.write('dropped ' + /trifold_log_lines_dropped_total\\S* (\\d+)/.exec(body)[1] + ';')
  return { close: async () => log.info({}, 'closed') }
}`

const OUTPUTS: Readonly<Record<string, (t: TestContext) => Promise<number | 'pipe'>>> = {
  'a pipe without a reader': async () => 'pipe',
  'a full disk': async (t) => {
    const full = await open('/dev/full', 'w')
    t.after(() => full.close())
    return full.fd
  },
}

for (const [what, output] of Object.entries(OUTPUTS)) {
  test(`a process keeps serving, counts dropped lines and closes while its log goes to ${what}`, async (t) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', sourceOf(TALKATIVE)], {
      cwd: import.meta.dirname,
      stdio: ['ignore', await output(t), 'pipe'],
    })
    t.after(() => child.kill('SIGKILL'))
    const [said] = await once(child.stderr!, 'data')
    assert.ok(Number(/dropped (\d+);/.exec(String(said))?.[1]) > 1_000, String(said))
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'exit'), [0, null])
  })
}

test('a process keeps serving after the reader of its log has exited', async (t) => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', sourceOf(TALKATIVE)], {
    cwd: import.meta.dirname,
  })
  t.after(() => child.kill('SIGKILL'))
  child.stdout.destroy()
  await once(child.stderr, 'data')
  child.kill('SIGTERM')
  assert.deepEqual(await once(child, 'exit'), [0, null])
})

test('a process prints the errors of a configuration and ends with 2', async (t) => {
  const start = `async (env) => readConfig(Type.Object({
    PORT: Type.Integer(), SIZE: Type.Integer() }), env)`
  const { code, output } = await run(t, start, '{}', { PORT: 'x', SIZE: '' }).exit()
  assert.equal(code, 2)
  assert.equal(
    output,
    'order: the configuration is invalid:\n' +
      '  PORT must be an integer, not "x"\n' +
      '  SIZE is not set; it must be an integer\n',
  )
})

test('a process logs a failed start and ends with 1', async (t) => {
  const program = run(t, `() => { throw new Error('no luck') }`)
  const { code, output } = await program.exit()
  assert.equal(code, 1)
  assert.match(output, /no luck/)
})

for (const [name, fault] of [
  ['exception', `setTimeout(() => { throw new Error('unforeseen') })`],
  ['rejection', `Promise.reject(new Error('unforeseen'))`],
] as const) {
  test(`a process logs an uncaught ${name}, closes and ends with 1`, async (t) => {
    const program = run(
      t,
      `async () => {
        ${fault}
        return { close: async () => console.log('closed') }
      }`,
    )
    const { code, output } = await program.exit()
    assert.equal(code, 1)
    assert.match(output, /unforeseen/)
    assert.match(output, /closed/)
  })
}

test('a process reads .env in the working folder, but existing variables take precedence', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-process-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, '.env'), 'FROM_FILE=file\nFROM_BOTH=file\n')
  const start = `async ({ FROM_FILE, FROM_BOTH }) => {
    console.log(FROM_FILE, FROM_BOTH)
    return { close: async () => {} }
  }`
  await run(t, start, '{}', { FROM_BOTH: 'environment' }, folder).prints('file environment')
})

test('a process reports that .env cannot be read, and ends with 1', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-process-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, '.env'))
  const { code, output } = await run(t, WELL_BEHAVED, '{}', {}, folder).exit()
  assert.equal(code, 1)
  assert.match(output, /^order: \.env cannot be read: .*\n$/)
})

test('a process reports in one sentence that the schema belongs to a newer version, closes and ends with 2', async (t) => {
  const start = `async () => {
    const { SchemaTooNewError } = await import('${new URL('../database/migrate.ts', import.meta.url)}')
    setTimeout(() => Promise.reject(new SchemaTooNewError('orders', 18, 6)))
    return { close: async () => console.log('closed') }
  }`
  const { code, output } = await run(t, start).exit()
  assert.equal(code, 2)
  assert.match(
    output,
    /the schema orders belongs to a newer version: it requires a version with migration/,
  )
  assert.match(output, /closed/)
  assert.doesNotMatch(output, /"stack"/)
})
