import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { until } from '../platform/async/until.ts'
import { root } from './repository-files.ts'

const LAUNCHER = join(root, 'tools', 'launch.mjs')
const LIMIT_MS = 20_000
/** Makes this Node.js look like a version that cannot run TypeScript. */
const AS_OLD_NODE = [
  '--import',
  'data:text/javascript,Object.defineProperty(process, "version", { value: "v18.20.8" })',
]
const ENTRY = `
const [, path, ...args] = process.argv as string[]
const pathHead = process.env.PATH?.split(':')[0]
const facts = { main: import.meta.main, path, args, version: process.version, pathHead }
if (args[0] === 'wait') {
  process.on('SIGTERM', () => process.exit(7))
  setInterval(() => undefined, 1_000)
}
if (args[0] === 'kill') process.kill(process.pid, 'SIGKILL')
console.log(process.pid, JSON.stringify(facts))
if (args[0] !== 'wait') process.exitCode = Number(args[0])
`

let folder: string
let entry: string

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'trifold-launch-'))
  entry = join(folder, 'entry.ts')
  writeFileSync(entry, ENTRY)
})
after(() => rmSync(folder, { recursive: true, force: true }))

for (const [name, nodeArgs] of [
  ['a Node.js that is new enough', []],
  ['an older Node.js', AS_OLD_NODE],
] as const) {
  describe(`the launcher on ${name}`, () => {
    const launch = (...args: string[]) =>
      watch(spawn(process.execPath, [...nodeArgs, LAUNCHER, entry, ...args], { cwd: folder }))

    test('runs TypeScript as the main module, with its arguments and Node.js 24 first on PATH', async () => {
      const { ended, output } = launch('3', '--flag', 'two words')
      assert.deepEqual(await ended, { code: 3, signal: null })
      const { version, pathHead, ...facts } = JSON.parse(output().replace(/^\d+ /, ''))
      assert.deepEqual(facts, { main: true, path: entry, args: ['3', '--flag', 'two words'] })
      assert.ok(Number.parseInt(version.slice(1), 10) >= 24, version)
      assert.equal(pathHead, dirname(process.execPath))
    })

    test('forwards SIGTERM to the program and exits with its code', async () => {
      const { child, ended, output } = launch('wait')
      await until(async () => output() !== '', { limitMs: LIMIT_MS })
      child.kill('SIGTERM')
      assert.deepEqual(await ended, { code: 7, signal: null })
    })

    test('is killed by the signal that killed the program', async () => {
      assert.deepEqual(await launch('kill').ended, { code: null, signal: 'SIGKILL' })
    })

    test('stops the program when npm is killed, even an outer npm', async () => {
      const run = [process.execPath, ...nodeArgs, LAUNCHER, entry, 'wait']
      const inner = run.map((word) => `'${word}'`).join(' ')
      const scripts = { inner, outer: 'npm run inner && true' }
      writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module', scripts }))
      const { child, ended, output } = watch(
        spawn('npm', ['run', '--silent', 'outer'], { cwd: folder, env: { ...process.env } }),
      )
      await until(async () => output() !== '', { limitMs: LIMIT_MS })
      const program = Number.parseInt(output(), 10)
      assert.ok(isAlive(program))
      child.kill('SIGKILL')
      await until(async () => !isAlive(program), { limitMs: LIMIT_MS })
      await ended
    })
  })
}

describe('the launcher', () => {
  /** The output of a launcher in a separate repository, on an old Node.js, with nothing else on PATH. */
  async function failureOutput(prepare: (repository: string) => void): Promise<string> {
    const repository = mkdtempSync(join(folder, 'repository-'))
    mkdirSync(join(repository, 'tools'))
    const launcher = join(repository, 'tools', 'launch.mjs')
    copyFileSync(LAUNCHER, launcher)
    prepare(repository)
    const args = [...AS_OLD_NODE, launcher, entry, '0']
    const { ended, output } = watch(spawn(process.execPath, args, { env: { PATH: repository } }))
    assert.deepEqual(await ended, { code: 1, signal: null }, output())
    return output()
  }

  test('says in one sentence what to install if there is no Node.js 24', async () => {
    const output = await failureOutput((repository) => {
      mkdirSync(join(repository, 'node_modules'))
      // A file with this name that is not a working Node.js.
      writeFileSync(join(repository, 'node'), '', { mode: 0o755 })
    })
    assert.equal(
      output,
      'Trifold needs Node.js 24 or newer, but this is v18.20.8: install it from https://nodejs.org/en/download.\n',
    )
  })

  test('says in one sentence that the dependencies are not installed', async () => {
    const output = await failureOutput(() => undefined)
    assert.equal(output, 'The dependencies are not installed: run `npm ci` first.\n')
  })

  test('runs every npm script', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    const others = Object.values(scripts as Record<string, string>).filter(
      (script) => !/^node tools\/launch\.mjs [\w/-]+\.ts$/.test(script),
    )
    assert.deepEqual(others, ['npm run check && npm run unit'])
  })
})

function watch(child: ChildProcess) {
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal }))
  return { child, ended, output: () => output }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
