import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { allInOneConfig } from '../apps/all-in-one/config.ts'
import { startAllInOne } from '../apps/all-in-one/program.ts'
import { readConfig } from '../platform/config.ts'
import { systemRuntime } from '../platform/runtime.ts'
import { root } from './repository-files.ts'

/**
 * The README's shell lines, run in their order by one shell against a fresh program. Lines that begin
 * with `# ` are the answer of the command above them. Ids and times differ from run to run; which
 * ids are the same does not.
 */
const ADDRESS = 'localhost:8000'
const READ_LIMIT_MS = 20_000
const lacking = ['bash', 'curl'].filter((name) => spawnSync(name, ['--version']).error)
const skip = lacking.length > 0 && `this machine has no ${lacking.join(' and no ')}`

const folder = await mkdtemp(join(tmpdir(), 'trifold-readme-'))
const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: folder }
const program = await startAllInOne(readConfig(allInOneConfig, environment))
const shell = openShell()
after(async () => {
  shell.close()
  await program.close()
  await rm(folder, { recursive: true, force: true })
})

const examples = examplesIn(await readFile(`${root}README.md`, 'utf8'))

test('the README has examples with answers', () => {
  assert.ok(examples.filter(({ answer }) => answer !== '').length > 30)
})

test('the README answers as the program does', { skip }, async (t) => {
  const [here, there] = [createNames(), createNames()]
  for (const { command, answer } of examples) {
    await t.test(command, async () => {
      const expected = here(answer)
      const real = command.replaceAll(ADDRESS, new URL(program.url).host)
      // What follows from an event may take a moment more than this shell, which never pauses.
      const isRead = !/ -X | -d |=\$\(/.test(command)
      const deadline = Date.now() + (isRead ? READ_LIMIT_MS : 0)
      for (;;) {
        const actual = there(await shell.run(real))
        if (Date.now() > deadline) return assert.deepEqual(actual, expected)
        if (isSame(actual, expected)) return
        await systemRuntime.sleep(20)
      }
    })
  }
})

function examplesIn(markdown: string): { command: string; answer: string }[] {
  const blocks = [...markdown.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, lines]) => lines as string)
  return blocks
    .filter((block) => block.includes('curl '))
    .flatMap((block) => [...block.matchAll(/^([^#\n].*)\n((?:#.*\n)*)/gm)])
    .map(([, command = '', comment = '']) => ({ command, answer: comment.replace(/^# ?/gm, '') }))
}

/** Puts a number in the place of each id, the same for the same id, and a word in that of each time. */
function createNames() {
  const ids = new Map<string, string>()
  const nameOf = (id: string) => {
    ids.set(id, ids.get(id) ?? `id ${ids.size + 1}`)
    return ids.get(id) as string
  }
  return (text: string): unknown => {
    const named = text
      .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, nameOf)
      .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'a time')
    try {
      return JSON.parse(named)
    } catch {
      return named.trim()
    }
  }
}

function isSame(actual: unknown, expected: unknown): boolean {
  try {
    assert.deepEqual(actual, expected)
    return true
  } catch {
    return false
  }
}

/** A shell that keeps its variables from one command to the next. */
function openShell() {
  const END = '\u001e'
  const bash = spawn('bash', ['--norc'], { stdio: ['pipe', 'pipe', 'inherit'] })
  bash.on('error', () => undefined)
  let output = ''
  let onOutput = () => {}
  bash.stdout.on('data', (chunk: Uint8Array) => {
    output += new TextDecoder().decode(chunk)
    onOutput()
  })
  return {
    run(command: string): Promise<string> {
      return new Promise((resolve) => {
        onOutput = () => {
          const end = output.indexOf(END)
          if (end < 0) return
          const said = output.slice(0, end)
          output = output.slice(end + END.length)
          resolve(said)
        }
        bash.stdin.write(`${command}\nprintf '\\x1e'\n`)
      })
    },
    close: () => void bash.kill(),
  }
}
