import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { asyncApiDocument } from '../../contracts/asyncapi.ts'
import { problemBody } from '../../contracts/problems.ts'
import { until } from '../../platform/async/until.ts'
import { asyncApiPage } from '../../platform/front-door/asyncapi-page.ts'
import { prefixOf } from '../../platform/process/config.ts'
import { root } from '../repository-files.ts'
import { type KeptProcess, lastLines, startKept } from './kept-process.ts'

export interface Gateway {
  readonly url: string
  readonly pid: number
  /** Resolves with the exit code when nginx has ended for any reason. */
  readonly ended: Promise<number>
  close(): Promise<void>
}

export interface GatewayOptions {
  /** The loopback port that nginx listens on. */
  readonly port: number
  /** Every path is served with and without this prefix; '' and '/' mean no prefix. */
  readonly basePath: string
  /** The replicas of each service as `host:port`, by the first segment of the service's paths. */
  readonly upstreams: Readonly<Record<'orders' | 'billing' | 'notification', readonly string[]>>
}

const READY_LIMIT_MS = 10_000
const TEMPLATE = join(root, 'deploy', 'nginx', 'trifold.conf.template')

/**
 * Starts nginx. The services need not be running yet. nginx reads and writes only files in `folder`, so it
 * needs no privileges and does not touch the installed configuration. Resolves when nginx responds.
 */
export async function startNginx(folder: string, options: GatewayOptions): Promise<Gateway> {
  const command = findNginx()
  for (const part of ['temp', 'pages']) mkdirSync(join(folder, part), { recursive: true })
  const asyncApi = JSON.stringify(asyncApiDocument())
  writeFileSync(join(folder, 'pages', 'asyncapi.json'), asyncApi)
  const page = asyncApiPage(`${prefixOf(options.basePath)}/asyncapi.json`)
  writeFileSync(join(folder, 'pages', 'asyncapi.html'), page)
  const configuration = nginxConfiguration(options, process.getuid?.() === 0)
  writeFileSync(join(folder, 'nginx.conf'), configuration)
  const logFile = join(folder, 'nginx.log')
  writeFileSync(logFile, '')
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf')]
  const server = await startKept({ command, args, logFile })
  const url = `http://127.0.0.1:${options.port}`
  try {
    await answers(url, server)
  } catch (cause) {
    await server.stop()
    const log = [logFile, join(folder, 'error.log')].map((file) => lastLines(file, 8)).join('\n')
    throw new Error(`nginx does not start: ${log.trim() || (cause as Error).message}`, { cause })
  }
  return { url, pid: server.pid, ended: server.ended, close: () => server.stop() }
}

/** The text of nginx.conf. */
export function nginxConfiguration(options: GatewayOptions, asRoot: boolean): string {
  const basePath = prefixPattern(options.basePath)
  const problems = {
    MALFORMED: problemBody('VALIDATION_FAILED', {
      field: 'path',
      detail: 'the path is not percent-encoded correctly, or the request is not HTTP',
    }),
    NOT_FOUND: problemBody('ROUTE_NOT_FOUND', {}),
    TOO_LARGE: problemBody('BODY_TOO_LARGE', {}),
    UNAVAILABLE: problemBody('SERVICE_UNAVAILABLE', {}),
  }
  const values: Record<string, string> = {
    // Without this line, the workers would run as a user who may not be able to enter the folder.
    USER: asRoot ? 'user root;' : '',
    PORT: String(options.port),
    BASE_PATH: basePath,
    UPSTREAMS: Object.entries(options.upstreams).map(upstream).join('\n'),
    LOCATIONS: Object.keys(options.upstreams)
      .map((path) => location(path, basePath))
      .join('\n'),
    ...Object.fromEntries(
      Object.entries(problems).map(([name, body]) => [name, JSON.stringify(body)]),
    ),
  }
  return readFileSync(TEMPLATE, 'utf8')
    .replace(/^#.*\n/gm, '')
    .replace(/\$\{([A-Z_]+)\}/g, (_, name: string) => {
      const value = values[name]
      if (value === undefined) throw new Error(`${TEMPLATE}: there is no value for ${name}`)
      return value
    })
}

function upstream([path, replicas]: [string, readonly string[]]): string {
  const servers = replicas.map((address) => `    server ${address} max_fails=1 fail_timeout=2s;`)
  // nginx requires at least one server in an upstream, even if the service has no replicas.
  if (servers.length === 0) servers.push('    server 127.0.0.1:1 down;')
  return [`  upstream ${path} {`, ...BALANCING, ...servers, '    keepalive 64;', '  }'].join('\n')
}

/**
 * With `zone`, the workers share what they know about failed replicas. With `least_conn`, an unresponsive
 * replica gets few new requests.
 */
const BALANCING = ['    zone replicas 256k;', '    least_conn;']

function location(path: string, basePath: string): string {
  return `    location ~ ^${basePath}/${path}(/|$) { proxy_pass http://${path}; }`
}

/** A regular expression that matches the prefix or an empty string. */
function prefixPattern(basePath: string): string {
  const bare = prefixOf(basePath)
  return bare === '' ? '' : `(${bare.replaceAll('.', '\\.')})?`
}

function findNginx(): string {
  // Debian installs nginx in a folder that is only on the administrator's PATH.
  for (const command of ['nginx', '/usr/sbin/nginx', '/usr/local/sbin/nginx']) {
    if (spawnSync(command, ['-v']).status === 0) return command
  }
  throw new Error(
    'nginx is not installed. Debian and Ubuntu: apt-get install nginx-light; Fedora: dnf install ' +
      'nginx; macOS: brew install nginx. The installed nginx need not be running, because the stack starts its own.',
  )
}

/** If another server listened on the port, nginx would have exited, so any successful response is from nginx. */
async function answers(url: string, server: KeptProcess): Promise<void> {
  const probe = async () => (await fetch(`${url}/asyncapi.json`)).ok
  await until(probe, { limitMs: READY_LIMIT_MS, ended: server.ended })
}
