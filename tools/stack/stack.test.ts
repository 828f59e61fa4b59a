import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../platform/async/until.ts'
import { root } from '../repository-files.ts'
import { nginxConfiguration } from '../servers/nginx.ts'
import { freePorts, isFree } from '../servers/ports.ts'
import { databaseUrl } from '../servers/postgres.ts'
import { stackOptions } from './options.ts'
import { NODE_OPTIONS, replicaEnvironment } from './services.ts'

describe('the options of the stack', () => {
  test('default to one replica of each service and port 8080', () => {
    const replicas = { order: 1, billing: 1, notification: 1 }
    const expected = { replicas, port: 8080, folder: undefined, docker: 'auto' }
    assert.deepEqual(stackOptions([]), expected)
  })

  test('take --without-docker', () => {
    assert.equal(stackOptions(['--without-docker'])?.docker, 'never')
  })

  test('take replicas in one list or in several', () => {
    const replicas = { order: 2, billing: 3, notification: 1 }
    assert.deepEqual(stackOptions(['--replicas', 'order=2,billing=3'])?.replicas, replicas)
    const several = ['--replicas', 'order=2', '--replicas=billing=3']
    assert.deepEqual(stackOptions(several)?.replicas, replicas)
  })

  test('are undefined for --help', () => {
    assert.equal(stackOptions(['--help']), undefined)
  })

  for (const [args, complaint] of [
    [['--replicas', 'orders=2'], /no service "orders"/],
    [['--replicas', 'constructor=2'], /no service "constructor"/],
    [['--replicas', 'order=0'], /from 1 to 9, not "0"/],
    [['--replicas', 'order=10'], /from 1 to 9, not "10"/],
    [['--replicas', 'order'], /from 1 to 9, not ""/],
    [['--port', '65536'], /--port must be from 1 to 65535/],
    [['--port', '8o80'], /--port must be from 1 to 65535/],
    [['--prot', '8080'], /--prot/],
    [['order=2'], /order=2/],
  ] as const) {
    test(`reject ${args.join(' ')}`, () => {
      assert.throws(() => stackOptions(args), complaint)
    })
  }
})

describe('the configuration of nginx', () => {
  const upstreams = {
    orders: ['127.0.0.1:8011', '127.0.0.1:8012'],
    billing: ['127.0.0.1:8021'],
    notification: ['127.0.0.1:8031'],
  }
  const options = { port: 8080, basePath: '/otusapp/gur-ok', upstreams }
  const text = nginxConfiguration(options, false)

  test('listens on loopback and has every placeholder replaced', () => {
    assert.match(text, /^ *listen 127\.0\.0\.1:8080;$/m)
    assert.doesNotMatch(text, /\$\{/)
  })

  test('has every replica in the upstream of its service', () => {
    const group = /upstream orders \{([^}]*)\}/.exec(text)?.[1] ?? ''
    const servers = [...group.matchAll(/server (\S+) /g)].map(([, address]) => address)
    assert.deepEqual(servers, upstreams.orders)
  })

  // Evaluates the patterns of the locations as nginx would.
  const serviceOf = (configuration: string, path: string) => {
    const locations = configuration.matchAll(/location ~ (\S+) \{ proxy_pass http:\/\/(\w+); \}/g)
    return [...locations].find(([, pattern]) => new RegExp(pattern as string).test(path))?.[2]
  }

  for (const [path, service] of [
    ['/orders', 'orders'],
    ['/orders/', 'orders'],
    ['/otusapp/gur-ok/orders/1', 'orders'],
    ['/otusapp/gur-ok/billing/account/create', 'billing'],
    ['/notification/', 'notification'],
    ['/ordersome', undefined],
    ['/otusapp/orders', undefined],
    ['/otusapp/gur-ok', undefined],
    ['/x/orders', undefined],
    ['/', undefined],
  ] as const) {
    test(`routes ${path} to ${service ?? 'no service'}`, () => {
      assert.equal(serviceOf(text, path), service)
    })
  }

  test('rewrites no path: no upstream address has a path', () => {
    const targets = [...text.matchAll(/proxy_pass (\S+);/g)].map(([, target]) => target)
    assert.deepEqual(targets, ['http://orders', 'http://billing', 'http://notification'])
  })

  test('never retries a request that changes something once it was sent', () => {
    assert.match(text, /^ *proxy_next_upstream error timeout;$/m)
  })

  test('accepts no prefix if none is configured, and matches dots literally', () => {
    for (const basePath of ['', '/']) {
      const bare = nginxConfiguration({ ...options, basePath }, false)
      assert.equal(serviceOf(bare, '/orders/1'), 'orders')
      assert.equal(serviceOf(bare, '/otusapp/gur-ok/orders/1'), undefined)
    }
    const dotted = nginxConfiguration({ ...options, basePath: '/v1.0' }, false)
    assert.equal(serviceOf(dotted, '/v1.0/orders'), 'orders')
    assert.equal(serviceOf(dotted, '/v1x0/orders'), undefined)
  })

  test('runs the workers as root if root starts it, so that they can enter its folder', () => {
    assert.doesNotMatch(text, /^user /m)
    assert.match(nginxConfiguration(options, true), /^user root;$/m)
  })
})

describe('a replica', () => {
  test('gives Node.js the options that the image gives it', () => {
    const dockerfile = readFileSync(join(root, 'deploy', 'Dockerfile'), 'utf8')
    assert.ok(dockerfile.includes(`ENV NODE_OPTIONS=${NODE_OPTIONS}\n`))
  })

  test('has its own database and reaches the others through the gateway', () => {
    const gatewayUrl = 'http://127.0.0.1:8080'
    const environment = replicaEnvironment(
      { service: 'billing', number: 2, port: 8022 },
      {
        brokers: '127.0.0.1:9092',
        databaseUrls: {
          order: 'postgres://o',
          billing: 'postgres://b/billing?sslmode=require',
          notification: 'postgres://n',
        },
        gatewayUrl,
        basePath: '/otusapp/gur-ok',
        maildir: '/mail',
        logs: '/logs',
        environment: { CALL_TIMEOUT_MS: '100', PORT: '1' },
      },
    )
    assert.equal(environment.PORT, '8022')
    assert.equal(environment.CALL_TIMEOUT_MS, '100')
    assert.equal(
      environment.DATABASE_URL,
      'postgres://b/billing?sslmode=require&application_name=trifold-billing-2',
    )
    assert.equal(environment.ORDER_URL, gatewayUrl)
    assert.equal(environment.NOTIFICATION_URL, gatewayUrl)
  })
})

describe('databaseUrl', () => {
  test('replaces the database and keeps everything else', () => {
    const url = 'postgres://me:p%40ss@db.example:5433/postgres?sslmode=require'
    const expected = 'postgres://me:p%40ss@db.example:5433/orders?sslmode=require'
    assert.equal(databaseUrl(url, 'orders'), expected)
    assert.equal(databaseUrl('postgres://db.example', 'orders'), 'postgres://db.example/orders')
  })
})

describe('freePorts', () => {
  test('skips a port that is in use', async () => {
    const first = await freePorts(21_500, 2)
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(first + 1, '127.0.0.1', resolve))
    try {
      assert.equal(await isFree(first + 1), false)
      assert.ok((await freePorts(first, 2)) >= first + 2)
    } finally {
      server.close()
    }
  })

  test('skips a port that fetch blocks', async () => {
    const blocked = 10_080
    const badPort = { cause: new Error('bad port') }
    await assert.rejects(fetch(`http://127.0.0.1:${blocked}/`), badPort)
    assert.ok((await freePorts(blocked, 1)) > blocked)
    assert.ok((await freePorts(blocked - 2, 7)) > blocked)
  })
})

describe('until', () => {
  test('polls until the condition is true', async () => {
    let polls = 0
    await until(async () => ++polls === 3, { limitMs: 5_000 })
    assert.equal(polls, 3)
  })

  test('reports the last error when it times out', async () => {
    const failing = () => Promise.reject(new Error('not yet'))
    await assert.rejects(until(failing, { limitMs: 1 }), /within 0\.001 s: not yet/)
  })

  test('gives up when the process has exited', async () => {
    const ended = sleep(1, 7)
    const limitMs = 60_000
    await assert.rejects(
      until(async () => false, { limitMs, ended }),
      /ended with code 7/,
    )
  })

  test('gives up when its signal is aborted', async () => {
    const signal = AbortSignal.abort(new Error('stopped'))
    await assert.rejects(
      until(async () => true, { limitMs: 60_000, signal }),
      /stopped/,
    )
  })
})
