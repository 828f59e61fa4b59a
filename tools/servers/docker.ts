import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { promisify } from 'node:util'
import { type KeptProcess, startKept } from './kept-process.ts'

/** A daemon of this machine that answers, or a clause that says why it cannot be used. */
export type Docker =
  | { readonly kind: 'daemon'; readonly command: string }
  | { readonly kind: 'none'; readonly why: string }

/** An image that the daemon has, or a clause that says why it has not. */
export type Image =
  | { readonly kind: 'image'; readonly command: string; readonly name: string }
  | { readonly kind: 'none'; readonly why: string }

const ANSWER_LIMIT_MS = 20_000
const SHARED_MEMORY = '256m'

/**
 * Asks for a daemon whose containers can stand in for programs of this machine: they share our
 * folders under our user, and their ports are published on our loopback.
 */
export async function findDocker(command = 'docker'): Promise<Docker> {
  const none = (why: string): Docker => ({ kind: 'none', why })
  try {
    // It knows DOCKER_HOST and the chosen context.
    const format = '{{.Endpoints.docker.Host}}'
    const host = (await ask(command, ['context', 'inspect', '--format', format])).trim()
    if (!host.startsWith('unix:')) return none(`Docker's daemon is not on this machine (${host})`)
    const info = await ask(command, ['info', '--format', '{{.OSType}} {{.SecurityOptions}}'])
    // In both, our user is somebody else in a container, who may not read our folders.
    if (/name=(rootless|userns)/.test(info))
      return none("Docker's containers have users of their own")
    if (!info.startsWith('linux'))
      return none(`Docker's containers are not of Linux (${info.trim()})`)
    return { kind: 'daemon', command }
  } catch (error) {
    const { code } = error as { code?: unknown }
    return none(code === 'ENOENT' ? 'Docker is not installed' : "Docker's daemon does not answer")
  }
}

/**
 * The image, pulled when the daemon does not have it, with its progress. Rejects only when `signal`
 * gives up.
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
  say(`pulls the image ${name}`)
  const lines: string[] = []
  const onLine = (line: string) => {
    lines.push(line)
    if (line.endsWith(': Pull complete')) say(pullProgress(lines))
  }
  const pull = await startKept({ command, args: ['pull', name], onLine })
  const giveUp = () => void pull.stop()
  signal?.addEventListener('abort', giveUp)
  // It may have been given up while the pull was begun, when nobody listened yet.
  if (signal?.aborted) giveUp()
  const code = await pull.ended
  signal?.removeEventListener('abort', giveUp)
  signal?.throwIfAborted()
  if (code === 0) return { kind: 'image', command, name }
  return { kind: 'none', why: `Docker cannot pull ${name}: ${lines.at(-1) ?? `code ${code}`}` }
}

/** Without pulling it. */
export async function hasImage(docker: Docker, name: string): Promise<boolean> {
  if (docker.kind === 'none') return false
  return await succeeds(ask(docker.command, ['image', 'inspect', '--format', '{{.Id}}', name]))
}

/** Looks for the programs on this machine. The error says both ways: this one, and why there is no image. */
export function withoutImage<T>(image: Image | undefined, find: () => T): T {
  try {
    return find()
  } catch (cause) {
    const why = image?.kind === 'none' ? image.why : 'it is not to be asked'
    throw new Error(`${(cause as Error).message} Or let Docker run it: ${why}.`, { cause })
  }
}

/** Of what `docker pull` prints where it has no terminal: a line for each step of a layer. */
export function pullProgress(lines: readonly string[]): string {
  const count = (...steps: string[]) =>
    lines.filter((line) => steps.some((step) => line.endsWith(`: ${step}`))).length
  const done = count('Pull complete', 'Already exists')
  return `has ${done} of ${count('Pulling fs layer', 'Already exists')} layers`
}

export interface ContainerOptions {
  readonly name: string
  /** It has the same path in the container; its owner is who the container runs as. */
  readonly folder: string
  /** Who runs in the container: a user and a group of this machine. */
  readonly user: { readonly uid: number; readonly gid: number }
  /** Published at the same number on loopback. */
  readonly port?: number
  /** Files of this machine that stand in place of files of the image. */
  readonly files?: Readonly<Record<string, string>>
  /** Takes what it prints. */
  readonly logFile: string
}

/** One container for one folder, so a later start finds what an earlier one left. */
export function containerName(what: string, folder: string): string {
  return `trifold-${what}-${createHash('sha256').update(folder).digest('hex').slice(0, 12)}`
}

/**
 * Runs a program of an image in the foreground: its container ends with us, however we end. The kernel
 * closes our end of the client's standard input when we die, the daemon closes the container's when the
 * client dies, and the container's first process ends the container at the end of its standard
 * input, also while the server is frozen. What a daemon that died itself has left is removed at the
 * next start. The process that is returned is the client's, which hands on the signals that it gets.
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
    // Ctrl-C reaches it only through us.
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

/** To the server in a container and all that descend from it; resolves when they have it. */
export async function signalContainer(
  { command }: Extract<Image, { kind: 'image' }>,
  name: string,
  signal: NodeJS.Signals,
): Promise<void> {
  // The first process is left alone by a signal to all: it watches while the others are frozen.
  const all = ['exec', name, 'bash', '-c', `kill -s ${signal.slice('SIG'.length)} -1`]
  // Who has ended already needs no signal.
  await succeeds(ask(command, signal === 'SIGKILL' ? ['kill', name] : all))
}

const STOP_LIMIT_MS = 15_000

/** `docker run` of a program; nothing in it is secret, since every user can see it. */
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
    // Where SELinux guards the machine, it would keep the container out of the folder.
    ...['--security-opt', 'label=disable'],
    ...(port === undefined ? [] : ['--publish', `127.0.0.1:${port}:${port}`]),
    // PostgreSQL's parallel workers meet in it; Docker's 64 MB are too few for them.
    ...['--shm-size', SHARED_MEMORY],
    // What it prints comes to us; the daemon need not keep it, too.
    ...['--log-driver', 'none'],
    ...['--entrypoint', 'bash', image, '-c', FIRST_PROCESS, program.command, ...program.args],
  ]
}

/**
 * $0 is the program, $@ its arguments. When the first process of a container ends, the kernel kills all
 * others. `read` answers 1 at the end of the input and more than 128 when its time is over. Bash runs no
 * trap for a child's end while it reads, so the end of the server is looked for between reads.
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
  // A daemon that hangs keeps its client waiting.
  client.kill('SIGKILL')
}

/** With the anonymous volumes that images ask for. That there is none is no failure. */
const removeContainer = (command: string, name: string) =>
  succeeds(ask(command, ['rm', '--force', '--volumes', name]))

async function ask(command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, { timeout: ANSWER_LIMIT_MS })
  return stdout
}

const succeeds = (asked: Promise<unknown>) =>
  asked.then(
    () => true,
    () => false,
  )
