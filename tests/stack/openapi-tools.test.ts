import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { PAGES, readPage } from '../../tools/docs/pages.ts'
import { root } from '../../tools/repository-files.ts'
import { startProgram, temporaryFolder } from '../e2e/program.ts'
import { callsOn, type OpenApi, typedCalls } from './readme-client.ts'

/**
 * Runs tools on the OpenAPI documents that the services serve: a linter, a client generator and a fuzzer. Their
 * versions are pinned here, because as dependencies they would be larger than the program.
 */
const REDOCLY = '@redocly/cli@2.77.0'
/** The generator needs TypeScript 5; we check the generated types with our own TypeScript. */
const GENERATOR = ['-p', 'openapi-typescript@7.13.0', '-p', 'typescript@5.9.3']
const SCHEMATHESIS = '4.32.5'
/**
 * A seed and a number of requests per operation, not a time: a run limited by time would send new requests on
 * a faster machine, and could fail without a change of the code.
 */
const EXTENT = ['--seed', '1', '--max-examples', '150']
/**
 * In the order service, DELETE cancels an order, which stays readable. In the notification service, DELETE
 * /notification/account/{accountId} removes contact and texts, and GET then lists no messages: accounts
 * belong to the billing service, so the notification service cannot know that an account does not exist.
 * Schemathesis ignores this check's setting per operation when it follows links.
 */
const KEPT_AFTER_DELETE = ['--exclude-checks', 'use_after_free']
const EXCLUDED: Partial<Record<string, readonly string[]>> = {
  orders: KEPT_AFTER_DELETE,
  notification: KEPT_AFTER_DELETE,
}
const SERVICES = ['orders', 'billing', 'notification'] as const

const trifold = await startProgram()
const { folder, remove } = await temporaryFolder()
after(async () => {
  await trifold.close()
  await remove()
})

const documents = new Map<string, OpenApi>()
for (const service of SERVICES) {
  const document = await trifold.read<OpenApi>(`/${service}/openapi.json`)
  documents.set(service, document)
  await writeFile(join(folder, `${service}.json`), JSON.stringify(document))
}

async function run(command: string, args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(command, args, { cwd: folder, maxBuffer: 64 * 1024 * 1024 })
  } catch (error) {
    const { message, stdout, stderr } = error as Error & { stdout: string; stderr: string }
    assert.fail(`${message}\n${stdout}\n${stderr}`)
  }
}

const npx = (...args: readonly string[]) => run('npx', ['--yes', ...args])

test("the documents pass redocly's recommended rules", async () => {
  const files = SERVICES.map((service) => `${service}.json`)
  await npx(REDOCLY, 'lint', ...files, '--extends', 'recommended', '--max-problems', '1000')
})

test('a strict client from openapi-typescript compiles against every example on the pages', async () => {
  for (const service of SERVICES) {
    await npx(...GENERATOR, 'openapi-typescript', `${service}.json`, '-o', `${service}.ts`)
  }
  const calls = PAGES.flatMap((page) => callsOn(readPage(page)))
  const { source, count, undocumented } = typedCalls(calls, documents)
  assert.ok(count > 25, `${count} calls`)
  // Probes, scrapes, documents and the switches of the lab are not part of the API.
  const others = undocumented.filter((path) => !/\/actuator\/|^\/lab\/|\.json$/.test(path))
  assert.deepEqual(others, [])
  await writeFile(join(folder, 'client.ts'), source)
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--noEmit', '--ignoreConfig']
  await run(process.execPath, [tsc, ...strict, 'client.ts'])
})

const hasPython = spawnSync('python3', [
  '-c',
  'import sys, venv; sys.exit(sys.version_info < (3, 10))',
])
const skip = hasPython.status !== 0 && 'this machine has no python3 of 3.10 or later with venv'

for (const service of SERVICES) {
  test(`schemathesis finds nothing in ${service}`, { skip }, async () => {
    const schemathesis = await installSchemathesis()
    const config = join(root, 'tests/stack/schemathesis.toml')
    const checks = ['--checks', 'all', ...(EXCLUDED[service] ?? [])]
    const target = `${trifold.url}/${service}/openapi.json`
    const command = ['--config-file', config, 'run', target, '--no-color']
    await run(schemathesis, [...command, ...checks, ...EXTENT, '--continue-on-failure'])
  })
}

/** Installs schemathesis into a virtual environment that later runs reuse. */
async function installSchemathesis(): Promise<string> {
  const environment = join(root, `.cache/schemathesis-${SCHEMATHESIS}`)
  const command = join(environment, 'bin/schemathesis')
  if (existsSync(command)) return command
  await run('python3', ['-m', 'venv', environment])
  const pip = join(environment, 'bin/pip')
  await run(pip, ['install', '--quiet', `schemathesis==${SCHEMATHESIS}`])
  return command
}
