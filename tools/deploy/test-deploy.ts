import assert from 'node:assert/strict'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { parse, parseAllDocuments } from 'yaml'
import { STYLES } from '../../contracts/style.ts'
import { startProgram } from '../../tests/e2e/program.ts'
import { repositoryFiles, root } from '../repository-files.ts'
import { KAFKA_IMAGE } from '../servers/kafka.ts'
import { IMAGE_MAJOR as POSTGRES_MAJOR } from '../servers/postgres.ts'
import {
  findActionlint,
  findHelm,
  findKubeScore,
  findPythonTool,
  type Tool,
  tryCommand,
} from './deploy-tools.ts'
import {
  environmentFindings,
  isPinned,
  type Manifest,
  policyFindings,
  probePaths,
} from './policies.ts'
import { testImage } from './test-image.ts'

/**
 * Checks everything in deploy/ that can be checked without a cluster (image, compose file, charts), and the
 * GitHub workflow. If the tool for a check cannot be installed, the check is listed as skipped. The exit code
 * is 1 if any check fails.
 */
const CHARTS = ['kafka', 'billing', 'notification', 'order'] as const
const SERVICES = CHARTS.slice(1)
const KUBERNETES_VERSIONS = ['1.30', '1.33', '1.36']
const helmFolder = join(root, 'deploy', 'helm')
const FLOW = join(helmFolder, 'order', 'files', 'flow.mjs')

/** The sets of values for rendering the charts of the services. The Kafka chart has its own sets. */
const VALUE_SETS: Readonly<Record<string, readonly string[]>> = {
  defaults: [],
  'style http': ['interactionStyle=http'],
  'style hybrid': ['interactionStyle=hybrid'],
  'external servers': [
    'database.internal=false',
    'database.existingSecret=my-database',
    'kafka.internal=false',
    'kafka.brokers=one.example:9094\\,two.example:9094',
  ],
  autoscaling: ['autoscaling.enabled=true'],
  'no ingress': ['ingress.enabled=false'],
  'TLS and no prefix': ['ingress.tlsSecret=my-certificate', 'ingress.basePath=/'],
  'three replicas': ['replicas=3'],
  'no network policy': ['networkPolicy.enabled=false'],
  'settings of the program': ['env.RATE_LIMIT_PER_MINUTE=600', 'logLevel=warn'],
}

const KAFKA_VALUE_SETS: typeof VALUE_SETS = {
  defaults: [],
  'three replicas': ['replicas=3'],
  'no network policy': ['networkPolicy.enabled=false'],
  'more partitions': ['topics.partitions=12'],
}

/** Values that the schemas must reject. */
const INVALID_VALUES = [
  'interactionStyle=soap',
  'replicas=0',
  'database.internal=false',
  'shutdown.graceSeconds=20',
  'env.DATABASE_URL=postgres://a:b@c/d',
  'misspelt=true',
]

/** Findings of kube-score that are accepted, each with the reason. */
const SCORE_EXCEPTIONS: readonly { readonly finding: RegExp; readonly why: string }[] = [
  {
    finding: /ImagePullPolicy is not set to Always/,
    why: 'tags are fixed versions, and an image that was built in minikube is in no registry',
  },
  {
    finding: /running with a low (user|group) ID|running with a low group ID/,
    why: 'the users of the official images (node 1000, appuser 1000, postgres 999) own the files in them',
  },
  {
    finding: /does not have a host podAntiAffinity set/,
    why: 'topologySpreadConstraints spread the pods, but still allow a single node to run all of them',
  },
  {
    finding: /(kafka-topics .*Job|flow-test .*Pod): The pod does not have a matching NetworkPolicy/,
    why: 'these pods run for seconds, listen on no port and can call only what the other policies allow',
  },
]

const skipped: string[] = []
let failed = false

async function step(name: string, run: () => Promise<readonly string[]>): Promise<void> {
  const startedMs = performance.now()
  const findings = await run()
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  console.log(`${findings.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`)
  for (const finding of findings) console.log(`         ${finding}`)
  if (findings.length > 0) failed = true
}

/** Runs a command. If it fails, its output is returned as a finding. */
async function failureOf(command: string, args: readonly string[], about = ''): Promise<string[]> {
  const { ok, output } = await tryCommand(command, args)
  return ok ? [] : [`${about}${about && ': '}${output.trim()}`]
}

async function withTool(
  name: string,
  tool: Promise<Tool>,
  run: (command: string) => Promise<readonly string[]>,
): Promise<void> {
  const found = await tool
  if (found.kind === 'tool') return step(name, () => run(found.command))
  skipped.push(`${name}: ${found.why}`)
}

const { values: options } = parseArgs({
  options: {
    vendor: { type: 'boolean', default: false },
    image: { type: 'boolean', default: false },
  },
})
if (options.vendor) {
  for (const chart of CHARTS) {
    const target = join(helmFolder, chart, 'charts', 'common')
    rmSync(target, { recursive: true, force: true })
    for (const [path, text] of Object.entries(vendoredCommon())) {
      mkdirSync(dirname(join(target, path)), { recursive: true })
      writeFileSync(join(target, path), text)
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), 'trifold-deploy-'))
try {
  if (options.image) await image()
  else await everythingElse()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
for (const one of skipped) console.log(`skipped: ${one}`)
if (failed) process.exitCode = 1

async function everythingElse(): Promise<void> {
  const renderings: Record<string, readonly Manifest[]> = {}
  await step('Node.js has one version everywhere', async () => nodeVersions())
  await step('Kafka and PostgreSQL have one version everywhere', async () => serverImages())
  await step('the charts contain the current common chart', async () => vendoredCharts())
  await step('the schemas of the services agree', async () => valueSchemas())
  await withTool('the Dockerfile (hadolint)', findPythonTool('hadolint'), (hadolint) =>
    failureOf(hadolint, [join(root, 'deploy', 'Dockerfile')]),
  )
  await withTool('the GitHub workflow (actionlint)', findActionlint(), (actionlint) =>
    failureOf(actionlint, [join(root, '.github/workflows/ci.yaml')]),
  )
  await withTool('the compose file', findPythonTool('docker-compose'), composeFile)
  const helm = await findHelm()
  await withTool('the charts (helm lint --strict)', Promise.resolve(helm), lint)
  await withTool('the rendered manifests meet the policies', Promise.resolve(helm), (command) =>
    renderAll(command, renderings),
  )
  await withTool('the schemas reject invalid values', Promise.resolve(helm), acceptedInvalidValues)
  if (helm.kind === 'tool') await checkRendered(renderings)
  await step('the flow of helm test passes, and probed paths respond', () => flow(renderings))
}

/**
 * Tests the image. This runs only with --image, because it takes minutes and starts servers. If Docker is
 * missing, the check fails instead of being skipped.
 */
async function image(): Promise<void> {
  const why = await testImage(async ({ name, run }) => {
    const figures: string[] = []
    await step(name, async () => {
      try {
        figures.push(await run())
        return []
      } catch (error) {
        return [(error as Error).message]
      }
    })
    for (const one of figures) console.log(`         ${one}`)
    return figures.length > 0
  })
  if (why !== undefined) await step('the image', async () => [why])
}

async function checkRendered(renderings: Readonly<Record<string, readonly Manifest[]>>) {
  const files = Object.keys(renderings)
  for (const version of KUBERNETES_VERSIONS) {
    const name = `the schemas of Kubernetes ${version}`
    await withTool(name, findPythonTool('kubernetes-validate'), (command) =>
      failureOf(command, ['--kubernetes-version', version, '--strict', '--quiet', ...files]),
    )
  }
  await withTool('best practices (kube-score)', findKubeScore(), async (command) => {
    const bad = new Set<string>()
    // In renderings without network policies, kube-score would only report that they are missing.
    for (const file of files.filter((one) => !one.includes('no-network-policy'))) {
      // One file at a time, because objects in different files have the same names, and kube-score would mix
      // them up.
      const args = ['score', '--output-format', 'ci', file]
      const { stdout, output } = await tryCommand(command, args)
      const lines = stdout.split('\n')
      if (!lines.some((line) => line.startsWith('[OK]'))) return [`kube-score failed: ${output}`]
      for (const line of lines) if (/^\[(CRITICAL|WARNING)\]/.test(line)) bad.add(line)
    }
    const unused = SCORE_EXCEPTIONS.filter(({ finding }) => ![...bad].some((l) => finding.test(l)))
    return [
      ...[...bad].filter((line) => !SCORE_EXCEPTIONS.some(({ finding }) => finding.test(line))),
      ...unused.map(({ finding }) => `the exception ${finding} is not needed`),
    ]
  })
}

/** Compares the Node.js versions in package.json, the image and `.node-version`. */
function nodeVersions(): string[] {
  const read = (path: string) => readFileSync(join(root, path), 'utf8')
  const packages: Record<string, string> = JSON.parse(read('package.json')).optionalDependencies
  const image = /^ARG BASE_IMAGE=node:(\d+\.\d+\.\d+)-/m.exec(read('deploy/Dockerfile'))?.[1]
  const all = {
    ...packages,
    'deploy/Dockerfile': image,
    '.node-version': read('.node-version').trim(),
  }
  if (new Set(Object.values(all)).size === 1) return []
  return [
    Object.entries(all)
      .map(([place, version]) => `${place}: ${version}`)
      .join(', '),
  ]
}

/** Compares the versions of Kafka and PostgreSQL in the compose file, the charts and `npm run stack`. */
function serverImages(): string[] {
  const read = (path: string) => parse(readFileSync(join(root, 'deploy', path), 'utf8'))
  const { services } = read('compose.yaml')
  const { image: kafka } = read('helm/kafka/values.yaml')
  const { image: postgres } = read('helm/common/values.yaml').exports.service.database
  const nameOf = ({ repository, tag }: Record<string, string>) => `${repository}:${tag}`
  const findings: string[] = []
  if (new Set([services.kafka.image, nameOf(kafka), KAFKA_IMAGE]).size > 1) {
    findings.push(`Kafka: ${services.kafka.image}, ${nameOf(kafka)}, ${KAFKA_IMAGE}`)
  }
  const major = `postgres:${POSTGRES_MAJOR}.`
  if (services.postgres.image !== nameOf(postgres) || !nameOf(postgres).startsWith(major)) {
    findings.push(`PostgreSQL: ${services.postgres.image}, ${nameOf(postgres)}, ${major}`)
  }
  return findings
}

/** The content of each file below a folder of the repository, by the path relative to that folder. */
function filesBelow(folder: string): Record<string, string> {
  const own = repositoryFiles().filter((file) => file.startsWith(folder))
  return Object.fromEntries(
    own.map((file) => [file.slice(folder.length), readFileSync(root + file, 'utf8')]),
  )
}

/** The files of the copy of the common chart that each chart contains. */
function vendoredCommon(): Record<string, string> {
  const note = 'A copy of deploy/helm/common, made by npm run test:deploy -- --vendor. Do not edit.'
  const marked = Object.entries(filesBelow('deploy/helm/common/')).map(([path, text]) => {
    const first = path.endsWith('.tpl') ? `{{- /* ${note} */ -}}` : `# ${note}`
    return [path, `${first}\n${text}`]
  })
  return Object.fromEntries(marked)
}

function vendoredCharts(): string[] {
  const expected = JSON.stringify(vendoredCommon())
  return CHARTS.filter(
    (chart) => JSON.stringify(filesBelow(`deploy/helm/${chart}/charts/common/`)) !== expected,
  ).map((chart) => `${chart} is out of date: npm run test:deploy -- --vendor`)
}

function valueSchemas(): string[] {
  const schemas = SERVICES.map(
    (chart) =>
      JSON.parse(readFileSync(join(helmFolder, chart, 'values.schema.json'), 'utf8')).properties,
  )
  const shared = Object.keys(schemas[0]).filter((name) => schemas.every((one) => name in one))
  return shared
    .filter((name) => new Set(schemas.map((one) => JSON.stringify(one[name]))).size > 1)
    .map((name) => `${SERVICES} disagree about ${name}`)
}

async function composeFile(compose: string): Promise<string[]> {
  const profiles = ['--profile', 'observability', '--profile', 'mail']
  const args = ['-f', join(root, 'deploy', 'compose.yaml'), ...profiles, 'config']
  const { ok, stdout, output } = await tryCommand(compose, [...args, '--format', 'json'])
  if (!ok) return [output]
  const { services } = JSON.parse(stdout) as {
    services: Record<
      string,
      { image: string; command: string[] | null; environment?: Record<string, string> }
    >
  }
  return Object.entries(services).flatMap(([name, { image, command, environment = {} }]) => [
    ...(isPinned(image) ? [] : [`${name}: ${image} is not a fixed version`]),
    ...environmentFindings(command?.at(-1) ?? '', environment),
  ])
}

async function lint(helm: string): Promise<string[]> {
  const whole = join(folder, 'helm')
  cpSync(helmFolder, whole, { recursive: true })
  const umbrella = join(whole, 'trifold')
  const updated = await failureOf(helm, ['dependency', 'update', umbrella])
  const charts = [...CHARTS.map((chart) => join(helmFolder, chart)), umbrella]
  return [...updated, ...(await failureOf(helm, ['lint', '--strict', ...charts]))]
}

/** Renders all charts, and adds the manifests to `renderings` under the names of the files that contain them. */
async function renderAll(
  helm: string,
  renderings: Record<string, readonly Manifest[]>,
): Promise<string[]> {
  const findings: string[] = []
  const render = async (
    release: string,
    chart: string,
    name: string,
    values: readonly string[],
  ) => {
    const set = values.flatMap((value) => ['--set', value])
    const args = ['template', release, chart, '--namespace', 'arch-gur', ...set]
    const { ok, stdout, output } = await tryCommand(helm, args)
    if (!ok) return findings.push(`${release}, ${name}: ${output.trim()}`)
    const file = join(folder, `${release}-${name.replaceAll(' ', '-')}.yaml`)
    writeFileSync(file, stdout)
    const documents = parseAllDocuments(stdout).map((document) => document.toJS())
    const manifests: Manifest[] = documents.filter((document) => document !== null)
    renderings[file] = manifests
    findings.push(...policyFindings(manifests).map((one) => `${release}, ${name}: ${one}`))
  }
  for (const chart of CHARTS) {
    const sets = chart === 'kafka' ? KAFKA_VALUE_SETS : VALUE_SETS
    for (const [name, values] of Object.entries(sets)) {
      await render(`trifold-${chart}`, join(helmFolder, chart), name, values)
    }
  }
  const smtp = ['letters.smtpSecret=my-mail-server']
  await render('trifold-notification', join(helmFolder, 'notification'), 'mail server', smtp)
  await render('trifold', join(folder, 'helm', 'trifold'), 'all in one release', [])
  return findings
}

async function acceptedInvalidValues(helm: string): Promise<string[]> {
  const accepted: string[] = []
  for (const chart of SERVICES) {
    for (const value of INVALID_VALUES) {
      const args = ['template', 'x', join(helmFolder, chart), '--set', value]
      const { ok, output } = await tryCommand(helm, args)
      // The schema itself must reject the value. It is not enough if a template fails.
      if (ok || !output.includes('schema')) accepted.push(`${chart} accepts ${value}`)
    }
  }
  return accepted
}

/**
 * Runs the script of the charts' test pod against a running program in each style, and requests the paths of
 * all probes.
 */
async function flow(renderings: Readonly<Record<string, readonly Manifest[]>>): Promise<string[]> {
  const paths = probePaths(Object.values(renderings).flat())
  const findings: string[] = []
  for (const style of STYLES) {
    const program = await startProgram({ INTERACTION_STYLE: style })
    try {
      const { url } = program
      const at = ['ORDER_URL', 'BILLING_URL', 'NOTIFICATION_URL'].map((name) => `${name}=${url}`)
      const environment = [`STYLE=${style}`, ...at]
      findings.push(...(await failureOf('env', [...environment, process.execPath, FLOW], style)))
      const port = new URL(url).port
      const liveness = join(root, 'apps', 'liveness', 'main.ts')
      findings.push(
        ...(await failureOf('env', [`PORT=${port}`, process.execPath, liveness], 'liveness')),
      )
      for (const path of paths) {
        const { status } = await fetch(url + path)
        if (status !== 200) findings.push(`a probe requests ${path}, which responds with ${status}`)
      }
    } finally {
      await program.close()
    }
  }
  assert.ok(paths.length > 0 || Object.keys(renderings).length === 0, 'no probe was found')
  return findings
}
