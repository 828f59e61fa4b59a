import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

/** A program whose start is the given source. */
const sourceOf = (start: string, options = '{}') => `
  import Type from '${import.meta.resolve('typebox')}'
  import { readConfig } from '${new URL('./config.ts', import.meta.url)}'
  import { runProcess } from '${new URL('./process.ts', import.meta.url)}'
  import { createLog, createTelemetry } from '${new URL('../telemetry/telemetry.ts', import.meta.url)}'
  const log = createLog('info', 'order')
  const busy = setInterval(() => {}, 1000)
  await runProcess('order', ${start}, ${options})`

/** Runs a program whose start is the given source, and collects what it writes. */
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
  const heard = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
      for (const check of heard) check()
    })
  }
  const exit = once(child, 'exit').then(([code]) => code as number)
  return {
    child,
    exit: async () => ({ code: await exit, output }),
    says: (text: string) =>
      new Promise<void>((resolve, reject) => {
        const check = () => output.includes(text) && resolve()
        heard.add(check)
        check()
        exit.then(() => reject(new Error(`ended without saying ${text}: ${output}`)))
      }),
  }
}

const WELL_BEHAVED = `async () => {
  console.log('started')
  return { close: async () => console.log('closed') }
}`

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`closes on ${signal} and ends with 0`, async (t) => {
    const program = run(t, WELL_BEHAVED)
    await program.says('started')
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

test('ends with 1 when closing takes longer than its deadline', async (t) => {
  const program = run(t, NEVER_CLOSES, '{ deadlineMs: 50 }')
  await program.says('started')
  program.child.kill('SIGTERM')
  const { code, output } = await program.exit()
  assert.equal(code, 1)
  assert.match(output, /did not close before its deadline/)
})

for (const [signal, expected] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const) {
  test(`a second signal, ${signal}, ends it at once with ${expected}`, async (t) => {
    const program = run(t, NEVER_CLOSES)
    await program.says('started')
    program.child.kill('SIGTERM')
    await program.says('closing')
    // One that follows at once is the same Ctrl-C, passed on by npm: so it is sent until it counts.
    const again = setInterval(() => program.child.kill(signal), 50)
    assert.equal((await program.exit()).code, expected)
    clearInterval(again)
  })
}

test('a signal during the start closes what has started', async (t) => {
  const program = run(
    t,
    `async () => {
      console.log('starting')
      await new Promise((resolve) => process.once('SIGTERM', resolve))
      return { close: async () => console.log('closed') }
    }`,
  )
  await program.says('starting')
  program.child.kill('SIGTERM')
  const { code, output } = await program.exit()
  assert.equal(code, 0)
  assert.match(output, /closed/)
})

/** Says so on standard error when it has written far more than a pipe holds. */
const TALKATIVE = `async () => {
  for (let line = 0; line < 5_000; line += 1) log.info({ line }, 'x'.repeat(1_000))
  const { body } = await createTelemetry('order').scrape()
  process.stderr.write('dropped ' + /trifold_log_lines_dropped_total\\S* (\\d+)/.exec(body)[1] + ';')
  return { close: async () => log.info({}, 'closed') }
}`

const OUTPUTS: Readonly<Record<string, (t: TestContext) => Promise<number | 'pipe'>>> = {
  'a pipe that nobody reads': async () => 'pipe',
  'a disk that is full': async (t) => {
    const full = await open('/dev/full', 'w')
    t.after(() => full.close())
    return full.fd
  },
}

for (const [what, output] of Object.entries(OUTPUTS)) {
  test(`serves on and closes while its log goes to ${what}, and counts the lines`, async (t) => {
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

test('serves on when the reader of its log has gone', async (t) => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', sourceOf(TALKATIVE)], {
    cwd: import.meta.dirname,
  })
  t.after(() => child.kill('SIGKILL'))
  child.stdout.destroy()
  await once(child.stderr, 'data')
  child.kill('SIGTERM')
  assert.deepEqual(await once(child, 'exit'), [0, null])
})

test('prints a wrong configuration readably and ends with 2', async (t) => {
  const start = `async (env) => readConfig(Type.Object({
    PORT: Type.Integer(), SIZE: Type.Integer() }), env)`
  const { code, output } = await run(t, start, '{}', { PORT: 'x', SIZE: '' }).exit()
  assert.equal(code, 2)
  assert.equal(
    output,
    'order: the configuration is wrong:\n' +
      '  PORT must be an integer, not "x"\n' +
      '  SIZE is not set; it must be an integer\n',
  )
})

test('logs a start that failed and ends with 1', async (t) => {
  const program = run(t, `() => { throw new Error('no luck') }`)
  const { code, output } = await program.exit()
  assert.equal(code, 1)
  assert.match(output, /no luck/)
})

for (const [name, fault] of [
  ['an exception', `setTimeout(() => { throw new Error('unforeseen') })`],
  ['a rejection', `Promise.reject(new Error('unforeseen'))`],
] as const) {
  test(`${name} that nobody caught is logged, closes the program and ends it with 1`, async (t) => {
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

test('reads .env in the working folder, which overrides nothing', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-process-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, '.env'), 'FROM_FILE=file\nFROM_BOTH=file\n')
  const start = `async ({ FROM_FILE, FROM_BOTH }) => {
    console.log(FROM_FILE, FROM_BOTH)
    return { close: async () => {} }
  }`
  await run(t, start, '{}', { FROM_BOTH: 'environment' }, folder).says('file environment')
})

test('says that .env cannot be read, and ends with 1', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-process-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, '.env'))
  const { code, output } = await run(t, WELL_BEHAVED, '{}', {}, folder).exit()
  assert.equal(code, 1)
  assert.match(output, /^order: \.env cannot be read: .*\n$/)
})

test('a schema of a newer version is said in one sentence, closes the program and ends it with 2', async (t) => {
  const start = `async () => {
    const { SchemaTooNewError } = await import('${new URL('../database/migrate.ts', import.meta.url)}')
    setTimeout(() => Promise.reject(new SchemaTooNewError('orders', 18, 6)))
    return { close: async () => console.log('closed') }
  }`
  const { code, output } = await run(t, start).exit()
  assert.equal(code, 2)
  assert.match(
    output,
    /the schema orders belongs to a newer version: it needs a version that knows/,
  )
  assert.match(output, /closed/)
  assert.doesNotMatch(output, /"stack"/)
})
