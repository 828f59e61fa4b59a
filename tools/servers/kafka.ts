import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { runProcess } from '../../platform/process/process.ts'
import { root } from '../repository-files.ts'
import {
  containerName,
  type Docker,
  findImage,
  type Image,
  signalContainer,
  startContainer,
  withoutImage,
} from './docker.ts'
import { findJava } from './java.ts'
import { type KeptProcess, lastLines, startKept } from './kept-process.ts'
import { downloadJars } from './maven.ts'
import { freePorts } from './ports.ts'
import { type Restartable, restartable, type SignalAll } from './restartable.ts'

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
  /** Heap and collector as Kafka's own start script has them, where they are not to be as small as will do. */
  readonly asByItsScript?: true
  /** More doors for clients than the usual one; not in a container. */
  readonly doors?: readonly KafkaDoor[]
  /** Runs it in a container where it can; without it nothing asks for Docker. */
  readonly docker?: Docker
  /** Gives up pulling an image. */
  readonly signal?: AbortSignal
  readonly say?: (line: string) => void
}

/** A listener whose clients are told to come to another port on loopback: that of a proxy before it. */
export interface KafkaDoor {
  /** In capitals. */
  readonly name: string
  readonly port: number
  readonly advertisedPort: number
}

/** What runs Kafka's programs: Java of this machine, or a container. */
interface Programs {
  readonly classPath: readonly string[]
  /** Where the broker listens for clients. */
  readonly listenAddress: string
  /** Runs Java; what it prints goes to the log. */
  run(args: readonly string[]): Promise<KeptProcess>
  readonly signalAll?: SignalAll
}

const VERSION = '4.3.1'
export const KAFKA_IMAGE = `apache/kafka:${VERSION}`
/** Of its log, in an error. */
const LAST_LINES = 8
const READY_LIMIT_MS = 90_000

/**
 * Starts Apache Kafka: one node that is broker and controller, on loopback only. It runs from the
 * project's image where Docker is given and has it or can pull it; else on Java of this machine, from
 * the archives that the project publishes on Maven Central (about 45 MB, kept in `.cache/`). Both work
 * on the same data in `folder`. Resolves when it answers; topics are never made by accident.
 */
export async function startKafka(options: KafkaOptions): Promise<Kafka> {
  const { asByItsScript = false, doors = [] } = options
  const folder = resolve(options.folder)
  const port = options.port ?? (await freePorts(somewhere(), 2))
  const brokers = `127.0.0.1:${port}`
  const logFile = join(folder, 'kafka.log')
  mkdirSync(folder, { recursive: true })
  const { classPath, listenAddress, run, signalAll } = await findPrograms(
    { ...options, folder },
    port,
    logFile,
  )
  writeFileSync(join(folder, 'server.properties'), properties(folder, port, listenAddress, doors))
  const heap = asByItsScript ? OF_ITS_SCRIPT : SMALL
  const args = [...heap, ...classPath, 'kafka.Kafka', join(folder, 'server.properties')]
  const begin = async () => {
    await format(run, classPath, folder, logFile)
    const broker = await run(args)
    try {
      await answers(brokers, broker.ended)
    } catch (error) {
      await broker.stop()
      throw new Error(`Apache Kafka does not start: ${lastLines(logFile, LAST_LINES)}`, {
        cause: error,
      })
    }
    return broker
  }
  const server = await restartable(begin, (broker) => broker.stop(), signalAll)
  return { brokers, server, close: server.stop }
}

async function findPrograms(
  { folder, docker, signal, say = () => undefined }: KafkaOptions,
  port: number,
  logFile: string,
): Promise<Programs> {
  const image =
    docker && (await findImage(docker, KAFKA_IMAGE, (line) => say(`Kafka: ${line}`), signal))
  if (image?.kind === 'image') {
    say(`Kafka: runs in a container of ${KAFKA_IMAGE}`)
    return containerPrograms(image, folder, port, logFile)
  }
  if (image) say(`Kafka: ${image.why}, so it runs on Java of this machine`)
  const java = withoutImage(image, () => findJava('Apache Kafka'))
  const libraries = await kafkaLibraries(say)
  return {
    // `log4j` is not on the class path: this small logger writes to the standard error instead.
    classPath: ['-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-cp', `${libraries}/*`],
    listenAddress: '127.0.0.1',
    run: (args) => startKept({ command: java, args, logFile }),
  }
}

function containerPrograms(
  image: Extract<Image, { kind: 'image' }>,
  folder: string,
  port: number,
  logFile: string,
): Programs {
  const name = containerName('kafka', folder)
  // Whoever runs the stack can then read its data and remove it.
  const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const options = { name, folder, user, port, logFile }
  return {
    classPath: ['-Dorg.apache.logging.log4j.level=WARN', '-cp', '/opt/kafka/libs/*'],
    // Docker's proxy does not come from the container's loopback; outside there is ours alone.
    listenAddress: '0.0.0.0',
    run: (args) => startContainer(image, { command: 'java', args }, options),
    signalAll: (_, signal) => signalContainer(image, name, signal),
  }
}

const SMALL = ['-Xms512m', '-Xmx512m', '-XX:+UseSerialGC']
/** KAFKA_HEAP_OPTS of kafka-server-start.sh and KAFKA_JVM_PERFORMANCE_OPTS of kafka-run-class.sh. */
const OF_ITS_SCRIPT = [
  ...['-Xms1G', '-Xmx1G', '-server', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20'],
  ...['-XX:InitiatingHeapOccupancyPercent=35', '-XX:+ExplicitGCInvokesConcurrent'],
]

/** The folder with the archives of the broker, and so of the client for Java, once they are there. */
export async function kafkaLibraries(say: (line: string) => void): Promise<string> {
  const folder = join(root, '.cache', 'kafka', VERSION)
  await downloadJars(archives(), folder, (line) => say(`Apache Kafka ${VERSION}: ${line}`))
  return folder
}

/** Paths in a Maven repository with their SHA-256: `kafka_2.13` with all that it needs to run. */
function archives(): Record<string, string> {
  const text = readFileSync(join(root, 'tools', 'servers', 'kafka-jars.json'), 'utf8')
  return JSON.parse(text) as Record<string, string>
}

function properties(
  folder: string,
  port: number,
  listenAddress: string,
  doors: readonly KafkaDoor[],
): string {
  const own = doors.map((door) => `,${door.name}://127.0.0.1:${door.port}`).join('')
  const told = doors.map((door) => `,${door.name}://127.0.0.1:${door.advertisedPort}`).join('')
  const protocols = doors.map(({ name }) => `,${name}:PLAINTEXT`).join('')
  return [
    'process.roles=broker,controller',
    'node.id=1',
    `controller.quorum.voters=1@127.0.0.1:${port + 1}`,
    `listeners=PLAINTEXT://${listenAddress}:${port},CONTROLLER://127.0.0.1:${port + 1}${own}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}${told}`,
    'controller.listener.names=CONTROLLER',
    `listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT${protocols}`,
    `log.dirs=${join(folder, 'data')}`,
    'auto.create.topics.enable=false',
    'offsets.topic.num.partitions=4',
    'offsets.topic.replication.factor=1',
    'transaction.state.log.num.partitions=4',
    'transaction.state.log.replication.factor=1',
    'transaction.state.log.min.isr=1',
    'share.coordinator.state.topic.replication.factor=1',
    'share.coordinator.state.topic.min.isr=1',
    // A node that was killed is let in again only when the session of its earlier life is over.
    'broker.session.timeout.ms=3000',
    'broker.heartbeat.interval.ms=500',
    // A group of few members should not wait for more of them to come.
    'group.initial.rebalance.delay.ms=0',
    '',
  ].join('\n')
}

/** Gives a new folder its identity; one that has it keeps it. */
async function format(
  run: Programs['run'],
  classPath: readonly string[],
  folder: string,
  logFile: string,
): Promise<void> {
  if (existsSync(join(folder, 'data', 'meta.properties'))) return
  const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url')
  const tool = ['kafka.tools.StorageTool', 'format', `--cluster-id=${id}`, '-c']
  const formatting = await run([...classPath, ...tool, join(folder, 'server.properties')])
  if ((await formatting.ended) === 0) return
  throw new Error(`${folder} could not be prepared for Kafka: ${lastLines(logFile, LAST_LINES)}`)
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

if (import.meta.main) {
  const [folder = join(root, 'data', 'kafka'), port = '9092'] = process.argv.slice(2)
  await runProcess('kafka', async () => {
    const kafka = await startKafka({ folder, port: Number(port), say: console.log })
    console.log(`Apache Kafka ${VERSION} answers at ${kafka.brokers}; Ctrl-C stops it`)
    return kafka
  })
}
