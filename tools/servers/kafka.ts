import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { runProcess } from '../../platform/process/process.ts'
import { root } from '../repository-files.ts'
import type { Certificate } from './certificates.ts'
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
  /** The bootstrap address, `host:port`. */
  readonly brokers: string
  readonly server: Restartable
  close(): Promise<void>
}

export interface KafkaOptions {
  /** The folder for data, configuration and log. A later start in the same folder uses the existing data. */
  readonly folder: string
  /** The port of the broker; the controller uses the next port. By default, two free ports are found. */
  readonly port?: number
  /**
   * Uses the heap size and the garbage collector of Kafka's own start script, instead of settings that need
   * little memory.
   */
  readonly defaultHeap?: true
  /** Further listeners for clients. They are not reachable if the broker runs in a container. */
  readonly listeners?: readonly KafkaListener[]
  /** Runs the broker in a container if possible. Without this option, Docker is not used. */
  readonly docker?: Docker
  /** Aborts pulling an image. */
  readonly signal?: AbortSignal
  readonly say?: (line: string) => void
}

/** A listener that advertises the loopback port of a proxy in front of it instead of its own port. */
export interface KafkaListener {
  /** The name of the listener, in upper case. */
  readonly name: string
  readonly port: number
  readonly advertisedPort: number
  /** TLS and logins. Without this option, the listener uses plain text and needs no login. */
  readonly security?: ListenerSecurity
}

/** The TLS and SASL settings of a listener. */
export interface ListenerSecurity {
  readonly certificate: Certificate
  /**
   * The path of a PEM file with an authority's certificate. Clients need a certificate signed by this
   * authority; without this option, they need none.
   */
  readonly clientCa?: string
  /** Users need ACLs for everything they do, except `admin`. Without this option, every user may do everything. */
  readonly acls?: true
  /**
   * The passwords by user name, for SCRAM-SHA-512 and PLAIN. They take effect when the data folder is
   * formatted.
   */
  readonly users: Readonly<Record<string, string>>
}

/** Runs Kafka's programs, on this machine's Java or in a container. */
interface Programs {
  readonly classPath: readonly string[]
  /** The address on which the broker listens for clients. */
  readonly listenAddress: string
  /** Runs Java, with its output going to the log file. */
  run(args: readonly string[]): Promise<KeptProcess>
  readonly signalAll?: SignalAll
}

const VERSION = '4.3.1'
export const KAFKA_IMAGE = `apache/kafka:${VERSION}`
/** How many lines of the log an error message includes. */
const LAST_LINES = 8
const READY_LIMIT_MS = 90_000

/**
 * Starts Apache Kafka on loopback, as one node that is both broker and controller. If `docker` is given and
 * has the official image or can pull it, Kafka runs in a container. Otherwise it runs on this machine's Java,
 * from the JAR files that the Kafka project publishes on Maven Central (about 45 MB, kept in `.cache/`). Both
 * use the same data in `folder`. Topics are not created automatically. Resolves when the broker responds.
 */
export async function startKafka(options: KafkaOptions): Promise<Kafka> {
  const { defaultHeap = false, listeners = [] } = options
  const folder = resolve(options.folder)
  const port = options.port ?? (await freePorts(randomPort(), 2))
  const brokers = `127.0.0.1:${port}`
  const logFile = join(folder, 'kafka.log')
  mkdirSync(folder, { recursive: true })
  const { classPath, listenAddress, run, signalAll } = await findPrograms(
    { ...options, folder },
    port,
    logFile,
  )
  const configuration = properties(folder, port, listenAddress, listeners)
  writeFileSync(join(folder, 'server.properties'), configuration)
  const heap = defaultHeap ? DEFAULT_HEAP : SMALL_HEAP
  const args = [...heap, ...classPath, 'kafka.Kafka', join(folder, 'server.properties')]
  const begin = async () => {
    await format(run, classPath, folder, logFile, listeners)
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
    say(`Kafka: running in a container of ${KAFKA_IMAGE}`)
    return containerPrograms(image, folder, port, logFile)
  }
  if (image) say(`Kafka: ${image.why}, so this machine's Java is used`)
  const java = withoutImage(image, () => findJava('Apache Kafka'))
  const libraries = await kafkaLibraries(say)
  return {
    // log4j is not on the class path; SLF4J's simple logger writes to standard error instead.
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
  // Kafka runs as the current user, who can then read and remove the data.
  const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const options = { name, folder, user, port, logFile }
  return {
    classPath: ['-Dorg.apache.logging.log4j.level=WARN', '-cp', '/opt/kafka/libs/*'],
    // Docker's proxy does not connect from the container's loopback. Outside the container, the port is
    // published on loopback only.
    listenAddress: '0.0.0.0',
    run: (args) => startContainer(image, { command: 'java', args }, options),
    signalAll: (_, signal) => signalContainer(image, name, signal),
  }
}

const SMALL_HEAP = ['-Xms512m', '-Xmx512m', '-XX:+UseSerialGC']
/** KAFKA_HEAP_OPTS from kafka-server-start.sh and KAFKA_JVM_PERFORMANCE_OPTS from kafka-run-class.sh. */
const DEFAULT_HEAP = [
  ...['-Xms1G', '-Xmx1G', '-server', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20'],
  ...['-XX:InitiatingHeapOccupancyPercent=35', '-XX:+ExplicitGCInvokesConcurrent'],
]

/**
 * Downloads the JAR files of the broker, which include the Java client. Returns the folder that contains
 * them.
 */
export async function kafkaLibraries(say: (line: string) => void): Promise<string> {
  const folder = join(root, '.cache', 'kafka', VERSION)
  await downloadJars(jarChecksums(), folder, (line) => say(`Apache Kafka ${VERSION}: ${line}`))
  return folder
}

/** The SHA-256 of `kafka_2.13` and of its runtime dependencies, by path in a Maven repository. */
function jarChecksums(): Record<string, string> {
  const text = readFileSync(join(root, 'tools', 'servers', 'kafka-jars.json'), 'utf8')
  return JSON.parse(text) as Record<string, string>
}

function properties(
  folder: string,
  port: number,
  listenAddress: string,
  listeners: readonly KafkaListener[],
): string {
  const more = listeners.map(({ name, port: own }) => `,${name}://127.0.0.1:${own}`).join('')
  const advertised = listeners
    .map(({ name, advertisedPort }) => `,${name}://127.0.0.1:${advertisedPort}`)
    .join('')
  const protocols = listeners
    .map(({ name, security }) => `,${name}:${security ? 'SASL_SSL' : 'PLAINTEXT'}`)
    .join('')
  return [
    'process.roles=broker,controller',
    'node.id=1',
    `controller.quorum.voters=1@127.0.0.1:${port + 1}`,
    `listeners=PLAINTEXT://${listenAddress}:${port},CONTROLLER://127.0.0.1:${port + 1}${more}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}${advertised}`,
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
    // A killed node can register again only after the session of its previous run has expired.
    'broker.session.timeout.ms=3000',
    'broker.heartbeat.interval.ms=500',
    // A new consumer group must not wait for further members.
    'group.initial.rebalance.delay.ms=0',
    ...listeners.flatMap(securityProperties),
    ...(listeners.some(({ security }) => security?.acls) ? AUTHORIZER : []),
    '',
  ].join('\n')
}

/** Clients of the listeners without a login are anonymous, and so is the controller. These listeners are on loopback. */
const AUTHORIZER = [
  'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
  'super.users=User:ANONYMOUS;User:admin',
]

function securityProperties({ name, security }: KafkaListener): string[] {
  if (security === undefined) return []
  const { certificate, clientCa, users } = security
  const pem = (path: string) => readFileSync(path, 'utf8').trim().replaceAll('\n', '\\n')
  const login = (mechanism: string, module: string, own: string) =>
    `${mechanism}.sasl.jaas.config=org.apache.kafka.common.security.${module} required${own};`
  const passwords = Object.entries(users).map(([user, password]) => ` user_${user}="${password}"`)
  return [
    'ssl.keystore.type=PEM',
    `ssl.keystore.certificate.chain=${pem(certificate.cert)}`,
    `ssl.keystore.key=${pem(certificate.key)}`,
    ...(clientCa === undefined
      ? []
      : ['ssl.truststore.type=PEM', `ssl.truststore.certificates=${pem(clientCa)}`]),
    `ssl.client.auth=${clientCa === undefined ? 'none' : 'required'}`,
    'sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN',
    login('scram-sha-512', 'scram.ScramLoginModule', ''),
    login('plain', 'plain.PlainLoginModule', passwords.join('')),
  ].map((line) => `listener.name.${name.toLowerCase()}.${line}`)
}

/** Formats a new data folder with a cluster id. Does nothing if the folder is already formatted. */
async function format(
  run: Programs['run'],
  classPath: readonly string[],
  folder: string,
  logFile: string,
  listeners: readonly KafkaListener[],
): Promise<void> {
  if (existsSync(join(folder, 'data', 'meta.properties'))) return
  const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url')
  const users = listeners.flatMap(({ security }) => Object.entries(security?.users ?? {}))
  const tool = ['kafka.tools.StorageTool', 'format', `--cluster-id=${id}`]
  for (const [user, password] of users) {
    tool.push('--add-scram', `SCRAM-SHA-512=[name=${user},password=${password}]`)
  }
  tool.push('-c', join(folder, 'server.properties'))
  const formatting = await run([...classPath, ...tool])
  if ((await formatting.ended) === 0) return
  throw new Error(`${folder} cannot be formatted for Kafka: ${lastLines(logFile, LAST_LINES)}`)
}

/** Resolves when the broker responds to a request. Rejects if the broker exits before that. */
async function answers(brokers: string, ended: Promise<number>): Promise<void> {
  const admin = new Admin({
    clientId: 'start',
    bootstrapBrokers: [brokers],
    retries: READY_LIMIT_MS / 100,
    retryDelay: 100,
    connectTimeout: 1_000,
  })
  const exited = ended.then((code) => {
    throw new Error(`it exited with code ${code}`)
  })
  try {
    await Promise.race([admin.metadata({ topics: [], forceUpdate: true }), exited])
  } finally {
    await admin.close()
  }
}

/**
 * The port at which the search for free ports starts. It is below the ports that the system gives to outgoing
 * connections, because a client that keeps connecting to one of those may end up connected to itself. It is
 * random, so that brokers that start at the same time do not try the same ports.
 */
const randomPort = () => 20_000 + 2 * Math.floor(Math.random() * 6_000)

if (import.meta.main) {
  const [folder = join(root, 'data', 'kafka'), port = '9092'] = process.argv.slice(2)
  await runProcess('kafka', async () => {
    const kafka = await startKafka({ folder, port: Number(port), say: console.log })
    console.log(`Apache Kafka ${VERSION} is ready at ${kafka.brokers}; Ctrl-C stops it`)
    return kafka
  })
}
