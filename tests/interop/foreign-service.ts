import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { root } from '../../tools/repository-files.ts'
import { compileJava, findJava } from '../../tools/servers/java.ts'
import { kafkaLibraries } from '../../tools/servers/kafka.ts'

/** The service that the Java program replaces; see `java/ForeignService.java`. */
export type ForeignRole = 'billing' | 'original-billing' | 'order' | 'notification' | 'observer'

export interface Position {
  readonly topic: string
  readonly partition: number
  readonly offset: number
}

/** A message as the Java client received it, with its value and header values as text. */
export interface ForeignRecord extends Position {
  readonly key: string | null
  readonly value: string
  readonly headers: readonly (readonly [name: string, value: string])[]
}

export interface RefusedRecord extends ForeignRecord {
  readonly why: string
}

/** The last message of each account on the topic `balance`. */
export interface LastBalance {
  readonly accountId: string
  readonly balance: number
  readonly version: number
  readonly updated: string
}

export interface ForeignService {
  /** The messages that the program's strict reader has accepted so far; the list grows. */
  readonly records: readonly ForeignRecord[]
  /** The messages that the program's strict reader has rejected so far; the list grows. */
  readonly refusals: readonly RefusedRecord[]
  /** Sends a message without headers; the Java client chooses the partition by the key. */
  send(topic: string, key: string, value: string | object): Promise<Position>
  stop(): Promise<void>
}

export interface ForeignPrograms {
  start(brokers: string, role: ForeignRole): ForeignService
  /** Reads the topic `balance` to its end. Rejects if the strict reader rejects a message. */
  readBalances(
    brokers: string,
  ): Promise<{ records: ForeignRecord[]; last: LastBalance[]; cleanupPolicy: string }>
  remove(): Promise<void>
}

type Line =
  | { readonly sent: Position }
  | { readonly read: ForeignRecord }
  | { readonly refused: RefusedRecord }
  | { readonly balances: { readonly cleanupPolicy: string; readonly last: LastBalance[] } }

/** Compiles the Java program into a temporary folder, which `remove` deletes. */
export async function compileForeignPrograms(): Promise<ForeignPrograms> {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-java-'))
  const sourceFolder = join(root, 'tests', 'interop', 'java')
  const sources = readdirSync(sourceFolder).map((name) => join(sourceFolder, name))
  const libraries = await kafkaLibraries(console.log)
  const classPath = await compileJava(sources, libraries, folder, console.log)
  return {
    start: (brokers, role) => foreignService(run(classPath, brokers, role)),
    readBalances: (brokers) => balancesOf(run(classPath, brokers, 'balances')),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

interface Running {
  readonly input: Writable
  readonly lines: AsyncIterable<string>
  /** Rejects if the program fails, with the end of its error output. */
  readonly ended: Promise<void>
}

const HEAP_MB = 96
const ERROR_LENGTH = 4_000

/** Runs the Java program. It ends when its standard input closes, so it also ends when this process dies. */
function run(classPath: string, brokers: string, role: string): Running {
  const quiet = '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn'
  const heap = [`-Xmx${HEAP_MB}m`, '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
  const args = [...heap, quiet, '-cp', classPath, 'ForeignService', brokers, role]
  const java: ChildProcess = spawn(findJava('a foreign service'), args, {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let errors = ''
  java.stderr?.on('data', (chunk) => {
    errors = `${errors}${chunk}`.slice(-ERROR_LENGTH)
  })
  // Writing fails if the program has ended; `ended` reports that.
  java.stdin?.on('error', () => undefined)
  const ended = once(java, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`the foreign ${role} ended with code ${code}: ${errors}`)
  })
  // So that `ended` is no unhandled rejection while no caller awaits it.
  ended.catch(() => undefined)
  const lines = createInterface({ input: java.stdout as Readable })
  return { input: java.stdin as Writable, lines, ended }
}

function foreignService({ input, lines, ended }: Running): ForeignService {
  const records: ForeignRecord[] = []
  const refusals: RefusedRecord[] = []
  const waiting: ((position: Position) => void)[] = []
  const listening = listen()

  async function listen() {
    for await (const text of lines) {
      const line = JSON.parse(text) as Line
      if ('sent' in line) waiting.shift()?.(line.sent)
      if ('read' in line) records.push(line.read)
      if ('refused' in line) refusals.push(line.refused)
    }
  }

  return {
    records,
    refusals,
    async send(topic, key, value) {
      const body = typeof value === 'string' ? value : JSON.stringify(value)
      const sent = new Promise<Position>((resolve) => {
        waiting.push(resolve)
      })
      input.write(`${JSON.stringify({ topic, key, value: body })}\n`)
      const gone = ended.then(() => Promise.reject(new Error('the foreign service has ended')))
      return Promise.race([sent, gone])
    },
    async stop() {
      input.end()
      await Promise.all([ended, listening])
    },
  }
}

async function balancesOf({ input, lines, ended }: Running) {
  const records: ForeignRecord[] = []
  for await (const text of lines) {
    const line = JSON.parse(text) as Line
    if ('read' in line) records.push(line.read)
    if ('balances' in line) {
      input.end()
      await ended
      return { records, ...line.balances }
    }
  }
  await ended
  throw new Error('the foreign reader of balances ended without a result')
}
