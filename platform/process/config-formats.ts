import { BlockList, isIP } from 'node:net'
import Type from 'typebox'
import Format from 'typebox/format'

/**
 * Text formats for configuration variables, checked when the configuration is read. Empty text is valid in
 * every format, because it can only be a default: an empty variable counts as unset.
 */

interface TextOptions {
  readonly default?: string
  readonly secret?: boolean
  readonly description: string
}

/** A URL such as http://host:8001, without credentials. */
export const httpUrl = textType(
  'http-url',
  'an http:// or https:// URL without credentials',
  (text) => {
    const url = urlOf(text, ['http:', 'https:'])
    return url !== undefined && url.username === '' && url.password === ''
  },
)

export const postgresUrl = textType(
  'postgres-url',
  'a URL such as postgres://user:password@host/name, with / # ? @ percent-encoded in user and password',
  (text) => urlOf(text, ['postgres:', 'postgresql:']) !== undefined,
)

export const smtpUrl = textType(
  'smtp-url',
  'a URL such as smtp://user:password@host:587 or smtps://host, with / # ? @ percent-encoded in user and password',
  (text) => {
    const url = urlOf(text, ['smtp:', 'smtps:'])
    return url && url.hostname !== '' && ['', '/'].includes(url.pathname) && url.hash === ''
  },
)

/** A list of brokers, such as `kafka-1:9092,kafka-2:9092`. */
export const brokerList = textType(
  'broker-list',
  'host:port, or several of them separated by commas',
  everyItem((item) => {
    const url = URL.parse(`kafka://${item}`)
    return url?.host.toLowerCase() === item.toLowerCase() && Number(url.port) > 0
  }),
)

/** A list of host names, such as `example.org,[::1]`, or `*` for all. */
export const hostList = textType(
  'host-list',
  '* or host names without ports, separated by commas',
  everyItem((item) => item === '*' || URL.parse(`http://${item}`)?.hostname === item.toLowerCase()),
)

/** Signatures with a private key. None of them works with a secret that both sides know. */
const ALGORITHMS = 'ES256 ES384 ES512 EdDSA RS256 RS384 RS512 PS256 PS384 PS512'.split(' ')

/** A list of signature algorithms, such as `ES256,EdDSA`. */
export const algorithmList = textType(
  'algorithm-list',
  `algorithms separated by commas: ${ALGORITHMS.join(', ')}`,
  everyItem((item) => ALGORITHMS.includes(item)),
)

/** The name of an HTTP header, such as `x-jwt-token`. */
export const headerName = textType('header-name', 'the name of an HTTP header', (text) =>
  /^[a-z][a-z0-9-]{0,63}$/i.test(text),
)

/** A list of networks and addresses, such as `10.0.0.0/8,::1`. */
export const networkList = textType(
  'network-list',
  'addresses or CIDR ranges, separated by commas',
  everyItem((item) => addNetwork(new BlockList(), item)),
)

const OWN_PATHS = new Set(['orders', 'billing', 'notification', 'lab', 'asyncapi', 'asyncapi.json'])

/** A path prefix such as `/shop`, or `/` for none. */
export const pathPrefix = textType(
  'path-prefix',
  `/ or a path such as /shop, not below a path of the program itself (${[...OWN_PATHS].join(', ')})`,
  (text) => {
    if (text === '/') return true
    const [root, first, ...others] = text.split('/')
    const steps = [first ?? '', ...others]
    const isStep = (step: string) => /^[\w.~-]+$/.test(step) && step !== '.' && step !== '..'
    return root === '' && steps.every(isStep) && !OWN_PATHS.has(first ?? '')
  },
)

/** The items of a comma-separated list, without the spaces around them. */
export function itemsOf(text: string): string[] {
  const items = text.split(',').map((item) => item.trim())
  return items.filter((item) => item !== '')
}

/** The networks of a list such as `10.0.0.0/8,::1`. */
export function networksOf(text: string): BlockList {
  const networks = new BlockList()
  for (const item of itemsOf(text)) addNetwork(networks, item)
  return networks
}

function everyItem(isValid: (item: string) => boolean): (text: string) => boolean {
  return (text) => itemsOf(text).length > 0 && itemsOf(text).every(isValid)
}

function addNetwork(networks: BlockList, item: string): boolean {
  const [address = '', prefix, ...others] = item.split('/')
  const version = isIP(address)
  if (version === 0 || others.length > 0) return false
  const family = version === 4 ? 'ipv4' : 'ipv6'
  const bits = version === 4 ? 32 : 128
  if (prefix === undefined) networks.addAddress(address, family)
  else if (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits) {
    networks.addSubnet(address, Number(prefix), family)
  } else return false
  return true
}

/**
 * Parses a URL. Returns undefined if it is invalid. A URL whose password has an unencoded / or # is also
 * invalid: that character ends the authority of the URL, and the @ after it becomes part of the path or the
 * hash.
 */
function urlOf(text: string, protocols: readonly string[]): URL | undefined {
  const url = URL.parse(text)
  if (url === null || !protocols.includes(url.protocol)) return undefined
  const rest = url.pathname + url.hash
  return rest.includes('@') || /\s/.test(text) || !isDecodable(url) ? undefined : url
}

function isDecodable({ username, password }: URL): boolean {
  try {
    decodeURIComponent(username + password)
    return true
  } catch {
    return false
  }
}

function textType(format: string, expected: string, isValid: (text: string) => unknown) {
  Format.Set(format, (text) => text === '' || Boolean(isValid(text)))
  return (options: TextOptions) => Type.String({ ...options, format, expected })
}
