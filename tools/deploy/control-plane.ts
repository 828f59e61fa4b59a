import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import { type KeptProcess, lastLines, startKept } from '../servers/kept-process.ts'
import { freePorts } from '../servers/ports.ts'
import type { ControlPlanePrograms } from './deploy-tools.ts'

/**
 * A Kubernetes control plane with real controllers and with fake nodes, which only report that their pods are
 * running.
 */
export interface ControlPlane {
  /** The configuration file for clients such as helm. */
  readonly kubeconfig: string
  readonly api: KubernetesApi
  close(): Promise<void>
}

export interface KubernetesApi {
  /** Resolves with the body if the response has status 200, and otherwise rejects. */
  // biome-ignore lint/suspicious/noExplicitAny: each kind has a shape of its own.
  get(path: string): Promise<any>
  /** Sends a request. Resolves with the response, whatever its status is. */
  call(
    method: 'GET' | 'POST' | 'DELETE' | 'PATCH',
    path: string,
    body?: object,
    // biome-ignore lint/suspicious/noExplicitAny: each kind has a shape of its own.
  ): Promise<{ readonly status: number; readonly body: any }>
}

export interface ControlPlaneOptions {
  /** The folder for keys, data and logs. */
  readonly folder: string
  readonly programs: ControlPlanePrograms
  readonly etcd: string
  readonly kwok: string
  readonly nodes: readonly string[]
}

const FIRST_PORT = 26_000
const READY_LIMIT_MS = 120_000
const STOP_LIMIT_MS = 20_000
const CALL_LIMIT_MS = 30_000
const LAST_LINES = 6

/**
 * Starts etcd, the API server, the controllers, the scheduler and kwok on loopback. Resolves when all nodes
 * are ready.
 */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { folder, programs, etcd, kwok, nodes } = options
  mkdirSync(join(folder, 'logs'), { recursive: true })
  const first = await freePorts(FIRST_PORT, 6)
  const at = (offset: number) => `127.0.0.1:${first + offset}`
  const token = writeKeys(folder)
  const started: KeptProcess[] = []
  const start = async (command: string, name: string, args: Readonly<Record<string, string>>) => {
    const flags = Object.entries(args).map(([flag, value]) => `--${flag}=${value}`)
    const logFile = join(folder, 'logs', `${name}.log`)
    const server = await startKept({ command, args: flags, logFile, folder })
    started.push(server)
    return { server, logFile }
  }
  const agents: Agent[] = []
  const close = async () => {
    await Promise.all(agents.map((agent) => agent.destroy()))
    // The processes are stopped in reverse order, because later processes depend on earlier ones.
    for (const server of started.reverse()) await server.stop(STOP_LIMIT_MS)
  }
  try {
    await start(etcd, 'etcd', etcdFlags(folder, at(0), at(1)))
    const { server, logFile } = await start(
      programs['kube-apiserver'],
      'kube-apiserver',
      apiServerFlags(folder, at(0), first + 2),
    )
    const certificate = join(folder, 'certificates', 'apiserver.crt')
    await until(async () => existsSync(certificate), {
      limitMs: READY_LIMIT_MS,
      ended: server.ended,
    })
    const agent = new Agent({ connect: { ca: readFileSync(certificate) } })
    agents.push(agent)
    const api = createApi(`https://${at(2)}`, token, agent)
    const ready = async () => (await api.call('GET', '/readyz')).status === 200
    await until(ready, { limitMs: READY_LIMIT_MS, ended: server.ended }).catch((cause) => {
      throw new Error(`the API server: ${cause.message}\n${lastLines(logFile, LAST_LINES)}`)
    })
    const kubeconfig = writeKubeconfig(folder, `https://${at(2)}`, token, certificate)
    const own = { kubeconfig, 'bind-address': '127.0.0.1', 'leader-elect': 'false' }
    await start(programs['kube-controller-manager'], 'kube-controller-manager', {
      ...own,
      'secure-port': String(first + 3),
      'cert-dir': join(folder, 'certificates-of-controllers'),
      'service-account-private-key-file': join(folder, 'accounts.key'),
      'root-ca-file': certificate,
    })
    await start(programs['kube-scheduler'], 'kube-scheduler', {
      ...own,
      'secure-port': String(first + 4),
      'cert-dir': join(folder, 'certificates-of-scheduler'),
    })
    await start(kwok, 'kwok', {
      kubeconfig,
      config: join(root, 'tools', 'deploy', 'fake-nodes.yaml'),
      'manage-all-nodes': 'true',
      // Nodes that do not renew their lease are considered dead.
      'node-lease-duration-seconds': '40',
      'node-ip': '127.0.0.1',
      cidr: '10.244.0.0/24',
      'server-address': at(5),
    })
    await makeNodes(api, nodes)
    return { kubeconfig, api, close }
  } catch (error) {
    await close()
    throw error
  }
}

function etcdFlags(folder: string, client: string, peer: string): Record<string, string> {
  return {
    'data-dir': join(folder, 'etcd'),
    'listen-client-urls': `http://${client}`,
    'advertise-client-urls': `http://${client}`,
    'listen-peer-urls': `http://${peer}`,
    'initial-advertise-peer-urls': `http://${peer}`,
    'initial-cluster': `default=http://${peer}`,
  }
}

function apiServerFlags(folder: string, etcd: string, port: number): Record<string, string> {
  return {
    'etcd-servers': `http://${etcd}`,
    // This feature is on by default, but needs a newer etcd than Debian has.
    'feature-gates': 'WatchList=false',
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'endpoint-reconciler-type': 'none',
    'secure-port': String(port),
    'cert-dir': join(folder, 'certificates'),
    'service-account-issuer': 'https://kubernetes.default.svc',
    'service-account-key-file': join(folder, 'accounts.pub'),
    'service-account-signing-key-file': join(folder, 'accounts.key'),
    'service-cluster-ip-range': '10.0.0.0/24',
    'token-auth-file': join(folder, 'tokens.csv'),
    'authorization-mode': 'Node,RBAC',
  }
}

/** Writes the keys for service accounts and the administrator's token. Returns the token. */
function writeKeys(folder: string): string {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  const token = randomBytes(16).toString('hex')
  const write = (name: string, text: string) =>
    writeFileSync(join(folder, name), text, { mode: 0o600 })
  write('accounts.key', privateKey)
  write('accounts.pub', publicKey)
  write('tokens.csv', `${token},admin,admin,system:masters\n`)
  return token
}

function writeKubeconfig(folder: string, server: string, token: string, certificate: string) {
  const file = join(folder, 'kubeconfig')
  const cluster = { server, 'certificate-authority': certificate }
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
    'current-context': 'test',
  }
  // JSON is valid YAML.
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  return file
}

function createApi(server: string, token: string, dispatcher: Agent): KubernetesApi {
  const call: KubernetesApi['call'] = async (method, path, body) => {
    const response = await request(server + path, {
      dispatcher,
      method,
      signal: AbortSignal.timeout(CALL_LIMIT_MS),
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
      },
      ...(body && { body: JSON.stringify(body) }),
    })
    const text = await response.body.text()
    return { status: response.statusCode, body: text.startsWith('{') ? JSON.parse(text) : text }
  }
  return {
    call,
    async get(path) {
      const { status, body } = await call('GET', path)
      if (status !== 200)
        throw new Error(`GET ${path} got status ${status}: ${body.message ?? body}`)
      return body
    },
  }
}

/** Creates nodes, each in a separate zone, and a default storage class like that of minikube. */
async function makeNodes(api: KubernetesApi, names: readonly string[]): Promise<void> {
  const capacity = { cpu: '8', memory: '16Gi', 'ephemeral-storage': '64Gi', pods: '110' }
  for (const name of names) {
    const labels = { 'kubernetes.io/hostname': name, 'topology.kubernetes.io/zone': `of-${name}` }
    await make(api, '/api/v1/nodes', {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, labels },
      status: { capacity, allocatable: capacity },
    })
  }
  await make(api, '/apis/storage.k8s.io/v1/storageclasses', {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: {
      name: 'standard',
      annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' },
    },
    provisioner: 'trifold.example/fake',
    reclaimPolicy: 'Delete',
  })
  const allReady = async () => {
    const { items } = await api.get('/api/v1/nodes')
    return items.every(({ status }: { status: { phase?: string } }) => status.phase === 'Running')
  }
  await until(allReady, { limitMs: READY_LIMIT_MS })
}

async function make(api: KubernetesApi, path: string, body: object): Promise<void> {
  const made = await api.call('POST', path, body)
  if (made.status !== 201) throw new Error(`${path}: ${made.body.message}`)
}
