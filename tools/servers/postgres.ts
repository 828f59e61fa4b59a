import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { Client, escapeIdentifier, escapeLiteral } from 'pg'
import { until } from '../../platform/async/until.ts'
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
import { type KeptProcess, lastLines, startKept } from './kept-process.ts'
import { type Restartable, restartable, type SignalAll } from './restartable.ts'

export interface Postgres {
  /** The URL of the server, for a role that may create databases and is not a superuser. */
  readonly url: string
  readonly server: Restartable
  close(): Promise<void>
}

export interface PostgresServerOptions {
  /** The folder with the cluster. A later start uses the existing data. */
  readonly folder: string
  readonly port: number
  readonly maxConnections: number
  readonly logFile: string
  /** Offers TLS with this certificate. Clients that do not use TLS are still accepted. */
  readonly certificate?: Certificate
  /** Runs the server in a container if possible. Without this option, Docker is not used. */
  readonly docker?: Docker
  /** Aborts pulling an image. */
  readonly signal?: AbortSignal
  readonly say?: (line: string) => void
}

/**
 * The user that runs the server, because PostgreSQL refuses to run as root; undefined for the current user.
 */
type User = { readonly uid: number; readonly gid: number } | undefined

/** Runs PostgreSQL's programs, from this machine's binaries or in a container. */
interface Programs {
  /** Settings that let this machine reach the server. */
  readonly settings: Readonly<Record<string, string>>
  run(program: 'initdb' | 'postgres', args: readonly string[]): Promise<KeptProcess>
  readonly signalAll?: SignalAll
}

/** The version of a new cluster in a container. An existing cluster runs on the image of its own version. */
export const IMAGE_MAJOR = 17
const READY_LIMIT_MS = 60_000
const CLOSE_LIMIT_MS = 30_000
const ROLE = 'trifold'

/**
 * Starts PostgreSQL on a separate cluster, on loopback, with a password. If `docker` is given and has the
 * official image or can pull it, the server runs in a container. Otherwise it runs from this machine's
 * binaries. Both use the same cluster. The cluster of an installed PostgreSQL is neither read nor changed.
 * Resolves when the server responds.
 */
export async function startPostgres(options: PostgresServerOptions): Promise<Postgres> {
  const { port, logFile, maxConnections, say = () => undefined } = options
  const user = ordinaryUser()
  const folder = reachableFolder(resolve(options.folder), user, say)
  const cluster = join(folder, 'cluster')
  const password = passwordIn(folder)
  const programs = await findPrograms({ ...options, folder }, cluster, user)
  if (!existsSync(cluster)) {
    say('creating the cluster')
    await makeCluster({ folder, cluster, run: programs.run, logFile, user })
  }
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: maxConnections,
    logging_collector: 'off',
    ...programs.settings,
    ...(options.certificate && tlsSettings(options.certificate, folder, user)),
  }
  const args = ['-D', cluster]
  for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`)
  const urlOf = (role: string) => `postgres://${role}:${password}@127.0.0.1:${port}/postgres`
  // SIGINT is PostgreSQL's "fast shutdown", which does not wait for connected clients.
  const end = (server: KeptProcess) => server.stop(CLOSE_LIMIT_MS, 'SIGINT')
  const begin = async () => {
    const postmaster = await programs.run('postgres', args)
    try {
      const probe = () => inDatabase(urlOf('postgres'), (client) => makeRole(client, password))
      await until(probe, { limitMs: READY_LIMIT_MS, ended: postmaster.ended })
    } catch (cause) {
      await end(postmaster)
      const log = lastLines(logFile, 8)
      throw new Error(`PostgreSQL does not start: ${(cause as Error).message}\n${log}`, { cause })
    }
    return postmaster
  }
  const server = await restartable(begin, end, programs.signalAll)
  return { url: urlOf(ROLE), server, close: server.stop }
}

/** Copies the files, because the server rejects a private key that another user owns or can read. */
function tlsSettings(certificate: Certificate, folder: string, user: User) {
  const copies = { cert: join(folder, 'server.pem'), key: join(folder, 'server.key') }
  for (const [part, path] of Object.entries(copies)) {
    copyFileSync(certificate[part as keyof Certificate], path)
    chmodSync(path, 0o600)
    if (user) chownSync(path, user.uid, user.gid)
  }
  return { ssl: 'on', ssl_cert_file: copies.cert, ssl_key_file: copies.key }
}

async function findPrograms(
  options: PostgresServerOptions,
  cluster: string,
  user: User,
): Promise<Programs> {
  const { docker, logFile, signal, say = () => undefined } = options
  const name = `postgres:${majorOfCluster(cluster) ?? IMAGE_MAJOR}`
  const image = docker && (await findImage(docker, name, say, signal))
  if (image?.kind === 'image') {
    say(`running in a container of ${name}`)
    return containerPrograms(image, options, user)
  }
  if (image) say(`${image.why}, so this machine's binaries are used`)
  const binaries = withoutImage(image, () => findBinaries(cluster))
  return {
    settings: {},
    run: (program, args) => startKept({ command: join(binaries, program), args, logFile, user }),
  }
}

function containerPrograms(
  image: Extract<Image, { kind: 'image' }>,
  { folder, port, logFile }: PostgresServerOptions,
  user: User = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
): Programs {
  const name = containerName('postgres', folder)
  // initdb looks up the name of the user that runs it, and that user is missing in the image's own file.
  const users = join(folder, 'container-passwd')
  writeFileSync(users, `postgres:x:${user.uid}:${user.gid}::/:/bin/false\n`)
  // Connections through Docker's proxy do not come from the container's loopback, and a new cluster accepts
  // connections only from there.
  const access = join(folder, 'container-hba.conf')
  writeFileSync(access, 'host all all all scram-sha-256\n')
  for (const file of [users, access]) chownSync(file, user.uid, user.gid)
  const options = { name, folder, user, port, logFile, files: { '/etc/passwd': users } }
  return {
    settings: { listen_addresses: '*', hba_file: access },
    run: (command, args) => startContainer(image, { command, args }, options),
    signalAll: (_, signal) => signalContainer(image, name, signal),
  }
}

/**
 * Creates the databases that the server does not have yet. Returns the names of the databases that were
 * created.
 */
export async function makeDatabases(serverUrl: string, names: readonly string[]) {
  const made: string[] = []
  await inDatabase(serverUrl, async (client) => {
    for (const name of names) {
      if (await makeDatabase(client, name)) made.push(name)
    }
    return true
  })
  return made
}

/** The URL of another database on the same server. */
export function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return url.href
}

/** The same URL for PostgreSQL's superuser, who has the same password as the role that owns the databases. */
export function superuserUrl(databaseUrl: string): string {
  const url = new URL(databaseUrl)
  url.username = 'postgres'
  return url.href
}

const DUPLICATES = ['42P04', '23505']

async function makeDatabase(client: Client, name: string): Promise<boolean> {
  const found = await client.query('select from pg_database where datname = $1', [name])
  if (found.rowCount !== 0) return false
  try {
    await client.query(`create database ${escapeIdentifier(name)}`)
    return true
  } catch (error) {
    // Another client created the database at the same moment.
    if (DUPLICATES.includes((error as { code?: string }).code ?? '')) return false
    throw error
  }
}

async function makeRole(client: Client, password: string): Promise<boolean> {
  const found = await client.query('select from pg_roles where rolname = $1', [ROLE])
  if (found.rowCount !== 0) return true
  await client.query(`create role ${ROLE} login createdb password ${escapeLiteral(password)}`)
  return true
}

async function inDatabase<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  // An error event without a listener would end the process. If the connection breaks, its statements fail
  // anyway.
  client.on('error', () => undefined)
  try {
    await client.connect()
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/**
 * Creates the cluster in another folder and then renames that folder, so that an interrupted start leaves no
 * partial cluster.
 */
async function makeCluster(parts: {
  folder: string
  cluster: string
  run: Programs['run']
  logFile: string
  user: User
}): Promise<void> {
  const { folder, cluster, run, logFile, user } = parts
  const unfinished = join(folder, 'unfinished')
  rmSync(unfinished, { recursive: true, force: true })
  mkdirSync(unfinished, { mode: 0o700 })
  if (user) chownSync(unfinished, user.uid, user.gid)
  const passwordFile = join(unfinished, '..', 'password')
  if (user) chownSync(passwordFile, user.uid, user.gid)
  const args = ['-D', unfinished, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', passwordFile]
  args.push('-E', 'UTF8', '--no-locale')
  const initdb = await run('initdb', args)
  if ((await initdb.ended) !== 0) throw new Error(`PostgreSQL's initdb failed: see ${logFile}`)
  renameSync(unfinished, cluster)
}

function passwordIn(folder: string): string {
  const file = join(folder, 'password')
  if (!existsSync(file)) {
    writeFileSync(file, randomBytes(18).toString('base64url'), { mode: 0o600 })
  }
  return readFileSync(file, 'utf8')
}

/**
 * The user that should run the server if the current user is root; undefined if the current user is not root.
 */
function ordinaryUser(): User {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((option) => {
      const { status, stdout } = spawnSync('id', [option, name], { encoding: 'utf8' })
      return status === 0 ? Number(stdout) : 0
    })
    if (uid && gid) return { uid, gid }
  }
  throw new Error('PostgreSQL does not run as root, and there is no user "postgres" or "nobody".')
}

/**
 * Returns `folder`, or another folder if the user that runs the server cannot enter `folder`, as is common if
 * root owns it.
 */
function reachableFolder(folder: string, user: User, say: (line: string) => void): string {
  mkdirSync(folder, { recursive: true })
  if (user === undefined || spawnSync('test', ['-x', folder], user).status === 0) return folder
  const name = createHash('sha256').update(folder).digest('hex').slice(0, 12)
  const elsewhere = join('/var/tmp', `trifold-postgres-${name}`)
  mkdirSync(elsewhere, { recursive: true, mode: 0o755 })
  if (statSync(elsewhere).uid !== 0) throw new Error(`${elsewhere} belongs to another user`)
  say(`its user cannot enter ${folder}, so the cluster is in ${elsewhere}`)
  return elsewhere
}

/**
 * The folder with the binaries of the PostgreSQL version that created the cluster. If there is no cluster
 * yet, that of the newest version on this machine.
 */
function findBinaries(cluster: string): string {
  const found = candidates()
    .map((folder) => ({ folder, major: majorOf(folder) }))
    .filter(({ major }) => major > 0)
    .sort((a, b) => b.major - a.major)
  const wanted = majorOfCluster(cluster)
  const chosen = found.find(({ major }) => wanted === undefined || major === wanted)
  if (chosen) return chosen.folder
  if (wanted !== undefined && found.length > 0) {
    throw new Error(
      `${cluster} was created by PostgreSQL ${wanted}, which is no longer installed. Install it, ` +
        'or remove the folder and lose its data.',
    )
  }
  throw new Error(
    "PostgreSQL's server is not installed. Debian and Ubuntu: apt-get install postgresql; Fedora: " +
      'dnf install postgresql-server; macOS: brew install postgresql. The installed server need not be running, because the ' +
      'stack starts its own. To use another server, set DATABASE_URL.',
  )
}

/** The major version of the cluster; undefined if there is no cluster yet. */
function majorOfCluster(cluster: string): number | undefined {
  const versionFile = join(cluster, 'PG_VERSION')
  return existsSync(versionFile) ? Number(readFileSync(versionFile, 'utf8')) : undefined
}

/**
 * The folders that contain PostgreSQL's server: those on PATH, and those in which distributions install each
 * version.
 */
function candidates(): string[] {
  const below = (parent: string, pattern: RegExp) =>
    existsSync(parent)
      ? readdirSync(parent)
          .filter((name) => pattern.test(name))
          .map((name) => join(parent, name, 'bin'))
      : []
  return [
    ...(process.env.PATH ?? '').split(delimiter),
    ...below('/usr/lib/postgresql', /^\d+$/),
    ...below('/usr', /^pgsql-\d+$/),
    ...below('/opt/homebrew/opt', /^postgresql/),
    ...below('/usr/local/opt', /^postgresql/),
  ].filter((folder) => existsSync(join(folder, 'initdb')))
}

function majorOf(folder: string): number {
  const { stdout } = spawnSync(join(folder, 'postgres'), ['--version'], { encoding: 'utf8' })
  return Number(/\) (\d+)/.exec(stdout ?? '')?.[1] ?? 0)
}
