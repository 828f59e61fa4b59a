import { readFileSync } from 'node:fs'
import Type from 'typebox'
import { processConfig } from '../../chassis/service-process.ts'
import { ConfigError, readConfig } from '../../platform/process/config.ts'
import { CLOSE_DEADLINE_MS } from '../../platform/process/process.ts'
import { billingConfig } from '../../services/billing/config.ts'
import { notificationConfig } from '../../services/notification/config.ts'
import { orderConfig } from '../../services/order/config.ts'
import { root } from '../repository-files.ts'

type Labels = Readonly<Record<string, string>>

interface Probe {
  readonly httpGet?: { readonly path: string; readonly port: string }
  readonly tcpSocket?: { readonly port: string }
}

interface Container {
  readonly name: string
  readonly image: string
  readonly command?: readonly string[]
  readonly env?: readonly { readonly name: string; readonly value?: string }[]
  readonly envFrom?: readonly { readonly configMapRef: { readonly name: string } }[]
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[]
  readonly startupProbe?: Probe
  readonly readinessProbe?: Probe
  readonly livenessProbe?: Probe
  readonly lifecycle?: { readonly preStop: { readonly sleep: { readonly seconds: number } } }
  readonly resources?: { readonly requests?: object; readonly limits?: object }
  readonly securityContext?: Readonly<Record<string, unknown>>
}

interface PodSpec {
  readonly automountServiceAccountToken?: boolean
  readonly enableServiceLinks?: boolean
  readonly terminationGracePeriodSeconds?: number
  readonly securityContext?: Readonly<Record<string, unknown>>
  readonly containers: readonly Container[]
}

/** The parts of a rendered manifest that the policies check. */
export interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly data?: Labels
  readonly stringData?: Labels
  // biome-ignore lint/suspicious/noExplicitAny: each kind has a shape of its own.
  readonly spec?: any
}

interface Pod {
  readonly owner: Manifest
  readonly labels: Labels
  readonly spec: PodSpec
}

/** The policy violations in the manifests of one release, as one sentence each. */
export function policyFindings(manifests: readonly Manifest[]): string[] {
  const pods = manifests.flatMap(podOf)
  return [
    ...pods.flatMap(({ owner, spec }) =>
      [
        ...restricted(spec),
        ...spec.containers.flatMap((one) => container(one, spec, manifests)),
      ].map((finding) => `${owner.kind} ${owner.metadata.name}: ${finding}`),
    ),
    ...manifests.flatMap((manifest) => selected(manifest, pods)),
    ...manifests.flatMap(rollingUpdate),
    ...leakedSecrets(manifests),
  ]
}

/**
 * The paths that probes request. Only a test with a running program can show that the program serves these
 * paths.
 */
export function probePaths(manifests: readonly Manifest[]): string[] {
  const paths = manifests
    .flatMap(podOf)
    .flatMap(({ spec }) => spec.containers.flatMap(probesOf))
    .flatMap(({ httpGet }) => httpGet?.path ?? [])
  return [...new Set(paths)]
}

/** Placeholders for values that are only in a Secret in the cluster. */
const SECRET_VALUES: Labels = {
  DATABASE_URL: 'postgres://from/a-secret',
  SMTP_URL: 'smtp://from-a-secret:587',
}

/**
 * Checks the environment of a container against the configuration of its service. `environment` need not
 * contain the secrets.
 */
export function environmentFindings(main: string, environment: Labels): string[] {
  const service = /^services\/(order|billing|notification)\/main\.ts$/.exec(main)?.[1]
  if (service === undefined) return []
  const schema = SCHEMAS[service as keyof typeof SCHEMAS]
  // main.ts adds the URLs of other services to the schema of the service.
  const text = readFileSync(root + main, 'utf8')
  const added = [...text.matchAll(/^ {4}([A-Z_]+_URL): /gm)].map(([, name]) => name as string)
  const known = new Set([...Object.keys(schema.properties), ...added])
  const unknown = Object.keys(environment).filter((name) => !known.has(name))
  const missing = added.filter((name) => !environment[name])
  const findings = [
    ...unknown.map((name) => `${service} does not read ${name}`),
    ...missing.map((name) => `${service} lacks ${name}`),
  ]
  try {
    readConfig(schema, { DATABASE_URL: SECRET_VALUES.DATABASE_URL, ...environment })
    return findings
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return [...findings, ...error.problems]
  }
}

const SCHEMAS = {
  order: Type.Object({ ...processConfig, ...orderConfig }),
  billing: Type.Object({ ...processConfig, ...billingConfig }),
  notification: Type.Object({ ...processConfig, ...notificationConfig }),
} as const

/** Whether the tag or digest of an image is one fixed version. */
export function isPinned(image: string): boolean {
  return /^[^\s:]+:v?\d+\.\d+[^\s:]*$/.test(image) || image.includes('@sha256:')
}

function podOf(owner: Manifest): Pod[] {
  if (owner.kind === 'Pod') return [{ owner, labels: {}, spec: owner.spec }]
  const template = owner.spec?.template
  return template?.spec ? [{ owner, labels: template.metadata.labels, spec: template.spec }] : []
}

/** Checks the rules of the Pod Security Standard "restricted", and a few more. */
function restricted({ securityContext: pod, ...spec }: PodSpec): string[] {
  const findings: string[] = []
  if (spec.automountServiceAccountToken !== false) findings.push('has a service account token')
  if (spec.enableServiceLinks !== false) findings.push('gets variables for other Services')
  if (pod?.runAsNonRoot !== true || !pod.runAsUser) findings.push('may run as root')
  const seccomp = pod?.seccompProfile as { type?: string } | undefined
  if (seccomp?.type !== 'RuntimeDefault') findings.push('has no seccomp profile')
  for (const { name, securityContext: own, resources } of spec.containers) {
    const dropped = (own?.capabilities as { drop?: string[] } | undefined)?.drop
    if (own?.readOnlyRootFilesystem !== true)
      findings.push(`${name} may write to its root file system`)
    if (own?.allowPrivilegeEscalation !== false) findings.push(`${name} may gain privileges`)
    if (!dropped?.includes('ALL')) findings.push(`${name} keeps capabilities`)
    if (!resources?.requests || !resources.limits)
      findings.push(`${name} has no resource requests and limits`)
  }
  return findings
}

function container(one: Container, spec: PodSpec, manifests: readonly Manifest[]): string[] {
  const findings: string[] = []
  if (!isPinned(one.image)) findings.push(`${one.image} is not a fixed version`)
  const ports = new Set(one.ports?.map(({ name }) => name))
  for (const { httpGet, tcpSocket } of probesOf(one)) {
    const port = (httpGet ?? tcpSocket)?.port
    if (port !== undefined && !ports.has(port))
      findings.push(`a probe uses the unknown port ${port}`)
  }
  const maps = one.envFrom?.map(({ configMapRef }) => configMapRef.name) ?? []
  const mapped = manifests.filter(
    ({ kind, metadata }) => kind === 'ConfigMap' && maps.includes(metadata.name),
  )
  if (mapped.length < maps.length) findings.push(`its ConfigMap is missing (${maps})`)
  const plain: Labels = Object.assign({}, ...mapped.map(({ data }) => data))
  const secret =
    one.env?.map(({ name, value }) => [name, value ?? SECRET_VALUES[name] ?? 'a secret']) ?? []
  const main = one.command?.at(-1) ?? ''
  findings.push(...environmentFindings(main, { ...plain, ...Object.fromEntries(secret) }))
  if (!main.startsWith('services/')) return findings
  if (plain.PORT !== String(one.ports?.[0]?.containerPort)) findings.push('PORT is not its port')
  const preStopMs = (one.lifecycle?.preStop.sleep.seconds ?? 0) * 1000
  const graceMs = (spec.terminationGracePeriodSeconds ?? 0) * 1000
  if (preStopMs === 0) findings.push('stops before proxies stop sending requests to it')
  if (graceMs <= preStopMs + CLOSE_DEADLINE_MS) findings.push('may be killed while it drains')
  return findings
}

function probesOf({ startupProbe, readinessProbe, livenessProbe }: Container): Probe[] {
  return [startupProbe, readinessProbe, livenessProbe].filter((probe) => probe !== undefined)
}

/**
 * Checks that a selector selects the pods of exactly one workload. With another selector, a Service could
 * have no pods, or a policy no effect.
 */
function selected({ kind, metadata, spec }: Manifest, pods: readonly Pod[]): string[] {
  const says = (finding: string) => [`${kind} ${metadata.name}: ${finding}`]
  const wanted: Labels | undefined =
    kind === 'Service'
      ? spec.selector
      : ({ NetworkPolicy: spec?.podSelector, PodDisruptionBudget: spec?.selector }[kind]
          ?.matchLabels as Labels | undefined)
  if (wanted === undefined) return []
  const chosen = pods.filter(({ labels }) =>
    Object.entries(wanted).every(([name, value]) => labels[name] === value),
  )
  const owners = new Set(chosen.map(({ owner }) => owner.metadata.name))
  if (owners.size !== 1)
    return says(`selects the pods of ${[...owners].join(', ') || 'no workload'}`)
  if (kind !== 'Service') return []
  const ports = new Set(
    chosen
      .flatMap(({ spec: pod }) => pod.containers.flatMap((one) => one.ports ?? []))
      .map(({ name }) => name),
  )
  const targets = spec.ports.map(({ targetPort }: { targetPort: string }) => targetPort)
  const lost = targets.filter((target: string) => !ports.has(target))
  return lost.length > 0 ? says(`targets the unknown port ${lost}`) : []
}

function rollingUpdate({ kind, metadata, spec }: Manifest): string[] {
  if (kind !== 'Deployment' || spec.strategy?.rollingUpdate?.maxUnavailable === 0) return []
  return [`Deployment ${metadata.name}: an update stops pods before others are ready`]
}

/** Finds values of Secrets that occur in other objects. */
function leakedSecrets(manifests: readonly Manifest[]): string[] {
  const isSecret = ({ kind }: Manifest) => kind === 'Secret'
  const secrets = manifests
    .filter(isSecret)
    .flatMap(({ stringData = {} }) => Object.values(stringData))
  return manifests
    .filter((manifest) => !isSecret(manifest))
    .filter((manifest) => secrets.some((value) => JSON.stringify(manifest).includes(value)))
    .map(({ kind, metadata }) => `${kind} ${metadata.name}: contains a secret`)
}
