import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { promisify } from 'node:util'
import { type KeptProcess, startKept } from './kept-process.ts'

/** A Docker daemon that can be used, or a clause that says why none can be used. */
export type Docker =
  | { readonly kind: 'daemon'; readonly command: string }
  | { readonly kind: 'none'; readonly why: string }

/** An image that the daemon has, or a clause that says why it does not have the image. */
export type Image =
  | { readonly kind: 'image'; readonly command: string; readonly name: string }
  | { readonly kind: 'none'; readonly why: string }

const COMMAND_LIMIT_MS = 20_000
const SHARED_MEMORY = '256m'

/**
 * Finds a daemon whose containers can replace programs on this machine: they can mount folders of the current
 * user, and publish their ports on this machine's loopback.
 */
export async function findDocker(command = 'docker'): Promise<Docker> {
  const none = (why: string): Docker => ({ kind: 'none', why })
  try {
    // `context inspect` respects DOCKER_HOST and the selected context.
    const format = '{{.Endpoints.docker.Host}}'
    const host = (await run(command, ['context', 'inspect', '--format', format])).trim()
    if (!host.startsWith('unix:')) return none(`Docker's daemon is not on this machine (${host})`)
    const info = await run(command, ['info', '--format', '{{.OSType}} {{.SecurityOptions}}'])
    // In both modes, our user id is a different user in a container, and that user may not be able to read
    // our folders.
    if (/name=(rootless|userns)/.test(info)) return none("Docker's containers remap user ids")
    if (!info.startsWith('linux')) return none(`Docker runs no Linux containers (${info.trim()})`)
    return { kind: 'daemon', command }
  } catch (error) {
    const { code } = error as { code?: unknown }
    return none(code === 'ENOENT' ? 'Docker is not installed' : "Docker's daemon does not respond")
  }
}

/**
 * Finds the image. If the daemon does not have it, the image is pulled, and progress is reported. Rejects
 * only if `signal` is aborted.
 */
export async function findImage(
  docker: Docker,
  name: string,
  say: (line: string) => void,
  signal?: AbortSignal,
): Promise<Image> {
  if (docker.kind === 'none') return docker
  const { command } = docker
  if (await hasImage(docker, name)) return { kind: 'image', command, name }
  signal?.throwIfAborted()
  say(`pulling the image ${name}`)
  const lines: string[] = []
  const onLine = (line: string) => {
    lines.push(line)
    if (line.endsWith(': Pull complete')) say(pullProgress(lines))
  }
  const pull = await startKept({ command, args: ['pull', name], onLine })
  const abort = () => void pull.stop()
  signal?.addEventListener('abort', abort)
  // The signal may have been aborted while the pull was starting, before the listener was added.
  if (signal?.aborted) abort()
  const code = await pull.ended
  signal?.removeEventListener('abort', abort)
  signal?.throwIfAborted()
  if (code === 0) return { kind: 'image', command, name }
  return { kind: 'none', why: `Docker cannot pull ${name}: ${lines.at(-1) ?? `code ${code}`}` }
}

/** Whether the daemon already has the image. */
export async function hasImage(docker: Docker, name: string): Promise<boolean> {
  if (docker.kind === 'none') return false
  return await succeeds(run(docker.command, ['image', 'inspect', '--format', '{{.Id}}', name]))
}

/**
 * Searches this machine for programs. If they are missing, the error says how to install them and why Docker
 * cannot run them instead.
 */
export function withoutImage<T>(image: Image | undefined, find: () => T): T {
  try {
    return find()
  } catch (cause) {
    const why = image?.kind === 'none' ? image.why : 'Docker is not to be used'
    throw new Error(`${(cause as Error).message} Docker could run it instead, but ${why}.`, {
      cause,
    })
  }
}

/**
 * Describes the progress of `docker pull`. Without a terminal, it prints one line for each step of a layer.
 */
export function pullProgress(lines: readonly string[]): string {
  const count = (...steps: string[]) =>
    lines.filter((line) => steps.some((step) => line.endsWith(`: ${step}`))).length
  const done = count('Pull complete', 'Already exists')
  return `pulled ${done} of ${count('Pulling fs layer', 'Already exists')} layers`
}

export interface ContainerOptions {
  readonly name: string
  /** The folder that is mounted at the same path in the container. */
  readonly folder: string
  /** The user and group of this machine that own the folder. The container runs as this user. */
  readonly user: { readonly uid: number; readonly gid: number }
  /** The port of the container, which is published on loopback under the same number. */
  readonly port?: number
  /** Files of this machine that replace files of the image, by the path of the replaced file. */
  readonly files?: Readonly<Record<string, string>>
  /** The file for the output of the container. */
  readonly logFile: string
}

/**
 * The name of a container is derived from the folder, so that a start finds a container that an earlier start
 * left behind.
 */
export function containerName(what: string, folder: string): string {
  return `trifold-${what}-${createHash('sha256').update(folder).digest('hex').slice(0, 12)}`
}

/**
 * Runs a program of an image in the foreground. The container ends when this process ends, however it ends:
 * the kernel closes this process's end of the Docker client's standard input, the client exits, the daemon
 * closes the container's standard input, and the first process in the container then ends the container, even
 * while the server is frozen. A container left behind by a daemon that died is removed at the next start. The
 * returned process is the Docker client, which forwards signals.
 */
export async function startContainer(
  image: Extract<Image, { kind: 'image' }>,
  program: { readonly command: string; readonly args: readonly string[] },
  options: ContainerOptions,
): Promise<KeptProcess> {
  const { command } = image
  mkdirSync(options.folder, { recursive: true })
  await removeContainer(command, options.name)
  const log = openSync(options.logFile, 'a')
  const client = spawn(command, runArguments(image.name, program, options), {
    stdio: ['pipe', log, log],
    // Ctrl-C must not reach the client directly; `stop` ends it.
    detached: true,
  })
  closeSync(log)
  client.stdin?.on('error', () => undefined)
  const ended = once(client, 'exit').then(([code]) => (code as number | null) ?? 1)
  await once(client, 'spawn')
  return {
    pid: client.pid as number,
    ended,
    async stop(limitMs = STOP_LIMIT_MS, gentle = 'SIGTERM') {
      client.kill(gentle)
      const timer = setTimeout(() => void endAtOnce(command, options.name, client), limitMs)
      await ended
      clearTimeout(timer)
    },
  }
}

/**
 * Sends a signal to all processes in a container except the first. Resolves when they have received the
 * signal.
 */
export async function signalContainer(
  { command }: Extract<Image, { kind: 'image' }>,
  name: string,
  signal: NodeJS.Signals,
): Promise<void> {
  // `kill -1` spares the first process, which keeps reading its input while the other processes are frozen.
  const all = ['exec', name, 'bash', '-c', `kill -s ${signal.slice('SIG'.length)} -1`]
  // This fails if the container has ended, but then no signal is needed.
  await succeeds(run(command, signal === 'SIGKILL' ? ['kill', name] : all))
}

const STOP_LIMIT_MS = 15_000

/**
 * The arguments of `docker run`. They must not contain secrets, because every user of the machine can see
 * them.
 */
export function runArguments(
  image: string,
  program: { readonly command: string; readonly args: readonly string[] },
  { name, folder, user, port, files = {} }: Omit<ContainerOptions, 'logFile'>,
): string[] {
  const mounts = [`type=bind,source=${folder},target=${folder}`]
  for (const [target, source] of Object.entries(files)) {
    mounts.push(`type=bind,source=${source},target=${target},readonly`)
  }
  return [
    ...['run', '--interactive', '--rm', '--pull', 'never', '--name', name],
    ...['--user', `${user.uid}:${user.gid}`],
    ...mounts.flatMap((mount) => ['--mount', mount]),
    // Without this option, SELinux would deny the container access to the folder.
    ...['--security-opt', 'label=disable'],
    ...(port === undefined ? [] : ['--publish', `127.0.0.1:${port}:${port}`]),
    // PostgreSQL's parallel workers share memory; Docker's default of 64 MB is too small for them.
    ...['--shm-size', SHARED_MEMORY],
    // The output goes to our log file, so the daemon need not store it.
    ...['--log-driver', 'none'],
    ...['--entrypoint', 'bash', image, '-c', FIRST_PROCESS, program.command, ...program.args],
  ]
}

/**
 * $0 is the program, and $@ are its arguments. When the first process in a container ends, the kernel kills
 * all others. `read` returns 1 at the end of the input and more than 128 after its timeout. Bash runs no trap
 * for the exit of a child while it reads, so the loop checks between reads whether the server is still
 * running.
 */
const FIRST_PROCESS = `
for name in TERM INT; do trap "kill -s $name \\$!" $name; done
"$0" "$@" </dev/null &
while kill -0 $! 2>/dev/null; do
  read -r -t 0.2
  [ $? -eq 1 ] && exit 1
done
wait $!
`

async function endAtOnce(command: string, name: string, client: ChildProcess): Promise<void> {
  await removeContainer(command, name)
  // If the daemon is unresponsive, the client would wait forever.
  client.kill('SIGKILL')
}

/** Removes the container, if it exists, together with the anonymous volumes that its image declares. */
const removeContainer = (command: string, name: string) =>
  succeeds(run(command, ['rm', '--force', '--volumes', name]))

async function run(command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, { timeout: COMMAND_LIMIT_MS })
  return stdout
}

const succeeds = (running: Promise<unknown>) =>
  running.then(
    () => true,
    () => false,
  )
