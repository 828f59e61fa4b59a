import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import {
  assertRunning,
  claimsIn,
  endpointsOf,
  eventsOf,
  eventually,
  everythingIn,
  evict,
  fewestEndpoints,
  makeNamespace,
  nameOf,
  podsIn,
  podsOf,
  removeNamespace,
  secretsIn,
  volumes,
  type Workloads,
} from './cluster-checks.ts'
import type { ControlPlane, KubernetesApi } from './control-plane.ts'

export const NAMESPACE = 'arch-gur'
const OTHER = 'arch-gur-other'
const SERVICES = ['billing', 'notification', 'order'] as const
const CHARTS = ['kafka', ...SERVICES] as const
const DEPLOYMENTS = { 'trifold-billing': 2, 'trifold-notification': 2, 'trifold-order': 2 }
const WORKLOADS: Workloads = {
  deployments: DEPLOYMENTS,
  statefulSets: {
    'trifold-billing-database': 1,
    'trifold-kafka': 1,
    'trifold-notification-database': 1,
    'trifold-order-database': 1,
  },
}
/** The objects that an uninstall keeps, because they contain data. */
const KEPT = [
  ...Object.keys(WORKLOADS.statefulSets).map((name) => `PersistentVolumeClaim/data-${name}-0`),
  ...SERVICES.map((service) => `Secret/trifold-${service}-database`),
].sort()
/** A generous limit, because a slow start on a busy machine is not a fault of the charts. */
const WAIT = ['--wait', '--timeout', '3m']
const SHORT_WAIT = ['--wait', '--timeout', '12s']
const SETTLE_LIMIT_MS = 60_000
const helmFolder = join(root, 'deploy', 'helm')

export interface Cluster extends ControlPlane {
  /** Runs helm in the namespace. If helm fails, rejects with its output. */
  helm(args: readonly string[], namespace?: string): Promise<string>
  readonly folder: string
}

/** An action on the cluster, followed by checks. `run` resolves with the figures for the printed table. */
export interface Step {
  readonly name: string
  run(cluster: Cluster): Promise<string>
}

const chartOf = (name: string) => join(helmFolder, name)

/** Each step builds on the state that the previous steps left. */
export const STORY: readonly Step[] = [
  {
    name: 'the four charts are installed one by one, and everything runs',
    async run({ api, helm }) {
      await makeNamespace(api, NAMESPACE)
      for (const chart of CHARTS)
        await helm(['install', `trifold-${chart}`, chartOf(chart), ...WAIT])
      const topics = await eventsOf(api, NAMESPACE, 'trifold-kafka-topics')
      assert.ok(
        topics.some(({ reason }) => reason === 'Completed'),
        'the topics were not created',
      )
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'the pod of helm test is admitted, and removed afterwards',
    async run({ api, helm }) {
      const output = await helm(['test', 'trifold-order', '--timeout', '3m'])
      assert.match(output, /Phase: +Succeeded/)
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'an upgrade that changes nothing starts no pod and keeps the passwords',
    async run({ api, helm }) {
      const before = await identities(api)
      for (const chart of CHARTS)
        await helm(['upgrade', `trifold-${chart}`, chartOf(chart), ...WAIT])
      assert.deepEqual(await identities(api), before)
      return `${before.length} pods and secrets unchanged`
    },
  },
  {
    name: 'a changed value replaces the pods, with two ready at all times',
    async run({ api, helm }) {
      const before = await podsOf(api, NAMESPACE, 'trifold-order')
      const set = ['--reuse-values', '--set', 'interactionStyle=http']
      const upgrade = helm(['upgrade', 'trifold-order', chartOf('order'), ...set, ...WAIT])
      const fewest = await fewestEndpoints(api, NAMESPACE, 'trifold-order', upgrade)
      assert.equal(await styleOf(api), 'http')
      const after = await podsOf(api, NAMESPACE, 'trifold-order')
      assert.deepEqual(
        after.filter((name) => before.includes(name)),
        [],
      )
      assert.equal(after.length, 2)
      assert.ok(fewest >= 2, `only ${fewest} were ready`)
      return `at least ${fewest} of 2 ready`
    },
  },
  {
    name: 'a rollback restores the value, and starts pods with it',
    async run({ api, helm }) {
      const before = await podsOf(api, NAMESPACE, 'trifold-order')
      await helm(['rollback', 'trifold-order', '1', ...WAIT])
      assert.equal(await styleOf(api), 'events')
      const after = await podsOf(api, NAMESPACE, 'trifold-order')
      assert.deepEqual(
        after.filter((name) => before.includes(name)),
        [],
      )
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'an update to pods that never get ready fails, and the old pods keep serving',
    async run({ api, helm }) {
      const before = await podsOf(api, NAMESPACE, 'trifold-billing')
      const set = ['--reuse-values', '--set', 'image.tag=never-ready']
      const upgrade = helm([
        'upgrade',
        'trifold-billing',
        chartOf('billing'),
        ...set,
        ...SHORT_WAIT,
      ])
      const [, fewest] = await Promise.all([
        assert.rejects(upgrade, /deadline exceeded|timed out/),
        fewestEndpoints(api, NAMESPACE, 'trifold-billing', upgrade),
      ])
      assert.equal(fewest, 2)
      await helm(['rollback', 'trifold-billing', ...WAIT])
      assert.deepEqual(await podsOf(api, NAMESPACE, 'trifold-billing'), before)
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'one of two pods may be evicted, and the other only once there are two again',
    async run({ api }) {
      const [first, second] = (await podsOf(api, NAMESPACE, 'trifold-notification')) as [
        string,
        string,
      ]
      assert.equal(await evict(api, NAMESPACE, first), 201)
      assert.equal(await evict(api, NAMESPACE, second), 429)
      await until(async () => (await evict(api, NAMESPACE, second)) === 201, {
        limitMs: SETTLE_LIMIT_MS,
      })
      await until(async () => (await endpointsOf(api, NAMESPACE, 'trifold-notification')) === 2, {
        limitMs: SETTLE_LIMIT_MS,
      })
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'autoscaling takes control of the number of pods, and returns it',
    async run({ api, helm }) {
      const upgrade = (set: string) =>
        helm(['upgrade', 'trifold-notification', chartOf('notification'), '--set', set, ...WAIT])
      const scaled = upgrade('autoscaling.enabled=true,autoscaling.minReplicas=3')
      const fewest = await fewestEndpoints(api, NAMESPACE, 'trifold-notification', scaled)
      await scaled
      assert.ok(fewest >= 2, `only ${fewest} was ready`)
      const ready = (count: number) =>
        eventually(async () =>
          assert.equal(await endpointsOf(api, NAMESPACE, 'trifold-notification'), count),
        )
      await ready(3)
      await upgrade('autoscaling.enabled=false')
      await ready(2)
      await assertRunning(api, NAMESPACE, WORKLOADS)
      return '2, then 3, then 2 pods, never fewer than 2'
    },
  },
  {
    name: 'an external database, an external Kafka and three own brokers can be configured',
    async run({ api, helm }) {
      await makeNamespace(api, OTHER)
      await api.call('POST', `/api/v1/namespaces/${OTHER}/secrets`, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'database' },
        stringData: { url: 'postgres://somebody:secret@database.example/billing' },
      })
      const database = 'database.internal=false,database.existingSecret=database'
      const kafka = 'kafka.internal=false,kafka.brokers=kafka.example:9092'
      const set = ['--set', `${database},${kafka}`]
      await helm(['install', 'trifold-billing', chartOf('billing'), ...set, ...WAIT], OTHER)
      const three = ['--set', 'replicas=3']
      await helm(['install', 'trifold-kafka', chartOf('kafka'), ...three, ...WAIT], OTHER)
      // A broker gets its node id from this label, so no two brokers may have the same value.
      const brokers = await podsIn(api, OTHER, 'app.kubernetes.io/component=broker')
      const numbers = brokers.map((pod) => pod.metadata.labels['apps.kubernetes.io/pod-index'])
      assert.deepEqual(numbers.sort(), ['0', '1', '2'])
      const runs = await assertRunning(api, OTHER, {
        deployments: { 'trifold-billing': 2 },
        statefulSets: { 'trifold-kafka': 3 },
      })
      await helm(['uninstall', 'trifold-billing', 'trifold-kafka', ...WAIT], OTHER)
      await removeNamespace(api, OTHER)
      return runs
    },
  },
  {
    name: 'an uninstall keeps the data, and nothing else',
    async run({ api, helm }) {
      await helm(['uninstall', ...CHARTS.map((chart) => `trifold-${chart}`).reverse(), ...WAIT])
      // Dependents of deleted objects are garbage-collected a little later.
      await eventually(async () => assert.deepEqual(await everythingIn(api, NAMESPACE), KEPT))
      return `${KEPT.length} objects, as documented`
    },
  },
  {
    name: 'a release that is installed again finds its volume and its password',
    async run({ api, helm }) {
      const before = [await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)]
      await helm(['install', 'trifold-billing', chartOf('billing'), ...WAIT])
      assert.deepEqual([await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)], before)
      await helm(['uninstall', 'trifold-billing', ...WAIT])
      return 'both unchanged'
    },
  },
  {
    name: 'one release takes over the objects that the four have left',
    async run({ api, helm, folder }) {
      // A copy of the chart is used, because helm writes dependencies into the chart's folder.
      cpSync(helmFolder, join(folder, 'helm'), { recursive: true })
      const umbrella = join(folder, 'helm', 'trifold')
      await helm(['dependency', 'update', umbrella])
      const before = [await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)]
      await helm(['install', 'trifold', umbrella, '--take-ownership', ...WAIT])
      const runs = await assertRunning(api, NAMESPACE, WORKLOADS)
      assert.deepEqual([await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)], before)
      assert.match(await helm(['test', 'trifold', '--timeout', '3m']), /Phase: +Succeeded/)
      await helm(['uninstall', 'trifold', ...WAIT])
      await eventually(async () => assert.deepEqual(await everythingIn(api, NAMESPACE), KEPT))
      return runs
    },
  },
  {
    name: 'the documented clean-up removes the data and its volumes',
    async run({ api }) {
      const of = encodeURIComponent('app.kubernetes.io/part-of=trifold')
      for (const kind of ['persistentvolumeclaims', 'secrets']) {
        const path = `/api/v1/namespaces/${NAMESPACE}/${kind}?labelSelector=${of}`
        assert.equal((await api.call('DELETE', path)).status, 200)
      }
      await eventually(async () => assert.deepEqual(await everythingIn(api, NAMESPACE), []))
      await eventually(async () => assert.deepEqual(await volumes(api), []))
      return 'nothing is left'
    },
  },
  {
    name: 'faults are found: a port, a request above its limit, a budget, a pod that may run as root',
    run: async (cluster) => {
      for (const fault of FAULTS) await assertFound(cluster, fault)
      return `${FAULTS.length} faults, each reported with its reason`
    },
  },
  {
    name: 'removing the namespaces leaves nothing in the cluster',
    async run({ api }) {
      await removeNamespace(api, NAMESPACE)
      await eventually(async () => assert.deepEqual(await volumes(api), []))
      for (const kind of ['clusterroles', 'clusterrolebindings']) {
        const { items } = await api.get(`/apis/rbac.authorization.k8s.io/v1/${kind}`)
        assert.deepEqual(
          items.map(nameOf).filter((name: string) => name.includes('trifold')),
          [],
        )
      }
      return 'nothing is left'
    },
  },
]

/** A fault that is planted in a chart, to show that this cluster reports it. */
interface Fault {
  /** A text in the templates of the order chart, and its replacement. */
  readonly change?: readonly [text: string, into: string]
  readonly set?: string
  /** A pattern that the error must match. */
  readonly error: RegExp
}

const FAULTS: readonly Fault[] = [
  { change: ['containerPort: 8000', 'containerPort: 80800'], error: /between 1 and 65535/ },
  { set: 'resources.requests.cpu=2', error: /less than or equal to cpu limit/ },
  { set: 'podDisruptionBudget.maxUnavailable=-1', error: /greater than or equal to (0|zero)/i },
  {
    change: ['runAsNonRoot: true', 'runAsNonRoot: false'],
    error: /violates PodSecurity "restricted/,
  },
]

async function assertFound({ api, helm, folder }: Cluster, fault: Fault): Promise<void> {
  const chart = join(folder, 'order-with-a-fault')
  cpSync(chartOf('order'), chart, { recursive: true })
  try {
    if (fault.change) change(join(chart, 'charts', 'common', 'templates'), fault.change)
    const set = fault.set ? ['--set', fault.set, '--skip-schema-validation'] : []
    const failure: Error = await helm([
      'install',
      'trifold-order',
      chart,
      ...set,
      ...SHORT_WAIT,
    ]).then(
      () => assert.fail(`this was installed: ${JSON.stringify(fault)}`),
      (error) => error,
    )
    // If a pod is not admitted, helm only reports a timeout; the reason is in the events.
    const { items } = await api.get(`/api/v1/namespaces/${NAMESPACE}/events?limit=500`)
    const rejections = items
      .filter(({ reason }: { reason: string }) => reason === 'FailedCreate')
      .map(({ message }: { message: string }) => message)
    assert.match([failure.message, ...rejections].join('\n'), fault.error)
  } finally {
    await helm(['uninstall', 'trifold-order', '--ignore-not-found', ...WAIT])
    rmSync(chart, { recursive: true })
  }
}

function change(templates: string, [text, into]: readonly [string, string]): void {
  const files = readdirSync(templates).map((name) => join(templates, name))
  const changed = files.filter((file) => readFileSync(file, 'utf8').includes(text))
  assert.ok(changed.length > 0, `no template has: ${text}`)
  for (const file of changed) {
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll(text, into))
  }
}

/**
 * The ids of the pods, and the Secrets with their content. They change only if something replaces a pod or a
 * Secret.
 */
async function identities(api: KubernetesApi): Promise<string[]> {
  const pods = await podsIn(api, NAMESPACE)
  return [...pods.map(({ metadata }) => metadata.uid), ...(await secretsIn(api, NAMESPACE))].sort()
}

async function styleOf(api: KubernetesApi): Promise<string> {
  const { data } = await api.get(`/api/v1/namespaces/${NAMESPACE}/configmaps/trifold-order`)
  return data.INTERACTION_STYLE
}
