import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { PROBLEMS, type ProblemCode } from '../../contracts/problems.ts'
import { type FrontDoorOptions, openFrontDoor } from './front-door.ts'
import { sendJson } from './plain-responses.ts'

const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]'])

/** A front door with a constant response, and a function that sends bytes to it. */
async function open(t: TestContext, options: Partial<FrontDoorOptions> = {}) {
  const door = await openFrontDoor({
    host: '127.0.0.1',
    port: 0,
    requestTimeoutMs: 5_000,
    maxConnections: 100,
    allowedHosts: LOCAL,
    handle: (_services, request, response) => sendJson(request, response, 200, 'inside'),
    ...options,
  })
  t.after(() => door.close())
  const { port } = new URL(door.url)

  async function send(text: string) {
    const socket = connect({ port: Number(port), host: '127.0.0.1' })
    socket.write(text)
    let received = ''
    for await (const chunk of socket) {
      received += chunk
      const [head = '', body] = received.split('\r\n\r\n')
      const length = /content-length: (\d+)/i.exec(head)?.[1]
      if (body !== undefined && Buffer.byteLength(body) >= Number(length)) break
    }
    const [head = '', body = ''] = received.split('\r\n\r\n')
    const [, status] = head.split(' ')
    const headers = new Map(
      head
        .split('\r\n')
        .slice(1)
        .map((line) => {
          const at = line.indexOf(': ')
          return [line.slice(0, at).toLowerCase(), line.slice(at + 2)]
        }),
    )
    return { status: Number(status), headers, body: body === '' ? undefined : JSON.parse(body) }
  }
  return { door, send }
}

const get = (path: string, ...headers: string[]) => request('GET', path, ...headers)
const post = (...headers: string[]) => request('POST', '/', 'host: localhost', ...headers)
const request = (method: string, path: string, ...headers: string[]) =>
  [`${method} ${path} HTTP/1.1`, ...headers, '', ''].join('\r\n')

const REJECTIONS: Readonly<Record<string, [ProblemCode, string]>> = {
  'bytes that are no HTTP': ['VALIDATION_FAILED', 'HELLO\r\n\r\n'],
  'headers of 20 KB': [
    'HEADERS_TOO_LARGE',
    get('/', 'host: localhost', `a: ${'x'.repeat(20_000)}`),
  ],
  'a URL of 10 KB': ['URI_TOO_LONG', get(`/?${'x'.repeat(10_000)}`, 'host: localhost')],
  'a path of 15,000 slashes': [
    'URI_TOO_LONG',
    get(`/orders${'/'.repeat(15_000)}a`, 'host: localhost'),
  ],
  'a target that is no path': ['VALIDATION_FAILED', get('http://localhost/', 'host: localhost')],
  'a request to connect elsewhere': [
    'METHOD_NOT_ALLOWED',
    request('CONNECT', 'a:80', 'host: a:80'),
  ],
  'no Host': ['VALIDATION_FAILED', get('/')],
  'two Host headers': ['VALIDATION_FAILED', get('/', 'host: localhost', 'Host: localhost')],
  'a foreign Host': ['MISDIRECTED_REQUEST', get('/', 'host: evil.example')],
  'a Host that only begins like ours': [
    'MISDIRECTED_REQUEST',
    get('/', 'host: localhost.evil.example'),
  ],
  'an empty Host': ['MISDIRECTED_REQUEST', get('/', 'host: ')],
  'a POST of a page of another site': ['CROSS_SITE_REQUEST', post('sec-fetch-site: cross-site')],
  'a POST of a page of a sibling site': ['CROSS_SITE_REQUEST', post('sec-fetch-site: same-site')],
  'a POST with a foreign Origin': ['CROSS_SITE_REQUEST', post('origin: http://evil.example')],
  'a POST of another port': ['CROSS_SITE_REQUEST', post('origin: http://localhost:9')],
  'a POST of a sandboxed page': ['CROSS_SITE_REQUEST', post('origin: null')],
}

for (const [what, [code, text]] of Object.entries(REJECTIONS)) {
  test(`the front door rejects ${what} with a problem that has a request id`, async (t) => {
    const { send } = await open(t)
    const { status, headers, body } = await send(text)
    assert.deepEqual([status, body.code, body.status], [PROBLEMS[code].status, code, status])
    assert.equal(headers.get('content-type'), 'application/problem+json')
    assert.match(headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/)
    assert.equal(body.instance, headers.get('x-request-id'))
  })
}

const ACCEPTED: Readonly<Record<string, string>> = {
  'a Host with a port': get('/', 'host: LOCALHOST:8000'),
  'an IPv6 Host': get('/', 'host: [::1]:8000'),
  'a POST of a program': post(),
  'a POST of a page of ours': post('sec-fetch-site: same-origin', 'origin: http://localhost'),
  'a POST that a person made': post('sec-fetch-site: none'),
  'a POST of an older browser': post('origin: http://localhost:80'),
  'a GET of a page of another site': get('/', 'host: localhost', 'sec-fetch-site: cross-site'),
  'an upgrade, which it ignores': get(
    '/',
    'host: localhost',
    'connection: upgrade',
    'upgrade: h2c',
  ),
  'an expectation that it does not know': get('/', 'host: localhost', 'expect: the-unexpected'),
}

for (const [what, text] of Object.entries(ACCEPTED)) {
  test(`the front door accepts ${what}`, async (t) => {
    const { send } = await open(t)
    assert.deepEqual((await send(text)).body, 'inside')
  })
}

test('the front door accepts any host if so configured', async (t) => {
  const { send } = await open(t, { allowedHosts: 'any' })
  assert.equal((await send(get('/', 'host: arch.homework'))).status, 200)
  assert.equal((await send('GET / HTTP/1.0\r\n\r\n')).status, 200)
})

test('a service that is not mounted responds with 503 and a problem', async (t) => {
  const { send } = await open(t, {
    handle: (services, request, response) => services.pass('billing', request, response),
  })
  const { status, headers, body } = await send(get('/', 'host: localhost', 'x-request-id: a-1'))
  assert.deepEqual([status, body.code], [503, 'SERVICE_UNAVAILABLE'])
  assert.deepEqual([headers.get('x-request-id'), body.instance], ['a-1', 'a-1'])
  assert.equal(headers.get('retry-after'), '1')
})
