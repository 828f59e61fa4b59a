import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { until } from '../../platform/async/until.ts'
import { findDocker } from '../servers/docker.ts'
import { lastLines, startKept } from '../servers/kept-process.ts'
import { cacheFolder, lastLine, type NoTool, tryCommand } from './deploy-tools.ts'

/** A Docker daemon, with containers that share the machine's network. */
export interface Engine {
  readonly kind: 'engine'
  /** The environment variables that tell other Docker clients how to reach the daemon. */
  readonly environment: Readonly<Record<string, string>>
  /**
   * Runs the Docker client. Resolves with its standard output; rejects with all of its output if the command
   * fails.
   */
  docker(args: readonly string[]): Promise<string>
  /**
   * An image with Node.js and npm to use instead of the official image; undefined if the official image can
   * be pulled.
   */
  baseImage(nodeVersion: string): Promise<string | undefined>
  /** Stops the daemon and removes all its data, if the daemon was started by `startEngine`. */
  close(): Promise<void>
}

const READY_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 10_000
const DEBIAN = 'bookworm'

/** Uses this machine's daemon. If Docker is installed but not running, starts a daemon. */
export async function startEngine(): Promise<Engine | NoTool> {
  const docker = await findDocker()
  if (docker.kind === 'daemon') {
    return { ...clientOf({}), baseImage: async () => undefined, close: async () => undefined }
  }
  const installed = await tryCommand('dockerd', ['--version'])
  if (!installed.ok || process.getuid?.() !== 0) return docker
  return await startOwn()
}

function clientOf(environment: Readonly<Record<string, string>>) {
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  return {
    kind: 'engine',
    environment,
    async docker(args: readonly string[]) {
      const { ok, stdout, output } = await tryCommand('env', [...settings, 'docker', ...args])
      if (!ok) throw new Error(`docker ${args.slice(0, 2).join(' ')}: ${output.trim()}`)
      return stdout
    },
  } as const
}

/**
 * Starts a daemon that creates no networks, so that the machine's networks stay unchanged. The daemon's
 * processes have their own PID namespace: all of them end with the first one, which ends with this process.
 */
async function startOwn(): Promise<Engine> {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-docker-'))
  const host = `unix://${join(folder, 'docker.sock')}`
  const logFile = join(folder, 'dockerd.log')
  const args = [
    ...['--fork', '--pid', '--mount-proc', '--kill-child', 'dockerd', '-H', host],
    ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec')],
    ...['--pidfile', join(folder, 'dockerd.pid'), '--bridge=none', '--ip-forward=false'],
    ...['--iptables=false', '--ip6tables=false', '--ip-masq=false', '--userland-proxy=false'],
  ]
  const daemon = await startKept({ command: 'unshare', args, logFile })
  // Debian's Docker client has only the classic builder.
  const client = clientOf({ DOCKER_HOST: host, DOCKER_BUILDKIT: '0' })
  const close = async () => {
    // `unshare` ignores signals that are gentler than SIGKILL. The daemon's data is in the folder, which is removed.
    await daemon.stop(STOP_LIMIT_MS, 'SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const answers = async () => (await client.docker(['version'])) !== ''
    await until(answers, { limitMs: READY_LIMIT_MS, ended: daemon.ended })
  } catch (cause) {
    const log = lastLines(logFile, 4)
    await close()
    throw new Error(`dockerd does not start: ${log}`, { cause })
  }
  return { ...client, baseImage: (version) => substituteImage(client, version), close }
}

/**
 * Builds a base image, for machines that can reach Debian's packages but no image registry. The image
 * contains Debian, the Node.js that runs this program, and this machine's npm and certificates, laid out as
 * in the official image.
 */
async function substituteImage(
  { docker }: Pick<Engine, 'docker'>,
  nodeVersion: string,
): Promise<string> {
  const name = `trifold-base:${nodeVersion}-${DEBIAN}`
  const folder = mkdtempSync(join(tmpdir(), 'trifold-base-'))
  try {
    cpSync(await debian(), join(folder, 'debian.tar'))
    cpSync(process.execPath, join(folder, 'node'))
    const { stdout: npm } = await tryCommand('sh', ['-c', 'readlink -f "$(command -v npm)"'])
    cpSync(dirname(dirname(npm.trim())), join(folder, 'npm'), { recursive: true })
    cpSync('/etc/ssl/certs/ca-certificates.crt', join(folder, 'certificates'))
    writeFileSync(join(folder, 'Dockerfile'), STAND_IN)
    await docker(['build', '--network', 'host', '--tag', name, folder])
    return name
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const STAND_IN = `
FROM scratch
ADD debian.tar /
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY certificates /etc/ssl/certs/ca-certificates.crt
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && \\
    groupadd --gid 1000 node && useradd --uid 1000 --gid 1000 --create-home node
CMD ["node"]
`

/** A minimal Debian system as a tar file, created on first use. */
async function debian(): Promise<string> {
  const file = join(cacheFolder, `debian-${DEBIAN}.tar`)
  if (existsSync(file)) return file
  mkdirSync(cacheFolder, { recursive: true })
  console.log('building a base image from Debian packages, once; this takes a minute or two')
  const unfinished = join(cacheFolder, `debian-${DEBIAN}-${process.pid}.tar`)
  const args = ['--variant=minbase', '--include=ca-certificates', DEBIAN, unfinished]
  const { ok, output } = await tryCommand('mmdebstrap', args)
  if (!ok) throw new Error(`mmdebstrap (apt-get install mmdebstrap): ${lastLine(output)}`)
  renameSync(unfinished, file)
  return file
}
