import type { IncomingMessage } from 'node:http'
import type { ProblemCode } from '../../contracts/problems.ts'
import { pathWithoutQuery } from '../http/request-target.ts'

/** The checks that every request has to pass before any other code sees it. */

const MAX_URL_CHARACTERS = 8_192
const MAX_PATH_CHARACTERS = 2_048

export type Rejection = readonly [code: ProblemCode, detail: string]

/**
 * The first reason to reject a request, or undefined if there is none. `allowedHosts` are names without a
 * port, in lower case.
 */
export function rejectionOf(
  request: IncomingMessage,
  allowedHosts: ReadonlySet<string> | 'any',
): Rejection | undefined {
  return checkTarget(request.url ?? '') ?? checkHost(request, allowedHosts) ?? checkSite(request)
}

function checkTarget(target: string): Rejection | undefined {
  if (target.length > MAX_URL_CHARACTERS) {
    return ['URI_TOO_LONG', `a URL may have at most ${MAX_URL_CHARACTERS} characters`]
  }
  if (pathWithoutQuery(target).length > MAX_PATH_CHARACTERS) {
    return ['URI_TOO_LONG', `a path may have at most ${MAX_PATH_CHARACTERS} characters`]
  }
  if (target.startsWith('/') || target === '*') return undefined
  return ['VALIDATION_FAILED', 'the target of a request must be a path']
}

function checkHost(
  request: IncomingMessage,
  allowedHosts: ReadonlySet<string> | 'any',
): Rejection | undefined {
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

/**
 * Whether a header occurs more than once. Node keeps the first one, but a proxy in front may have routed by
 * the last one.
 */
function isRepeated(name: string, rawHeaders: readonly string[]): boolean {
  let count = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const header = rawHeaders[at] as string
    if (header.length === name.length && header.toLowerCase() === name) count += 1
  }
  return count > 1
}

/** The host without its port: `example.org:8000` becomes `example.org`, `[::1]:8000` becomes `[::1]`. */
function hostName(host: string): string {
  const end = host.startsWith('[') ? host.indexOf(']') + 1 : host.indexOf(':')
  return (end > 0 ? host.slice(0, end) : host).toLowerCase()
}

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/**
 * A page on another site can make a browser send some requests without a preflight, such as a form or a POST
 * without a body. Current browsers mark these requests in Sec-Fetch-Site; older browsers at least send the
 * Origin of the page. Clients that are not browsers send neither header.
 */
function checkSite({ method, headers }: IncomingMessage): Rejection | undefined {
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

/** Compares the two as parsed URLs, because parsing removes the default port of the scheme. */
function isSameHost(origin: string, host: string | undefined): boolean {
  const from = URL.parse(origin)
  return (
    from !== null && from.host !== '' && from.host === URL.parse(`${from.protocol}//${host}`)?.host
  )
}
