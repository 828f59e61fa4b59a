import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { allInOneConfig } from '../../apps/all-in-one/config.ts'
import { startAllInOne } from '../../apps/all-in-one/program.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import { readConfig } from '../../platform/process/config.ts'
import { curlBlocksIn, PAGES, readPage } from './pages.ts'

/**
 * Runs the curl commands of each page for users in one shell, in order, against a new program. Lines that begin with
 * `# ` are the output of the command above them. Ids and times differ from run to run, so ids are compared only by
 * which of them are equal. The Russian pages have the same commands (readme-languages.test.ts).
 */
const READ_LIMIT_MS = 20_000
const missing = ['bash', 'curl'].filter((name) => spawnSync(name, ['--version']).error)
const skip = missing.length > 0 && `this machine has no ${missing.join(' and no ')}`

const pages = PAGES.map((page) => ({ page, examples: examplesIn(readPage(page)) })).filter(
  ({ examples }) => examples.length > 0,
)

test('the pages have examples with responses', () => {
  const answers = pages.flatMap(({ examples }) => examples.filter(({ answer }) => answer !== ''))
  assert.ok(answers.length > 40, `${answers.length} answers`)
})

for (const { page, examples } of pages) {
  test(`the program responds as ${page}.md says`, { skip }, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'trifold-examples-'))
    const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: folder }
    const program = await startAllInOne(readConfig(allInOneConfig, environment))
    const shell = openShell(program.url)
    t.after(async () => {
      shell.close()
      await program.close()
      await rm(folder, { recursive: true, force: true })
    })
    const [normalizeExpected, normalizeActual] = [createNormalizer(), createNormalizer()]
    for (const { command, answer } of examples) {
      await t.test(command, async () => {
        const expected = normalizeExpected(answer)
        // Reads are retried, because this shell may send them before an event has taken effect.
        const isRead = !/ -X | -d |=\$\(/.test(command)
        const deadline = Date.now() + (isRead ? READ_LIMIT_MS : 0)
        for (;;) {
          const actual = normalizeActual(await shell.run(command))
          if (Date.now() > deadline) return assert.deepEqual(actual, expected)
          if (isSame(actual, expected)) return
          await systemRuntime.sleep(20)
        }
      })
    }
  })
}

function examplesIn(markdown: string): { command: string; answer: string }[] {
  return curlBlocksIn(markdown)
    .flatMap((block) => [...block.matchAll(/^([^#\n].*)\n((?:#.*\n)*)/gm)])
    .map(([, command = '', comment = '']) => ({ command, answer: comment.replace(/^# ?/gm, '') }))
}

/** Replaces each id by a number, equal ids by the same number, and each time by a word. */
function createNormalizer() {
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

/** A shell that keeps its variables from one command to the next. `$URL` is the address of the program. */
function openShell(url: string) {
  const END = '\u001e'
  const bash = spawn('bash', ['--norc'], {
    env: { ...process.env, URL: url },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
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
          const result = output.slice(0, end)
          output = output.slice(end + END.length)
          resolve(result)
        }
        bash.stdin.write(`${command}\nprintf '\\x1e'\n`)
      })
    },
    close: () => void bash.kill(),
  }
}
