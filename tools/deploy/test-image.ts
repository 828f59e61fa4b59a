import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from '../../platform/async/until.ts'
import { openPostgres } from '../../platform/postgres/postgres.ts'
import { createClient } from '../../tests/e2e/client.ts'
import { assertInvariantsHold } from '../../tests/e2e/invariants.ts'
import { assertSettled, PATIENT, startBurst } from '../../tests/e2e/order-burst.ts'
import { root } from '../repository-files.ts'
import { startKafka } from '../servers/kafka.ts'
import { startNginx } from '../servers/nginx.ts'
import { freePorts } from '../servers/ports.ts'
import { databaseUrl, makeDatabases, startPostgres } from '../servers/postgres.ts'
import { type Engine, startEngine } from './container-engine.ts'
import { findPythonTool, tryCommand } from './deploy-tools.ts'

/** One check of the image. */
export interface ImageStep {
  readonly name: string
  /** Runs the check. Resolves with the figures to print. */
  run(): Promise<string>
}

const IMAGE = 'trifold:under-test'
const PROJECT = 'trifold-under-test'
const SERVICES = ['order', 'billing', 'notification'] as const
const FIRST_PORT = 24_000
const HEALTHY_LIMIT_MS = 120_000
const MEGABYTE = 1_000_000

/** The variables that each service must report as missing if no variable is set. */
const MISSING = {
  order: ['DATABASE_URL'],
  billing: ['DATABASE_URL'],
  notification: ['DATABASE_URL'],
} as const

interface Container {
  readonly State: {
    readonly ExitCode: number
    readonly OOMKilled: boolean
    readonly Health?: { readonly Status: string }
  }
  readonly Config: { readonly User: string; readonly Labels: Readonly<Record<string, string>> }
  readonly HostConfig: {
    readonly ReadonlyRootfs: boolean
    readonly CapDrop: readonly string[] | null
    readonly SecurityOpt: readonly string[] | null
  }
}

/**
 * Builds the image and runs it as deploy/README.md describes: each service without settings, the all-in-one
 * program, and our services in the compose file. Kafka, PostgreSQL and nginx are started as in `npm run
 * stack`, and all programs share the machine's network, so no other image is needed. `step` runs a step and
 * resolves with whether it passed; the first failure ends the run. If there is no Docker, resolves with the
 * reason, as a clause.
 */
export async function testImage(
  step: (one: ImageStep) => Promise<boolean>,
): Promise<string | undefined> {
  const compose = await findPythonTool('docker-compose')
  if (compose.kind === 'none') return compose.why
  const engine = await startEngine()
  if (engine.kind === 'none') return engine.why
  const folder = mkdtempSync(join(tmpdir(), 'trifold-image-'))
  // PostgreSQL may run as another user, and that user must be able to enter the folder.
  chmodSync(folder, 0o755)
  const steps: readonly ImageStep[] = [
    { name: 'the image is built', run: () => build(engine) },
    { name: 'a service without its settings reports them', run: () => unset(engine) },
    { name: 'the all-in-one, hardened', run: () => allInOne(engine) },
    {
      name: 'the compose file, and the flow in each style on it',
      run: () => onStack(engine, compose.command, folder),
    },
  ]
  try {
    for (const one of steps) if (!(await step(one))) break
    return undefined
  } finally {
    await engine.docker(['image', 'rm', '--force', IMAGE]).catch(() => undefined)
    await engine.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function build({ docker, baseImage }: Engine): Promise<string> {
  const base = await baseImage(process.versions.node)
  const file = join(root, 'deploy', 'Dockerfile')
  const args = base === undefined ? [] : ['--build-arg', `BASE_IMAGE=${base}`]
  await docker(['build', '--network', 'host', ...args, '-f', file, '-t', IMAGE, root])
  const [image] = JSON.parse(await docker(['image', 'inspect', IMAGE]))
  const { User, Labels, Healthcheck, StopSignal } = image.Config
  assert.deepEqual([User, StopSignal], ['1000:1000', 'SIGTERM'])
  assert.deepEqual(Healthcheck.Test, ['CMD', 'node', 'apps/liveness/main.ts'])
  for (const label of ['title', 'description', 'licenses', 'version', 'revision']) {
    assert.ok(Labels[`org.opencontainers.image.${label}`], `the image has no label ${label}`)
  }
  const files = await docker([
    ...['run', '--rm', '--pull', 'never', '--network', 'none', IMAGE, 'node', '--print'],
    "fs.globSync('{apps,contracts,messaging,platform,services,tools}/**/*.test.ts').join() + " +
      "fs.globSync('node_modules/{typescript,@biomejs,newman,node-*}').join()",
  ])
  assert.equal(files.trim(), '', 'the image has files that only tests need')
  const sizeOf = async (name: string) =>
    Number(await docker(['image', 'inspect', '--format', '{{.Size}}', name])) / MEGABYTE
  const size = await sizeOf(IMAGE)
  if (base === undefined) return `${size.toFixed(0)} MB`
  const below = await sizeOf(base)
  return `${size.toFixed(0)} MB, of which ${(size - below).toFixed(0)} on top of ${base}`
}

async function unset({ docker }: Engine): Promise<string> {
  for (const service of SERVICES) {
    const main = `services/${service}/main.ts`
    const run = docker([
      'run',
      '--rm',
      '--pull',
      'never',
      '--network',
      'none',
      ...HARDENED,
      IMAGE,
      'node',
      main,
    ])
    const error: Error = await run.then(
      () => assert.fail(`${service} started without its settings`),
      (rejected) => rejected,
    )
    for (const name of MISSING[service])
      assert.match(error.message, new RegExp(`^ +${name} is not set`, 'm'))
  }
  return SERVICES.join(', ')
}

const HARDENED = ['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges']

/** The expected lines in /proc/1/status: an unprivileged user without capabilities. */
const STATUS = {
  Uid: '1000\t1000\t1000\t1000',
  CapEff: '0000000000000000',
  CapBnd: '0000000000000000',
  NoNewPrivs: '1',
  Seccomp: '2',
}

async function allInOne({ docker }: Engine): Promise<string> {
  const port = await freePorts(FIRST_PORT, 1)
  const name = `${PROJECT}-all-in-one`
  const volume = `${PROJECT}-data`
  const url = `http://127.0.0.1:${port}`
  try {
    await docker([
      ...['run', '--detach', '--pull', 'never', '--name', name, '--network', 'host', ...HARDENED],
      ...['--volume', `${volume}:/data`, '--env', `PORT=${port}`, '--env', 'HOST=127.0.0.1', IMAGE],
    ])
    const healthy = await whenHealthy(docker, name)
    const status = await docker([
      'exec',
      name,
      'node',
      '--print',
      "fs.readFileSync('/proc/1/status', 'utf8')",
    ])
    for (const [line, value] of Object.entries(STATUS)) {
      assert.match(status, new RegExp(`^${line}:\\t${value}$`, 'm'))
    }
    const write = ['exec', name, 'node', '-e', "fs.writeFileSync('/app/x', '')"]
    await assert.rejects(docker(write), /EROFS/)
    await succeeds(process.execPath, [join(root, 'apps', 'demo', 'main.ts'), '--url', url])

    const client = createClient(url)
    const account = await client.fundedAccount(12.34)
    const startedMs = performance.now()
    await docker(['stop', name])
    const stopMs = performance.now() - startedMs
    assert.equal((await inspect(docker, name)).State.ExitCode, 0)
    await docker(['start', name])
    await whenHealthy(docker, name)
    assert.equal(await client.balance(account), 12.34)
    return `healthy after ${(healthy / 1000).toFixed(1)} s, stopped in ${(stopMs / 1000).toFixed(1)} s`
  } finally {
    await docker(['rm', '--force', name])
    await docker(['volume', 'rm', '--force', volume])
  }
}

async function whenHealthy(docker: Engine['docker'], name: string): Promise<number> {
  const startedMs = performance.now()
  const isHealthy = async () => (await inspect(docker, name)).State.Health?.Status === 'healthy'
  await until(isHealthy, { limitMs: HEALTHY_LIMIT_MS })
  return performance.now() - startedMs
}

async function inspect(docker: Engine['docker'], name: string): Promise<Container> {
  const [container] = JSON.parse(await docker(['container', 'inspect', name]))
  return container
}

async function succeeds(command: string, args: readonly string[]): Promise<string> {
  const { ok, output } = await tryCommand(command, args)
  assert.ok(ok, output)
  return output
}

async function onStack(engine: Engine, composeCommand: string, folder: string): Promise<string> {
  const closers: (() => Promise<unknown>)[] = []
  try {
    const kafka = await startKafka({ folder: join(folder, 'kafka') })
    closers.push(kafka.close)
    const first = await freePorts(FIRST_PORT, 5)
    const postgres = await startPostgres({
      folder: join(folder, 'postgres'),
      port: first,
      maxConnections: 100,
      logFile: join(folder, 'postgres.log'),
    })
    closers.push(postgres.close)
    const names = { order: 'orders', billing: 'billing', notification: 'notification' } as const
    await makeDatabases(postgres.url, Object.values(names))
    const ports = { order: first + 1, billing: first + 2, notification: first + 3 } as const
    const at = (port: number) => `127.0.0.1:${port}`
    const override = join(folder, 'compose.override.json')
    const url = (service: Service) => databaseUrl(postgres.url, names[service])
    writeFileSync(override, overrideText(folder, kafka.brokers, ports, url))
    const gateway = await startNginx(join(folder, 'nginx'), {
      port: first + 4,
      basePath: '/otusapp/gur-ok',
      upstreams: {
        orders: [at(ports.order)],
        billing: [at(ports.billing)],
        notification: [at(ports.notification)],
      },
    })
    closers.push(gateway.close)

    const settings = Object.entries(engine.environment).map(([name, value]) => `${name}=${value}`)
    const files = ['-f', join(root, 'deploy', 'compose.yaml'), '-f', override, '-p', PROJECT]
    const compose = (...args: string[]) =>
      succeeds('env', [...settings, composeCommand, ...files, ...args])
    closers.push(() => compose('down', '--volumes', '--timeout', '30'))
    await compose('up', '--wait', '--no-build')
    return await useStack({ ...engine, compose, gateway: gateway.url, folder, url })
  } finally {
    for (const closer of closers.reverse()) await closer()
  }
}

type Service = (typeof SERVICES)[number]

interface ComposeStack extends Engine {
  readonly compose: (...args: string[]) => Promise<string>
  readonly gateway: string
  readonly folder: string
  readonly url: (service: Service) => string
}

/** An override for the compose file that changes only the networks and the addresses of other servers. */
function overrideText(
  folder: string,
  brokers: string,
  ports: Readonly<Record<Service, number>>,
  databaseUrlOf: (service: Service) => string,
): string {
  const letters = join(folder, 'letters')
  mkdirSync(letters)
  // The container's user does not exist on this machine, so the folder must be writable for everyone.
  chmodSync(letters, 0o777)
  const here = { image: IMAGE, network_mode: 'host' }
  const urls = Object.fromEntries(
    SERVICES.map((service) => [
      `${service.toUpperCase()}_URL`,
      `http://127.0.0.1:${ports[service]}`,
    ]),
  )
  const serviceOf = (service: Service) => {
    const calls = {
      order: ['BILLING_URL', 'NOTIFICATION_URL'],
      billing: ['NOTIFICATION_URL', 'ORDER_URL'],
      notification: [],
    }
    return {
      ...here,
      depends_on: { topics: { condition: 'service_completed_successfully' } },
      environment: {
        ...PATIENT,
        HOST: '127.0.0.1',
        PORT: String(ports[service]),
        KAFKA_BROKERS: brokers,
        DATABASE_URL: databaseUrlOf(service),
        ...Object.fromEntries(calls[service].map((name) => [name, urls[name]])),
      },
    }
  }
  const text = JSON.stringify({
    services: {
      ...Object.fromEntries(['kafka', 'postgres', 'nginx'].map((name) => [name, OFF])),
      topics: { ...here, environment: { KAFKA_BROKERS: brokers }, depends_on: {} },
      order: serviceOf('order'),
      billing: serviceOf('billing'),
      notification: { ...serviceOf('notification'), volumes: [`${letters}:/data`] },
    },
  })
  // JSON is valid YAML, but cannot express the tag that makes compose replace a value instead of merging it.
  return text
    .replaceAll('"depends_on":', '"depends_on": !override ')
    .replaceAll('"volumes":', '"volumes": !override ')
}

const OFF = { profiles: ['elsewhere'] }

async function useStack({ docker, compose, gateway, folder, url }: ComposeStack): Promise<string> {
  const topics = await inspect(docker, `${PROJECT}-topics-1`)
  assert.equal(topics.State.ExitCode, 0)
  const containers = SERVICES.map((service) => `${PROJECT}-${service}-1`)
  for (const name of containers) {
    const { State, Config, HostConfig } = await inspect(docker, name)
    assert.deepEqual([State.Health?.Status, Config.User], ['healthy', '1000:1000'])
    assert.equal(HostConfig.ReadonlyRootfs, true)
    assert.deepEqual(HostConfig.CapDrop, ['ALL'])
    assert.deepEqual(HostConfig.SecurityOpt, ['no-new-privileges:true'])
  }
  await succeeds(process.execPath, [join(root, 'apps', 'demo', 'main.ts'), '--url', gateway])
  const collection = join(root, 'tests', 'acceptance', 'trifold.postman_collection.json')
  const newman = await succeeds(process.execPath, [
    ...[join(root, 'node_modules', 'newman', 'bin', 'newman.js'), 'run', collection],
    ...['--env-var', `baseUrl=${gateway}`, '--timeout-request', '20000', '--color', 'off'],
  ])
  const assertions = /assertions │ +(\d+) │ +0 /.exec(newman)?.[1]
  assert.ok(assertions, newman)

  const client = createClient(gateway)
  const burst = await startBurst(client)
  await burst.answered(2)
  const startedMs = performance.now()
  await docker(['stop', '--time', '25', ...containers])
  const stopMs = performance.now() - startedMs
  await burst.over
  for (const name of containers) {
    const { State } = await inspect(docker, name)
    assert.equal(State.ExitCode, 0, `${name} did not exit with 0`)
  }
  await compose('up', '--wait', '--no-build')
  await assertSettled(client, burst)
  const open = (service: Service) => openPostgres({ url: url(service), maxConnections: 2 })
  const databases = {
    orders: await open('order'),
    billing: await open('billing'),
    notification: await open('notification'),
  }
  try {
    const maildir = join(folder, 'letters', 'mail')
    await assertInvariantsHold({ ...client, databases, log: {}, maildir })
  } finally {
    await Promise.all(Object.values(databases).map((database) => database.close()))
  }
  const answered = burst.sent.filter(({ answer }) => answer).length
  const stop = `stopped in ${(stopMs / 1000).toFixed(1)} s during ${answered} orders, none lost`
  return `${assertions} newman assertions passed; ${stop}`
}
