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
/** What outlives the releases, since it is the data. */
const KEPT = [
  ...Object.keys(WORKLOADS.statefulSets).map((name) => `PersistentVolumeClaim/data-${name}-0`),
  ...SERVICES.map((service) => `Secret/trifold-${service}-database`),
].sort()
/** A limit: what takes longer on a busy machine is no fault of the charts. */
const WAIT = ['--wait', '--timeout', '3m']
const SHORT_WAIT = ['--wait', '--timeout', '12s']
const SETTLE_LIMIT_MS = 60_000
const helmFolder = join(root, 'deploy', 'helm')

export interface Cluster extends ControlPlane {
  /** Runs helm in the namespace; rejects with what it said when it fails. */
  helm(args: readonly string[], namespace?: string): Promise<string>
  readonly folder: string
}

/** One thing that is done to the cluster, and seen. Its figures are what the table shows beside the name. */
export interface Step {
  readonly name: string
  run(cluster: Cluster): Promise<string>
}

const chartOf = (name: string) => join(helmFolder, name)

/** Each step stands on what those before it have left. */
export const STORY: readonly Step[] = [
  {
    name: 'the four charts are installed one by one, and run',
    async run({ api, helm }) {
      await makeNamespace(api, NAMESPACE)
      for (const chart of CHARTS)
        await helm(['install', `trifold-${chart}`, chartOf(chart), ...WAIT])
      const topics = await eventsOf(api, NAMESPACE, 'trifold-kafka-topics')
      assert.ok(
        topics.some(({ reason }) => reason === 'Completed'),
        'the topics are not made',
      )
      return await assertRunning(api, NAMESPACE, WORKLOADS)
    },
  },
  {
    name: 'the pod of helm test is let in, and goes',
    async run({ api, helm }) {
      const said = await helm(['test', 'trifold-order', '--timeout', '3m'])
      assert.match(said, /Phase: +Succeeded/)
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
      return `${before.length} pods and secrets as they were`
    },
  },
  {
    name: 'a changed value replaces the pods, and never fewer are ready',
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
    name: 'a rollback brings the value back, and pods that have it',
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
    name: 'an update whose pods are never ready fails, and the old ones serve on',
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
    name: 'of two pods one may be evicted, the other when there are two again',
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
    name: 'autoscaling takes the number of pods over, and gives it back',
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
      return '2, then 3, then 2 pods, and never fewer'
    },
  },
  {
    name: 'an external database, an external Kafka and three brokers of our own are taken',
    async run({ api, helm }) {
      await makeNamespace(api, OTHER)
      await api.call('POST', `/api/v1/namespaces/${OTHER}/secrets`, {
        ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'database' } },
        stringData: { url: 'postgres://somebody:secret@database.example/billing' },
      })
      const database = 'database.internal=false,database.existingSecret=database'
      const kafka = 'kafka.internal=false,kafka.brokers=kafka.example:9092'
      const set = ['--set', `${database},${kafka}`]
      await helm(['install', 'trifold-billing', chartOf('billing'), ...set, ...WAIT], OTHER)
      const three = ['--set', 'replicas=3']
      await helm(['install', 'trifold-kafka', chartOf('kafka'), ...three, ...WAIT], OTHER)
      // A broker has its number from this label, and two may not have the same one.
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
    name: 'an uninstall leaves the data, and nothing else',
    async run({ api, helm }) {
      await helm(['uninstall', ...CHARTS.map((chart) => `trifold-${chart}`).reverse(), ...WAIT])
      // What belonged to something that went is collected a little later.
      await eventually(async () => assert.deepEqual(await everythingIn(api, NAMESPACE), KEPT))
      return `${KEPT.length} objects, as documented`
    },
  },
  {
    name: 'a release that comes again finds its volume and its password',
    async run({ api, helm }) {
      const before = [await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)]
      await helm(['install', 'trifold-billing', chartOf('billing'), ...WAIT])
      assert.deepEqual([await secretsIn(api, NAMESPACE), await claimsIn(api, NAMESPACE)], before)
      await helm(['uninstall', 'trifold-billing', ...WAIT])
      return 'both as they were'
    },
  },
  {
    name: 'one release takes over what the four have left',
    async run({ api, helm, folder }) {
      // A copy: dependencies are put beside the chart.
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
    name: 'faults are found: a port, a request above its limit, a budget, a pod that may be root',
    run: async (cluster) => {
      for (const fault of FAULTS) await assertFound(cluster, fault)
      return `${FAULTS.length} faults, each with its reason`
    },
  },
  {
    name: 'the namespaces go, and leave nothing in the cluster',
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

/** Something that the charts are not, to see that this cluster would tell. */
interface Fault {
  /** Of the templates of the chart order. */
  readonly change?: readonly [text: string, into: string]
  readonly set?: string
  readonly said: RegExp
}

const FAULTS: readonly Fault[] = [
  { change: ['containerPort: 8000', 'containerPort: 80800'], said: /between 1 and 65535/ },
  { set: 'resources.requests.cpu=2', said: /less than or equal to cpu limit/ },
  { set: 'podDisruptionBudget.maxUnavailable=-1', said: /greater than or equal to (0|zero)/i },
  {
    change: ['runAsNonRoot: true', 'runAsNonRoot: false'],
    said: /violates PodSecurity "restricted/,
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
    // Pods that are not let in are no failure of the install itself: only its wait ends in vain.
    const { items } = await api.get(`/api/v1/namespaces/${NAMESPACE}/events?limit=500`)
    const refusals = items
      .filter(({ reason }: { reason: string }) => reason === 'FailedCreate')
      .map(({ message }: { message: string }) => message)
    assert.match([failure.message, ...refusals].join('\n'), fault.said)
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

/** Pods and passwords; none is another as long as nothing asks for it. */
async function identities(api: KubernetesApi): Promise<string[]> {
  const pods = await podsIn(api, NAMESPACE)
  return [...pods.map(({ metadata }) => metadata.uid), ...(await secretsIn(api, NAMESPACE))].sort()
}

async function styleOf(api: KubernetesApi): Promise<string> {
  const { data } = await api.get(`/api/v1/namespaces/${NAMESPACE}/configmaps/trifold-order`)
  return data.INTERACTION_STYLE
}
