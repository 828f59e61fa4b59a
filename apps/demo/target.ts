import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import Type from 'typebox'
import { reachable } from '../../platform/front-door/front-door.ts'
import { readConfig } from '../../platform/process/config.ts'
import { environment } from '../../platform/process/process.ts'
import { allInOneConfig } from '../all-in-one/config.ts'
import { type Client, createClient } from './client.ts'

/** The program that the demo drives. */
export interface Target {
  readonly url: string
  /** Stops the program and removes its folder if the demo started it. */
  close(): Promise<void>
}

export interface TargetOptions {
  /** The URL of the program to drive, which must be running. */
  readonly url?: string
  /** Whether to start a program even if one is already running. */
  readonly own: boolean
  readonly waitMs: number
}

const MAIN = new URL('../all-in-one/main.ts', import.meta.url)

/**
 * Finds the program at `url`, or at the default address if `url` is not given. If no healthy program is found
 * there, the demo starts one.
 */
export async function findTarget(
  { url, own, waitMs }: TargetOptions,
  interrupted: AbortSignal,
): Promise<Target> {
  if (own) {
    console.log('Starting a program in a temporary folder ...')
    return startOwn(interrupted)
  }
  const defaultUrl = localUrl()
  const client = createClient(url ?? defaultUrl, waitMs, interrupted)
  const isThere = () => isHealthy(client)
  const healthy = await (url ? client.until(isThere, Boolean) : isThere())
  interrupted.throwIfAborted()
  if (!healthy && url) throw new Error(`there is no healthy program at ${url}/orders/health`)
  if (!healthy) {
    console.log(`No program at ${defaultUrl}: starting one in a temporary folder ...`)
    return startOwn(interrupted)
  }
  console.log(`Program: ${client.baseUrl}`)
  return { url: client.baseUrl, close: async () => undefined }
}

/** The URL at which `npm start` would listen with the same environment. */
function localUrl(): string {
  const { HOST, PORT } = readConfig(Type.Pick(allInOneConfig, ['HOST', 'PORT']), environment())
  return `http://${reachable(HOST)}:${PORT}`
}

async function isHealthy(client: Client): Promise<boolean> {
  try {
    const { status, body } = await client.call('GET', '/orders/health')
    return status === 200 && (body as { status?: unknown } | null)?.status === 'OK'
  } catch {
    return false
  }
}

/** Starts the program as a separate process, so that its work does not distort the demo's measurements. */
async function startOwn(interrupted: AbortSignal): Promise<Target> {
  const startedMs = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'trifold-demo-'))
  const child = spawn(process.execPath, [fileURLToPath(MAIN)], {
    // The program gets neither the user's environment nor a .env file, because the promises assume the
    // default settings.
    cwd: folder,
    env: { SystemRoot: environment().SystemRoot, DATA_DIR: folder, PORT: '0', LOG_LEVEL: 'silent' },
    stdio: ['ignore', 'pipe', 'pipe'],
    // The program gets its own process group, so that an interruption from the terminal reaches only the
    // demo.
    detached: true,
  })
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  const endAtOnce = () => {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', endAtOnce)

  async function close(): Promise<void> {
    child.kill('SIGTERM')
    await exited
    process.removeListener('exit', endAtOnce)
    await rm(folder, { recursive: true, force: true })
  }

  try {
    const url = await readyAt(child, exited, interrupted)
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
    console.log(`Program: ${url}, ready after ${seconds} s`)
    return { url, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Resolves with the URL that the program prints when it is ready. */
async function readyAt(
  child: ChildProcessByStdio<null, Readable, Readable>,
  exited: Promise<void>,
  interrupted: AbortSignal,
): Promise<string> {
  let output = ''
  const ready = new Promise<string>((resolve) => {
    const read = (chunk: Buffer) => {
      output += chunk
      const url = /ready after .* at (http:\S+)/.exec(output)?.[1]
      if (url) resolve(url)
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
  })
  const failed = exited.then(() => {
    throw new Error(`the program did not start:\n${output.trim()}`)
  })
  const aborted = new Promise<never>((_resolve, reject) => {
    interrupted.addEventListener('abort', () => reject(interrupted.reason), { once: true })
  })
  return Promise.race([ready, failed, aborted])
}
