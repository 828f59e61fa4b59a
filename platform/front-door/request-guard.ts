import type { IncomingMessage } from 'node:http'
import type { ProblemCode } from '../../contracts/problems.ts'
import { pathWithoutQuery } from '../http/request-target.ts'

/** Checks that every request passes before anything else looks at it. */

const MAX_URL_CHARACTERS = 8_192
const MAX_PATH_CHARACTERS = 2_048

export type Refusal = readonly [code: ProblemCode, detail: string]

/** The first reason to refuse a request. `allowedHosts` are names without a port, in lower case. */
export function refusalOf(
  request: IncomingMessage,
  allowedHosts: ReadonlySet<string> | 'any',
): Refusal | undefined {
  return (
    refusedTarget(request.url ?? '') ?? refusedHost(request, allowedHosts) ?? crossSite(request)
  )
}

function refusedTarget(target: string): Refusal | undefined {
  if (target.length > MAX_URL_CHARACTERS) {
    return ['URI_TOO_LONG', `a URL may have ${MAX_URL_CHARACTERS} characters`]
  }
  if (pathWithoutQuery(target).length > MAX_PATH_CHARACTERS) {
    return ['URI_TOO_LONG', `a path may have ${MAX_PATH_CHARACTERS} characters`]
  }
  if (target.startsWith('/') || target === '*') return undefined
  return ['VALIDATION_FAILED', 'the target of a request must be a path']
}

function refusedHost(
  request: IncomingMessage,
  allowedHosts: ReadonlySet<string> | 'any',
): Refusal | undefined {
  const { httpVersion, headers, rawHeaders } = request
  if (headers.host === undefined && httpVersion !== '1.0') {
    return ['VALIDATION_FAILED', 'the request has no Host header']
  }
  if (isRepeated('host', rawHeaders)) {
    return ['VALIDATION_FAILED', 'the request has more than one Host header']
  }
  if (allowedHosts === 'any' || allowedHosts.has(hostName(headers.host ?? ''))) return undefined
  return ['MISDIRECTED_REQUEST', 'ALLOWED_HOSTS does not list the host of this request']
}

/** Node keeps the first of several; a proxy in front may have decided by the last. */
function isRepeated(name: string, rawHeaders: readonly string[]): boolean {
  let count = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const header = rawHeaders[at] as string
    if (header.length === name.length && header.toLowerCase() === name) count += 1
  }
  return count > 1
}

/** `example.org:8000` and `[::1]:8000` without their ports. */
function hostName(host: string): string {
  const end = host.startsWith('[') ? host.indexOf(']') + 1 : host.indexOf(':')
  return (end > 0 ? host.slice(0, end) : host).toLowerCase()
}

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/**
 * Browsers send some requests of foreign pages without asking first (a form, a POST without a body).
 * They say so in Sec-Fetch-Site; older ones at least name the page's Origin. Other clients send neither.
 */
function crossSite({ method, headers }: IncomingMessage): Refusal | undefined {
  if (SAFE_METHODS.has(method ?? '')) return undefined
  const site = headers['sec-fetch-site']
  if (site !== undefined) {
    if (site === 'same-origin' || site === 'none') return undefined
    return ['CROSS_SITE_REQUEST', 'Sec-Fetch-Site must be same-origin or none']
  }
  const { origin, host } = headers
  if (origin === undefined || isSameHost(origin, host)) return undefined
  return ['CROSS_SITE_REQUEST', 'Origin must name the host of this request']
}

/** Compares with the default port of the scheme left out on both sides. */
function isSameHost(origin: string, host: string | undefined): boolean {
  const from = URL.parse(origin)
  return (
    from !== null && from.host !== '' && from.host === URL.parse(`${from.protocol}//${host}`)?.host
  )
}
