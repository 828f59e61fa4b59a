import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../../platform/config.ts'
import { allInOneConfig } from '../all-in-one/config.ts'
import { startAllInOne } from '../all-in-one/program.ts'
import { type Client, createClient } from './client.ts'

/** The program that the demo drives. */
export interface Target {
  readonly url: string
  /** Ends the program and removes its folder, where it is the demo's own. */
  close(): Promise<void>
}

/**
 * The program at the given address, which must be there; else the one at the default address, if
 * there is one; else one of our own.
 */
export async function findTarget(
  given: string | undefined,
  defaultUrl: string,
  waitMs: number,
  interrupted: AbortSignal,
): Promise<Target> {
  const url = given ?? defaultUrl
  const client = createClient(url, waitMs, interrupted)
  const healthy = given
    ? await client.until(() => isHealthy(client), Boolean)
    : await isHealthy(client)
  interrupted.throwIfAborted()
  if (healthy) {
    console.log(`Program: ${url}`)
    return { url, close: async () => undefined }
  }
  if (given) throw new Error(`nothing answers ${url}/orders/health`)
  console.log(`No program at ${url}: starting one in a temporary folder ...`)
  return startOwn()
}

async function isHealthy(client: Client): Promise<boolean> {
  try {
    const { status, body } = await client.call('GET', '/orders/health')
    return status === 200 && (body as { status?: unknown } | null)?.status === 'OK'
  } catch {
    return false
  }
}

async function startOwn(): Promise<Target> {
  const begun = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'trifold-demo-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: folder }
    const program = await startAllInOne(readConfig(allInOneConfig, environment))
    const seconds = ((performance.now() - begun) / 1000).toFixed(1)
    console.log(`Program: ${program.url}, ready after ${seconds} s`)
    return {
      url: program.url,
      async close() {
        try {
          await program.close()
        } finally {
          await remove()
        }
      },
    }
  } catch (error) {
    await remove()
    throw error
  }
}
