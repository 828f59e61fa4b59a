import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isPinned, type Manifest, policyFindings } from './policies.ts'

const ENVIRONMENT = {
  PORT: '8000',
  BILLING_URL: 'http://billing:8000',
  NOTIFICATION_URL: 'http://notification:8000',
  INTERACTION_STYLE: 'http',
}

/** The findings in a release that meets every policy, apart from the change that the test makes. */
function release({ container = {}, pod = {}, environment = {}, others = [] as Manifest[] } = {}) {
  const template = {
    metadata: { labels: { app: 'order' } },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 30,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'order',
          image: 'trifold:0.1.0',
          command: ['node', 'services/order/main.ts'],
          envFrom: [{ configMapRef: { name: 'order' } }],
          env: [{ name: 'DATABASE_URL' }],
          ports: [{ name: 'http', containerPort: 8000 }],
          readinessProbe: { httpGet: { path: '/orders/health', port: 'http' } },
          lifecycle: { preStop: { sleep: { seconds: 5 } } },
          resources: { requests: {}, limits: {} },
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'] },
          },
          ...container,
        },
      ],
      ...pod,
    },
  }
  const metadata = { name: 'order' }
  const manifests: Manifest[] = [
    { kind: 'ConfigMap', metadata, data: { ...ENVIRONMENT, ...environment } },
    { kind: 'Secret', metadata, stringData: { url: 'postgres://order:hidden@db/orders' } },
    {
      kind: 'Deployment',
      metadata,
      spec: { strategy: { rollingUpdate: { maxUnavailable: 0 } }, template },
    },
    {
      kind: 'Service',
      metadata,
      spec: { selector: { app: 'order' }, ports: [{ targetPort: 'http' }] },
    },
    ...others,
  ]
  return policyFindings(manifests)
}

describe('the policies', () => {
  test('find nothing in a release that meets them', () => {
    assert.deepEqual(release(), [])
  })

  const broken: Record<string, [Parameters<typeof release>[0], RegExp]> = {
    'an image without a version': [
      { container: { image: 'trifold:latest' } },
      /not a fixed version/,
    ],
    'a variable that the service does not read': [
      { environment: { INTERACTION_STYL: 'http' } },
      /does not read INTERACTION_STYL/,
    ],
    'a value that the service rejects': [
      { environment: { INTERACTION_STYLE: 'soap' } },
      /INTERACTION_STYLE must be/,
    ],
    "a service without another service's address": [
      { environment: { BILLING_URL: '' } },
      /lacks BILLING_URL/,
    ],
    'a port that the program does not listen on': [
      { environment: { PORT: '8001' } },
      /PORT is not its port/,
    ],
    'a probe of a port that does not exist': [
      { container: { readinessProbe: { httpGet: { path: '/', port: 'web' } } } },
      /the unknown port web/,
    ],
    'a grace period shorter than the drain': [
      { pod: { terminationGracePeriodSeconds: 25 } },
      /killed while it drains/,
    ],
    'a stop before proxies notice': [
      { container: { lifecycle: undefined } },
      /before proxies stop sending/,
    ],
    'a container that may write to its root file system': [
      { container: { securityContext: {} } },
      /may write to its root/,
    ],
    'a service account token': [
      { pod: { automountServiceAccountToken: true } },
      /has a service account token/,
    ],
    'a secret outside of Secrets': [
      { environment: { LOG_LEVEL: 'postgres://order:hidden@db/orders' } },
      /contains a secret/,
    ],
    'a Service without pods': [
      {
        others: [{ kind: 'Service', metadata: { name: 'lost' }, spec: { selector: { app: 'x' } } }],
      },
      /selects the pods of no workload/,
    ],
  }
  for (const [what, [change, finding]] of Object.entries(broken)) {
    test(`find ${what}`, () => {
      assert.match(release(change).join('\n'), finding)
    })
  }

  test('distinguish fixed versions from moving tags', () => {
    const images = [
      'postgres:17.6-bookworm',
      'prom/prometheus:v3.5.0',
      'postgres:17',
      'x:latest',
      'x',
    ]
    assert.deepEqual(images.filter(isPinned), images.slice(0, 2))
  })
})
