import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chownSync,
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
  /** Of the server: its role may make databases and is no superuser. */
  readonly url: string
  readonly server: Restartable
  close(): Promise<void>
}

export interface PostgresServerOptions {
  /** Holds the cluster; a later start goes on with what is there. */
  readonly folder: string
  readonly port: number
  readonly maxConnections: number
  readonly logFile: string
  /** Runs it in a container where it can; without it nothing asks for Docker. */
  readonly docker?: Docker
  /** Gives up pulling an image. */
  readonly signal?: AbortSignal
  readonly say?: (line: string) => void
}

/** Who runs the server: it refuses to be root. */
type User = { readonly uid: number; readonly gid: number } | undefined

/** What runs PostgreSQL's programs: binaries of this machine, or a container. */
interface Programs {
  /** What the server needs to be reached from this machine. */
  readonly settings: Readonly<Record<string, string>>
  run(program: 'initdb' | 'postgres', args: readonly string[]): Promise<KeptProcess>
  readonly signalAll?: SignalAll
}

/** Of a new cluster; one that is there is run by the image of its own version. */
export const IMAGE_MAJOR = 17
const READY_LIMIT_MS = 60_000
const CLOSE_LIMIT_MS = 30_000
const ROLE = 'trifold'

/**
 * Starts PostgreSQL in a cluster of our own, on loopback with a password: from the official image where
 * Docker is given and has it or can pull it, else from binaries of this machine. Both work on the same
 * cluster. Nothing of an installed cluster is read or changed. Resolves when it answers.
 */
export async function startPostgres(options: PostgresServerOptions): Promise<Postgres> {
  const { port, logFile, maxConnections, say = () => undefined } = options
  const user = ordinaryUser()
  const folder = reachableFolder(resolve(options.folder), user, say)
  const cluster = join(folder, 'cluster')
  const password = passwordIn(folder)
  const programs = await findPrograms({ ...options, folder }, cluster, user)
  if (!existsSync(cluster)) {
    say('makes its cluster')
    await makeCluster({ folder, cluster, run: programs.run, logFile, user })
  }
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: maxConnections,
    logging_collector: 'off',
    ...programs.settings,
  }
  const args = ['-D', cluster]
  for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`)
  const urlOf = (role: string) => `postgres://${role}:${password}@127.0.0.1:${port}/postgres`
  // Its "fast shutdown": what is still connected does not hold it up.
  const end = (server: KeptProcess) => server.stop(CLOSE_LIMIT_MS, 'SIGINT')
  const begin = async () => {
    const postmaster = await programs.run('postgres', args)
    try {
      const asked = () => inDatabase(urlOf('postgres'), (client) => makeRole(client, password))
      await until(asked, { limitMs: READY_LIMIT_MS, ended: postmaster.ended })
    } catch (cause) {
      await end(postmaster)
      const said = lastLines(logFile, 8)
      throw new Error(`PostgreSQL does not start: ${(cause as Error).message}\n${said}`, { cause })
    }
    return postmaster
  }
  const server = await restartable(begin, end, programs.signalAll)
  return { url: urlOf(ROLE), server, close: server.stop }
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
    say(`runs in a container of ${name}`)
    return containerPrograms(image, options, user)
  }
  if (image) say(`${image.why}, so it runs on binaries of this machine`)
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
  // initdb asks for the name of its user, whom the image does not know.
  const users = join(folder, 'container-passwd')
  writeFileSync(users, `postgres:x:${user.uid}:${user.gid}::/:/bin/false\n`)
  // Docker's proxy does not come from the container's loopback, which is all that a new cluster trusts.
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

/** Makes the databases that are missing on a server. Returns the names of those that it made. */
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

/** The address of another database of the same server. */
export function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
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
    // Somebody else made it at this moment.
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
  // A connection that breaks says so in its statements, too.
  client.on('error', () => undefined)
  try {
    await client.connect()
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Made beside its place and then moved there, so that a start that was interrupted leaves no half. */
async function makeCluster(parts: {
  folder: string
  cluster: string
  run: Programs['run']
  logFile: string
  user: User
}): Promise<void> {
  const { folder, cluster, run, logFile, user } = parts
  const beside = join(folder, 'unfinished')
  rmSync(beside, { recursive: true, force: true })
  mkdirSync(beside, { mode: 0o700 })
  if (user) chownSync(beside, user.uid, user.gid)
  const passwordFile = join(beside, '..', 'password')
  if (user) chownSync(passwordFile, user.uid, user.gid)
  const args = ['-D', beside, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', passwordFile]
  args.push('-E', 'UTF8', '--no-locale')
  const initdb = await run('initdb', args)
  if ((await initdb.ended) !== 0) throw new Error(`PostgreSQL's initdb failed: see ${logFile}`)
  renameSync(beside, cluster)
}

function passwordIn(folder: string): string {
  const file = join(folder, 'password')
  if (!existsSync(file)) {
    writeFileSync(file, randomBytes(18).toString('base64url'), { mode: 0o600 })
  }
  return readFileSync(file, 'utf8')
}

/** undefined: we are one. */
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

/** Root's own folders are often closed to the user who runs the server. */
function reachableFolder(folder: string, user: User, say: (line: string) => void): string {
  mkdirSync(folder, { recursive: true })
  if (user === undefined || spawnSync('test', ['-x', folder], user).status === 0) return folder
  const name = createHash('sha256').update(folder).digest('hex').slice(0, 12)
  const elsewhere = join('/var/tmp', `trifold-postgres-${name}`)
  mkdirSync(elsewhere, { recursive: true, mode: 0o755 })
  if (statSync(elsewhere).uid !== 0) throw new Error(`${elsewhere} belongs to somebody else`)
  say(`its user cannot enter ${folder}: the cluster is in ${elsewhere}`)
  return elsewhere
}

/** The newest PostgreSQL of this machine, or the one that made the cluster. */
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
      `${cluster} was made by PostgreSQL ${wanted}, which is not installed any more. Install it, ` +
        'or remove the folder: its data is then lost.',
    )
  }
  throw new Error(
    "PostgreSQL's server is not installed. Debian and Ubuntu: apt-get install postgresql; Fedora: " +
      'dnf install postgresql-server; macOS: brew install postgresql. It need not run: the stack ' +
      'starts its own. Or set DATABASE_URL to a server that you have.',
  )
}

/** undefined: there is no cluster yet. */
function majorOfCluster(cluster: string): number | undefined {
  const versionFile = join(cluster, 'PG_VERSION')
  return existsSync(versionFile) ? Number(readFileSync(versionFile, 'utf8')) : undefined
}

/** Distributions keep the server's binaries apart, one folder for each version. */
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
