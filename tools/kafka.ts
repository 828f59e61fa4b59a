import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { runProcess } from '../platform/process.ts'
import { findJava } from './java.ts'
import { startKept } from './kept-process.ts'
import { downloadJars } from './maven.ts'
import { freePorts } from './ports.ts'
import { root } from './repository-files.ts'
import { type Restartable, restartable } from './restartable.ts'

export interface Kafka {
  /** `host:port`, as clients want it. */
  readonly brokers: string
  readonly server: Restartable
  close(): Promise<void>
}

export interface KafkaOptions {
  /** Its data, configuration and log; a later start in the same folder goes on with what is there. */
  readonly folder: string
  /** Its controller takes the port after this one. Without it two free ports are found. */
  readonly port?: number
  readonly heapMb?: number
  readonly say?: (line: string) => void
}

const VERSION = '4.3.1'
const READY_LIMIT_MS = 90_000

/**
 * Starts Apache Kafka: one node that is broker and controller, on loopback only, from the archives
 * that the project publishes on Maven Central (about 45 MB, kept in `.cache/`). Needs Java. Resolves
 * when it answers; topics are never made by accident.
 */
export async function startKafka(options: KafkaOptions): Promise<Kafka> {
  const { folder, heapMb = 512, say = () => undefined } = options
  const java = findJava('Apache Kafka')
  const libraries = await kafkaLibraries(say)
  const port = options.port ?? (await freePorts(somewhere(), 2))
  const brokers = `127.0.0.1:${port}`
  const logFile = join(folder, 'kafka.log')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'server.properties'), properties(folder, port))
  // `log4j` is not on the class path: this small logger writes to the standard error instead.
  const classPath = ['-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-cp', `${libraries}/*`]
  format(java, classPath, folder)
  const heap = [`-Xms${heapMb}m`, `-Xmx${heapMb}m`, '-XX:+UseSerialGC']
  const args = [...heap, ...classPath, 'kafka.Kafka', join(folder, 'server.properties')]
  const server = await restartable(async () => {
    const broker = await startKept({ command: java, args, logFile })
    try {
      await answers(brokers, broker.ended)
    } catch (error) {
      await broker.stop()
      throw new Error(`Apache Kafka does not start: ${tail(logFile)}`, { cause: error })
    }
    return broker
  })
  return { brokers, server, close: server.stop }
}

/** The folder with the archives of the broker, and so of the client for Java, once they are there. */
export async function kafkaLibraries(say: (line: string) => void): Promise<string> {
  const folder = join(root, '.cache', 'kafka', VERSION)
  await downloadJars(archives(), folder, (line) => say(`Apache Kafka ${VERSION}: ${line}`))
  return folder
}

/** Paths in a Maven repository with their SHA-256: `kafka_2.13` with all that it needs to run. */
function archives(): Record<string, string> {
  const text = readFileSync(join(root, 'tools', 'kafka-jars.json'), 'utf8')
  return JSON.parse(text) as Record<string, string>
}

function properties(folder: string, port: number): string {
  return [
    'process.roles=broker,controller',
    'node.id=1',
    `controller.quorum.voters=1@127.0.0.1:${port + 1}`,
    `listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${port + 1}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names=CONTROLLER',
    'listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    `log.dirs=${join(folder, 'data')}`,
    'auto.create.topics.enable=false',
    'offsets.topic.num.partitions=4',
    'offsets.topic.replication.factor=1',
    'transaction.state.log.num.partitions=4',
    'transaction.state.log.replication.factor=1',
    'transaction.state.log.min.isr=1',
    'share.coordinator.state.topic.replication.factor=1',
    'share.coordinator.state.topic.min.isr=1',
    // A group of few members should not wait for more of them to come.
    'group.initial.rebalance.delay.ms=0',
    '',
  ].join('\n')
}

/** Gives a new folder its identity; one that has it keeps it. */
function format(java: string, classPath: readonly string[], folder: string): void {
  if (existsSync(join(folder, 'data', 'meta.properties'))) return
  const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url')
  const tool = ['kafka.tools.StorageTool', 'format', '-t', id, '-c']
  const args = [...classPath, ...tool, join(folder, 'server.properties')]
  const { status, stdout, stderr } = spawnSync(java, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${folder} could not be prepared for Kafka: ${stdout}${stderr}`)
}

/** Resolves when the broker answers what it is asked; rejects when it ends before. */
async function answers(brokers: string, ended: Promise<number>): Promise<void> {
  const admin = new Admin({
    clientId: 'start',
    bootstrapBrokers: [brokers],
    retries: READY_LIMIT_MS / 100,
    retryDelay: 100,
    connectTimeout: 1_000,
  })
  const gaveUp = ended.then((code) => {
    throw new Error(`it ended with code ${code}`)
  })
  try {
    await Promise.race([admin.metadata({ topics: [], forceUpdate: true }), gaveUp])
  } finally {
    await admin.close()
  }
}

/**
 * Where to look for ports: below those that the system gives to outgoing connections, since a client
 * that keeps asking for one of those may be connected to itself; and elsewhere each time, since
 * brokers that start at once should not look at the same ones.
 */
const somewhere = () => 20_000 + 2 * Math.floor(Math.random() * 6_000)

function tail(logFile: string): string {
  return readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-8).join('\n')
}

if (import.meta.main) {
  const [folder = join(root, 'data', 'kafka'), port = '9092'] = process.argv.slice(2)
  await runProcess('kafka', async () => {
    const kafka = await startKafka({ folder, port: Number(port), say: console.log })
    console.log(`Apache Kafka ${VERSION} answers at ${kafka.brokers}; Ctrl-C stops it`)
    return kafka
  })
}
