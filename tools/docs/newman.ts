import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { root } from '../repository-files.ts'

/**
 * The output of newman for one folder of the acceptance collection, without the parts that differ from run to
 * run.
 */
export interface NewmanFolder {
  readonly name: string
  readonly requests: number
  readonly assertions: number
  readonly output: string
}

const COLLECTION = 'tests/acceptance/trifold.postman_collection.json'
const LAST_LINES = 40
const ADDRESS = 'http://127.0.0.1:8000'

/** Runs the acceptance collection. If an assertion fails, rejects with the last lines of newman's output. */
export async function runNewman(url: string): Promise<NewmanFolder[]> {
  const args = ['run', COLLECTION, '--env-var', `baseUrl=${url}`, '--color', 'off']
  const newman = spawn(process.execPath, ['node_modules/newman/bin/newman.js', ...args], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const ended = new Promise<number | null>((resolve) => newman.once('close', resolve))
  const output = await text(newman.stdout)
  if ((await ended) !== 0) {
    // newman lists failures at the end of its output.
    const last = output.trimEnd().split('\n').slice(-LAST_LINES).join('\n')
    throw new Error(`newman failed:\n${last}`)
  }
  return readNewman(output.replaceAll(url, ADDRESS))
}

/**
 * The folders in the output of a run. Ids are replaced by numbers, in the order of their first appearance,
 * and times and sizes are removed. If a request polls until a condition is true, only its last repetition is
 * kept.
 */
export function readNewman(output: string): NewmanFolder[] {
  const [, ...folders] = output.split('\n┌─', 1)[0]!.split('\n❏ ')
  return folders.map((folder) => {
    const [name = '', ...blocks] = folder.split(/\n↳ /)
    const requests = blocks.filter((block, index) => titleOf(block) !== titleOf(blocks[index + 1]))
    const body = requests
      .map((block) => `↳ ${block.trimEnd()}\n`)
      .join('\n')
      .replace(/ \[(\d{3} [^,\]]+),[^\]]*\]/g, ' [$1]')
    const assertions = body.match(/^ {2}✓ /gm)?.length ?? 0
    const output = withoutIds(`❏ ${name.trim()}\n${body}`)
    return { name: name.trim(), requests: requests.length, assertions, output }
  })
}

function withoutIds(text: string): string {
  const ids = new Map<string, string>()
  return text.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => {
    ids.set(id, ids.get(id) ?? `{id ${ids.size + 1}}`)
    return ids.get(id) as string
  })
}

const titleOf = (block: string | undefined) => block?.split('\n', 1)[0]

/** The file that shows the output of one folder. */
export function newmanReport({ name, requests, assertions, output }: NewmanFolder): string {
  const command = `npx newman run ${COLLECTION} --env-var baseUrl=${ADDRESS} --folder ${name}`
  return `$ ${command}

${output}
${requests} requests, ${assertions} assertions, 0 failed

Written by npm run docs. Times and sizes are left out, and ids are numbered. Of a request that was
repeated until its condition was true, only the last repetition is shown.
`
}
