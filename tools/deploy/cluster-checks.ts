import assert from 'node:assert/strict'
import { until } from '../../platform/async/until.ts'
import type { KubernetesApi } from './control-plane.ts'

/** The number of pods that must run in a namespace, by the name of their owner. */
export interface Workloads {
  readonly deployments: Readonly<Record<string, number>>
  readonly statefulSets: Readonly<Record<string, number>>
}

interface Named {
  readonly metadata: {
    readonly name: string
    readonly uid: string
    readonly deletionTimestamp?: string
  }
}

interface Condition {
  readonly type: string
  readonly status: string
}

interface Pod extends Named {
  readonly metadata: Named['metadata'] & { readonly labels: Readonly<Record<string, string>> }
  readonly spec: {
    readonly nodeName: string
    readonly restartPolicy: string
    readonly containers: readonly { readonly image: string }[]
    readonly volumes?: readonly { readonly name: string; readonly projected?: object }[]
  }
  readonly status: { readonly phase: string; readonly conditions?: readonly Condition[] }
}

interface EndpointSlice {
  readonly endpoints?: readonly { readonly conditions: { readonly ready?: boolean } }[]
}

/** Objects that Kubernetes creates in each namespace. */
const IN_EVERY_NAMESPACE = ['ConfigMap/kube-root-ca.crt', 'ServiceAccount/default']
const TRANSIENT_KINDS = new Set(['Event', 'PodMetrics'])

export async function podsIn(
  api: KubernetesApi,
  namespace: string,
  selector = '',
): Promise<readonly Pod[]> {
  const query = `labelSelector=${encodeURIComponent(selector)}`
  return (await api.get(`/api/v1/namespaces/${namespace}/pods?${query}`)).items
}

/**
 * Asserts that exactly these workloads run, are reachable through their Services, and have their volumes
 * bound. The check is repeated for a while, because controllers finish a little later than helm.
 */
export function assertRunning(
  api: KubernetesApi,
  namespace: string,
  workloads: Workloads,
): Promise<string> {
  return eventually(() => assertRunningNow(api, namespace, workloads))
}

async function assertRunningNow(
  api: KubernetesApi,
  namespace: string,
  { deployments, statefulSets }: Workloads,
): Promise<string> {
  const apps = `/apis/apps/v1/namespaces/${namespace}`
  assert.deepEqual(await readyReplicas(api, `${apps}/deployments`), deployments)
  assert.deepEqual(await readyReplicas(api, `${apps}/statefulsets`), statefulSets)

  const pods = await podsIn(api, namespace)
  const wanted = Object.values({ ...deployments, ...statefulSets }).reduce((sum, n) => sum + n, 0)
  assert.equal(pods.length, wanted, `pods: ${pods.map(({ metadata }) => metadata.name)}`)
  for (const { metadata, spec, status } of pods) {
    const ready = status.conditions?.find(({ type }) => type === 'Ready')?.status
    assert.equal(ready, 'True', `${metadata.name} is not ready`)
    const tokens = spec.volumes?.filter(({ projected }) => projected !== undefined) ?? []
    assert.deepEqual(tokens, [], `${metadata.name} has a service account token`)
  }
  for (const [name, replicas] of Object.entries(deployments)) {
    const instance = pods.filter((pod) => pod.metadata.name.startsWith(`${name}-`))
    const own = instance.filter((pod) => pod.metadata.labels['pod-template-hash'])
    const nodes = new Set(own.map(({ spec }) => spec.nodeName))
    assert.equal(nodes.size, Math.min(replicas, 2), `${name} is on one node only`)
    assert.equal(await endpointsOf(api, namespace, name), replicas, `the Service ${name}`)
  }
  for (const { metadata, status } of await disruptionBudgets(api, namespace)) {
    // Exactly one pod can be evicted at a time, so a node can always be drained.
    assert.equal(status.disruptionsAllowed, 1, `the budget ${metadata.name}`)
  }
  const claims = await claimsIn(api, namespace)
  const volumes = Object.entries(statefulSets).flatMap(([name, replicas]) =>
    Array.from({ length: replicas }, (_, ordinal) => `data-${name}-${ordinal}`),
  )
  assert.deepEqual(claims.map(({ name }) => name).sort(), volumes.sort())
  for (const { name, phase } of claims) assert.equal(phase, 'Bound', `the claim ${name}`)
  return `${pods.length} pods ready, ${claims.length} volumes bound`
}

async function readyReplicas(api: KubernetesApi, path: string): Promise<Record<string, number>> {
  const { items } = await api.get(path)
  return Object.fromEntries(
    items.map(({ metadata, status }: Named & { status: { readyReplicas?: number } }) => [
      metadata.name,
      status.readyReplicas ?? 0,
    ]),
  )
}

/** The number of ready pods behind a Service. */
export async function endpointsOf(
  api: KubernetesApi,
  namespace: string,
  service: string,
): Promise<number> {
  const of = encodeURIComponent(`kubernetes.io/service-name=${service}`)
  const slices: readonly EndpointSlice[] = (
    await api.get(
      `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices?labelSelector=${of}`,
    )
  ).items
  return slices
    .flatMap(({ endpoints }) => endpoints ?? [])
    .filter(({ conditions }) => conditions.ready).length
}

async function disruptionBudgets(
  api: KubernetesApi,
  namespace: string,
): Promise<readonly (Named & { readonly status: { readonly disruptionsAllowed: number } })[]> {
  return (await api.get(`/apis/policy/v1/namespaces/${namespace}/poddisruptionbudgets`)).items
}

export async function claimsIn(api: KubernetesApi, namespace: string) {
  const { items } = await api.get(`/api/v1/namespaces/${namespace}/persistentvolumeclaims`)
  return items.map(({ metadata, status }: Named & { status: { phase: string } }) => ({
    name: metadata.name,
    uid: metadata.uid,
    phase: status.phase,
  })) as { readonly name: string; readonly uid: string; readonly phase: string }[]
}

/** Every object in a namespace as `Kind/name`, except for those that every namespace has. */
export async function everythingIn(api: KubernetesApi, namespace: string): Promise<string[]> {
  const { groups } = await api.get('/apis')
  const versions = [
    '/api/v1',
    ...groups.map(
      ({ preferredVersion }: { preferredVersion: { groupVersion: string } }) =>
        `/apis/${preferredVersion.groupVersion}`,
    ),
  ]
  const found: string[] = []
  for (const version of versions) {
    const { resources } = (await api.get(version)) as { resources: readonly Resource[] }
    for (const { name, kind, namespaced, verbs } of resources) {
      if (!namespaced || !verbs.includes('list') || TRANSIENT_KINDS.has(kind)) continue
      const { items } = await api.get(`${version}/namespaces/${namespace}/${name}`)
      found.push(...items.map((item: Named) => `${kind}/${item.metadata.name}`))
    }
  }
  return found.filter((one) => !IN_EVERY_NAMESPACE.includes(one)).sort()
}

interface Resource {
  readonly name: string
  readonly kind: string
  readonly namespaced: boolean
  readonly verbs: readonly string[]
}

/** The Kubernetes events about objects with this name. */
export async function eventsOf(
  api: KubernetesApi,
  namespace: string,
  name: string,
): Promise<{ readonly reason: string; readonly message: string }[]> {
  const of = encodeURIComponent(`involvedObject.name=${name}`)
  return (await api.get(`/api/v1/namespaces/${namespace}/events?fieldSelector=${of}`)).items
}

/**
 * Creates a namespace as a careful administrator would: only pods that meet the standard "restricted" are
 * admitted.
 */
export async function makeNamespace(api: KubernetesApi, name: string): Promise<void> {
  const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' }
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }
  const { status, body } = await api.call('POST', '/api/v1/namespaces', namespace)
  assert.equal(status, 201, body.message)
  // Pods are rejected until the namespace has its default service account.
  await eventually(() => api.get(`/api/v1/namespaces/${name}/serviceaccounts/default`))
}

export async function removeNamespace(api: KubernetesApi, name: string): Promise<void> {
  const path = `/api/v1/namespaces/${name}`
  await api.call('DELETE', path)
  await eventually(async () => assert.equal((await api.call('GET', path)).status, 404))
}

/** The names of the pods of a service, except for those being deleted. */
export async function podsOf(
  api: KubernetesApi,
  namespace: string,
  instance: string,
): Promise<string[]> {
  const of = `app.kubernetes.io/instance=${instance},app.kubernetes.io/component=service`
  const pods = await podsIn(api, namespace, of)
  return pods.filter(({ metadata }) => !metadata.deletionTimestamp).map(nameOf)
}

/**
 * Requests the eviction of a pod. Returns the status of the response: 201, or 429 while the disruption budget
 * forbids the eviction.
 */
export async function evict(api: KubernetesApi, namespace: string, pod: string): Promise<number> {
  const eviction = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: pod, namespace } }
  const path = `/api/v1/namespaces/${namespace}/pods/${pod}/eviction`
  return (await api.call('POST', path, eviction)).status
}

/**
 * The lowest number of ready pods behind a Service while the promise `during` is pending and right after it
 * has settled.
 */
export async function fewestEndpoints(
  api: KubernetesApi,
  namespace: string,
  service: string,
  during: Promise<unknown>,
): Promise<number> {
  let isOver = false
  const over = () => {
    isOver = true
  }
  void during.then(over, over)
  let fewest = Number.POSITIVE_INFINITY
  for (let last = false; !last; ) {
    last = isOver
    fewest = Math.min(fewest, await endpointsOf(api, namespace, service))
  }
  await during.catch(() => undefined)
  return fewest
}

/** The Secrets of our charts with their content, without the Secrets in which helm stores its releases. */
export async function secretsIn(api: KubernetesApi, namespace: string): Promise<string[]> {
  const { items } = await api.get(`/api/v1/namespaces/${namespace}/secrets`)
  return items
    .filter(({ type }: { type: string }) => type === 'Opaque')
    .map(({ metadata, data }: Named & { data: object }) => metadata.uid + JSON.stringify(data))
    .sort()
}

export async function volumes(api: KubernetesApi): Promise<string[]> {
  return (await api.get('/api/v1/persistentvolumes')).items.map(nameOf)
}

export const nameOf = ({ metadata }: Named) => metadata.name

const SETTLE_LIMIT_MS = 60_000

/**
 * Repeats assertions until they pass, because controllers act with a delay. Resolves with the result of the
 * assertions.
 */
export async function eventually<T>(assertions: () => Promise<T>): Promise<T> {
  let passed: { readonly value: T } | undefined
  const attempt = async () => {
    passed = { value: await assertions() }
    return true
  }
  await until(attempt, { limitMs: SETTLE_LIMIT_MS })
  return passed!.value
}
