import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { curlBlocksIn } from '../../tools/docs/pages.ts'

/** The curl lines of the user pages, as calls of a typed client. */

interface Parameter {
  readonly name: string
  readonly in: string
  readonly schema: { readonly type?: string }
}

export interface OpenApi {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly parameters: readonly Parameter[] }>>>
  >
}

export interface Call {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
}

const ID = '00000000-0000-4000-8000-000000000000'
const UNIT = '\u001f'
const RECORD = '\u001e'

/** The calls in a page's shell lines: bash runs them with a fake curl that only records its arguments. */
export function callsOn(markdown: string): Call[] {
  const lines = curlBlocksIn(markdown).join('\n')
  const curl = `curl() { printf '%s\\x1f' "$@" >&3; printf '\\x1e' >&3; echo '"${ID}"'; }`
  const noted = execFileSync(
    'bash',
    ['--norc', '-c', `exec 3>&1 1>/dev/null\n${curl}\n${lines}\n:`],
    {
      encoding: 'utf8',
    },
  )
  return noted
    .split(RECORD)
    .filter((record) => record.includes(UNIT))
    .map((record) => callOf(record.split(UNIT).slice(0, -1)))
}

function callOf(args: readonly string[]): Call {
  const valuesOf = (flag: string) => args.filter((_, at) => args[at - 1] === flag)
  const target = args.find((arg) => /^(http:\/\/)?localhost:/.test(arg))
  assert.ok(target, `a URL in ${args.join(' ')}`)
  const [body] = valuesOf('-d')
  const [method = body === undefined ? 'GET' : 'POST'] = valuesOf('-X')
  const headers = valuesOf('-H').map((line) => {
    const [name = '', ...value] = line.split(':')
    return [name.toLowerCase(), value.join(':').trim()]
  })
  return {
    method: method.toLowerCase(),
    url: new URL(target.replace(/^(http:\/\/)?/, 'http://')),
    headers: Object.fromEntries(headers),
    body,
  }
}

const PREAMBLE = `
type Body<Op extends { requestBody?: unknown }> = [NonNullable<Op['requestBody']>] extends [never]
  ? undefined
  : Op extends { requestBody: { content: { 'application/json': infer Given } } }
    ? Given
    : NonNullable<Op['requestBody']> extends { content: { 'application/json': infer Given } }
      ? Given | undefined
      : never
declare function call<Op extends { parameters: object; requestBody?: unknown }>(
  parameters: Op['parameters'],
  body: Body<Op>,
): void

// @ts-expect-error This style does not exist.
call<orders['/orders']['post']>({ query: { profileId: '' }, header: { 'x-interaction-style': 'x' } }, { productQuantity: 1 })
// @ts-expect-error An order needs a body.
call<orders['/orders']['post']>({ query: { profileId: '' } }, undefined)
// @ts-expect-error An order needs a profile.
call<orders['/orders']['post']>({}, { productQuantity: 1 })
// @ts-expect-error A refund needs an order.
call<notification['/notification']['post']>({}, { accountId: '', event: 'PAYMENT_REFUNDED', value: 1 })
call<billing['/billing/payments/{orderId}/void']['post']>({ path: { orderId: '' } }, undefined)
`

/** A module that makes the calls with the types of `./S.ts`, and the paths that no document has. */
export function typedCalls(calls: readonly Call[], documents: ReadonlyMap<string, OpenApi>) {
  const typed: string[] = []
  const undocumented: string[] = []
  for (const call of calls) {
    const path = call.url.pathname.replace(/(?<=.)\/$/, '')
    const found = [...documents].flatMap(([service, { paths }]) => {
      const own = Object.keys(paths).filter((one) => paths[one]?.[call.method] && fits(one, path))
      return own.map((one) => ({
        service,
        path: one,
        parameters: paths[one]![call.method]!.parameters,
      }))
    })
    // A fixed segment takes precedence over a parameter.
    const [first] = found.sort((a, b) => a.path.split('{').length - b.path.split('{').length)
    if (first === undefined) undocumented.push(path)
    else typed.push(typedCall(call, first, path))
  }
  const imports = [...documents.keys()].map(
    (service) => `import type { paths as ${service} } from './${service}'`,
  )
  const source = [...imports, PREAMBLE, ...typed].join('\n')
  return { source, count: typed.length, undocumented }
}

function typedCall(
  { method, url, headers, body }: Call,
  route: {
    readonly service: string
    readonly path: string
    readonly parameters: readonly Parameter[]
  },
  path: string,
): string {
  const { 'content-type': _json, ...header } = headers
  const query = [...url.searchParams].map(([name, text]) => {
    const type = route.parameters.find((one) => one.name === name)?.schema.type
    const isText = type === undefined || type === 'string'
    return [name, isText ? text : JSON.parse(text)]
  })
  const steps = path.split('/')
  const inPath = route.path
    .split('/')
    .flatMap((step, at) => (step.startsWith('{') ? [[step.slice(1, -1), steps[at]]] : []))
  const parameters = {
    ...(query.length > 0 && { query: Object.fromEntries(query) }),
    ...(Object.keys(header).length > 0 && { header }),
    ...(inPath.length > 0 && { path: Object.fromEntries(inPath) }),
  }
  const operation = `${route.service}['${route.path}']['${method}']`
  return `call<${operation}>(${JSON.stringify(parameters)}, ${body ?? 'undefined'})`
}

/** All path parameters are ids. */
function fits(pattern: string, path: string): boolean {
  const steps = path.split('/')
  const wanted = pattern.split('/')
  const isFitting = (want: string, at: number) => steps[at] === (want.startsWith('{') ? ID : want)
  return wanted.length === steps.length && wanted.every(isFitting)
}
