import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { allInOneConfig } from '../../apps/all-in-one/config.ts'
import { type Program, startAllInOne } from '../../apps/all-in-one/program.ts'
import { readConfig } from '../../platform/config.ts'
import { type Client, createClient } from './client.ts'

type Settings = Readonly<Record<string, string>>

export type RunningProgram = Client & Program

/** A folder for the state of a program; `remove` takes it away again. */
export async function temporaryFolder(): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-e2e-'))
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) }
}

/** The all-in-one program in this process, on a folder of its own unless `DATA_DIR` names one. */
export async function startProgram(settings: Settings = {}): Promise<RunningProgram> {
  const own = settings.DATA_DIR === undefined ? await temporaryFolder() : undefined
  const program = await startAllInOne(
    readConfig(allInOneConfig, {
      PORT: '0',
      LOG_LEVEL: 'silent',
      DATA_DIR: own?.folder,
      ...settings,
    }),
  )
  return {
    ...program,
    ...createClient(program.url),
    async close() {
      await program.close()
      await own?.remove()
    },
  }
}

export interface ChildProgram {
  /** Resolves when it is ready; rejects with its output when it ends before. */
  readonly ready: Promise<Client>
  /** Everything that it has written. */
  output(): string
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
  readonly ended: Promise<{ code: number | null; signal: string | null }>
}

const MAIN = fileURLToPath(new URL('../../apps/all-in-one/main.ts', import.meta.url))

/** The program as a process of its own, to be killed. Nothing of this environment reaches it. */
export function spawnProgram(dataDir: string, settings: Settings = {}): ChildProgram {
  const child = spawn(process.execPath, [MAIN], {
    env: { PORT: '0', LOG_LEVEL: 'silent', DATA_DIR: dataDir, ...settings },
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
  // Whoever waits for the end only need not handle that it was never ready.
  ready.catch(() => undefined)
  return { ready, ended, output: () => output, kill: (signal) => void child.kill(signal) }
}
