import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { allInOneConfig } from '../../apps/all-in-one/config.ts'
import type { Lab } from '../../apps/all-in-one/lab.ts'
import { startAllInOne } from '../../apps/all-in-one/program.ts'
import type { AuditInput } from '../../apps/audit/findings.ts'
import type { Bus } from '../../messaging/bus.ts'
import { createEmbeddedBus } from '../../messaging/embedded/bus.ts'
import { TOPICS } from '../../messaging/topics.ts'
import { systemRuntime } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import { readConfig } from '../../platform/process/config.ts'
import { type Client, createClient } from './client.ts'
import { startOnStack } from './stack-program.ts'
import { ON_STACK } from './world.ts'

export type Settings = Readonly<Record<string, string>>

/** The three services behind one address, in one process or in several. */
export interface RunningProgram extends Client {
  /** Switches services and the broker off and on; switching one on resolves when it is ready. */
  readonly lab: Lab
  /** The database of each service; in the all-in-one program, all three are the same database. */
  readonly databases: Readonly<Record<'orders' | 'billing' | 'notification', Database>>
  /** The log, if the audit can read it, in addition to the databases. */
  readonly log: Pick<AuditInput, 'bus'>
  readonly maildir: string
  /** Opens a client of the broker, as a foreign program would. */
  openBus(): Promise<Bus>
  close(): Promise<void>
}

/** A program in separate processes, which a test can kill or stop while it works. */
export interface ProgramApart {
  readonly client: Client
  /** Sends SIGKILL to all processes at once; resolves when they have ended. */
  kill(): Promise<void>
  /** Sends SIGTERM to all processes at once; resolves when all have ended successfully. */
  stop(): Promise<void>
  /** Starts the program again with its stored data. */
  restart(): Promise<RunningProgram>
  close(): Promise<void>
}

/** Creates a folder for the state of a program; `remove` deletes it. */
export async function temporaryFolder(): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-e2e-'))
  // PostgreSQL may run as a different user.
  await chmod(folder, 0o755)
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) }
}

/**
 * Starts the program, on its own folder unless `DATA_DIR` names one: the all-in-one in this process, or, if
 * TEST_STACK is true, the services as processes with their own servers.
 */
export async function startProgram(settings: Settings = {}): Promise<RunningProgram> {
  const { DATA_DIR: given, ...others } = settings
  const own = given === undefined ? await temporaryFolder() : undefined
  const folder = given ?? own!.folder
  const start = ON_STACK ? startOnStack : startEmbedded
  const program = await start(folder, others).catch(async (error) => {
    await own?.remove()
    throw error
  })
  return {
    ...program,
    async close() {
      await program.close()
      await own?.remove()
    },
  }
}

async function startEmbedded(folder: string, settings: Settings): Promise<RunningProgram> {
  const environment = { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: folder, ...settings }
  const program = await startAllInOne(readConfig(allInOneConfig, environment))
  const { url, lab, database, close } = program
  return {
    ...createClient(url),
    lab,
    databases: { orders: database, billing: database, notification: database },
    log: { bus: database },
    maildir: join(folder, 'mail'),
    openBus: () => createEmbeddedBus({ database, runtime: systemRuntime, topics: TOPICS }),
    close,
  }
}

/** Starts the program in separate processes, so that it can be killed. */
export async function startApart(settings: Settings = {}): Promise<ProgramApart> {
  return ON_STACK ? apartOnStack(settings) : apartEmbedded(settings)
}

async function apartOnStack(settings: Settings): Promise<ProgramApart> {
  const { folder, remove } = await temporaryFolder()
  const program = await startOnStack(folder, settings)
  return {
    client: program,
    kill: program.killServices,
    stop: program.stopServices,
    async restart() {
      await program.startServices()
      return program
    },
    async close() {
      await program.close()
      await remove()
    },
  }
}

async function apartEmbedded(settings: Settings): Promise<ProgramApart> {
  const { folder, remove } = await temporaryFolder()
  const child = spawnMain('apps/all-in-one', { ...inFolder(folder), ...settings })
  let again: RunningProgram | undefined
  return {
    client: await child.ready,
    async kill() {
      child.kill('SIGKILL')
      assert.deepEqual(await child.ended, { code: null, signal: 'SIGKILL' }, child.output())
    },
    async stop() {
      child.kill('SIGTERM')
      assert.deepEqual(await child.ended, { code: 0, signal: null }, child.output())
    },
    async restart() {
      again = await startProgram({ DATA_DIR: folder })
      return again
    },
    async close() {
      child.kill('SIGKILL')
      await child.ended
      await again?.close()
      await remove()
    },
  }
}

/** The minimal settings of the all-in-one. */
export const inFolder = (folder: string) => ({
  PORT: '0',
  LOG_LEVEL: 'silent',
  DATA_DIR: folder,
})

export interface ChildProgram {
  /** Resolves when the all-in-one is ready; rejects with its output if it ends before that. */
  readonly ready: Promise<Client>
  /** The output so far, standard output and standard error together. */
  output(): string
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
  readonly ended: Promise<{ code: number | null; signal: string | null }>
}

const ROOT = new URL('../../', import.meta.url)

/** Runs the `main.ts` of a folder, without this process's environment and without a developer's .env file. */
export function spawnMain(
  folder: 'apps/all-in-one' | `services/${'order' | 'billing' | 'notification'}`,
  environment: Settings,
): ChildProgram {
  const main = fileURLToPath(new URL(`${folder}/main.ts`, ROOT))
  const child = spawn(process.execPath, [main], {
    cwd: tmpdir(),
    env: { ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
  let output = ''
  const ready = new Promise<Client>((resolve, reject) => {
    const listen = (chunk: string) => {
      output += chunk
      const url = /Trifold is ready .* at (http:\S+)/.exec(output)?.[1]
      if (url) resolve(createClient(url))
    }
    child.stdout.setEncoding('utf8').on('data', listen)
    child.stderr.setEncoding('utf8').on('data', listen)
    void ended.then(() => reject(new Error(`the program ended:\n${output}`)))
  })
  // Callers that only wait for the end need not handle this rejection.
  ready.catch(() => undefined)
  return { ready, ended, output: () => output, kill: (signal) => void child.kill(signal) }
}
