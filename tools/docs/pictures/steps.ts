import type { Span } from '../../../tests/e2e/trace-collector.ts'
import { messageId, type Recording, type Service } from './recording.ts'

/**
 * Turns the spans of a recording into the steps of a picture. Effects come after their causes. The order of
 * concurrent steps differs from run to run, so they are put into a fixed order: first the response, then
 * messages, calls and letters, and balances last.
 */
export type Step =
  | { readonly kind: 'call'; readonly from: Party; readonly to: Service; readonly label: string }
  | {
      readonly kind: 'response'
      readonly from: Service
      readonly to: Party
      readonly status: number
    }
  /** A transaction of the service, and the state of the order after it, if known. */
  | { readonly kind: 'commit'; readonly at: Service; readonly note: string }
  | {
      readonly kind: 'send'
      readonly from: Service
      readonly topic: string
      readonly event: string
    }
  | { readonly kind: 'receive'; readonly readers: readonly Reader[] }
  | { readonly kind: 'letter'; readonly from: Service }
  /** The service that was off is running again. */
  | { readonly kind: 'back'; readonly service: Service }

export type Party = 'customer' | Service
export interface Reader {
  readonly service: Service
  readonly note: string
}

const SERVICES: Readonly<Record<string, Service>> = {
  orders: 'order',
  billing: 'billing',
  notification: 'notification',
}
/** The start of a span is rounded to whole milliseconds, and its end is measured from the rounded start. */
const SPAN_ERROR_NS = 1_000_000n

export function stepsOf({ spans, events, states, off }: Recording): Step[] {
  const steps: Step[] = []
  /** Effects that have not been drawn yet. */
  const queue: Span[] = []
  const later: Span[] = []
  const ids = new Set(spans.map(({ id }) => id))
  const childrenOf = ({ id }: Span) => spans.filter(({ parentId }) => parentId === id).sort(byStart)

  function request(server: Span, from: Party): void {
    const to = serviceOf(server)
    const children = childrenOf(server)
    const within = children.filter((child) => isWaitedFor(child, server, children, from))
    const lastCommit = within.findLast(isCommit)
    steps.push({ kind: 'call', from, to, label: callLabel(server) })
    for (const child of within) {
      if (isCall(child)) call(child)
      else {
        const note = from === 'customer' && child === lastCommit ? (states?.atOnce ?? '') : ''
        steps.push({ kind: 'commit', at: to, note })
      }
    }
    steps.push({ kind: 'response', from: to, to: from, status: statusOf(server) })
    queue.push(...children.filter((child) => !within.includes(child)))
  }

  function call(client: Span): void {
    const [server] = childrenOf(client)
    if (server) return request(server, serviceOf(client))
    // The service was off, so the gateway responded in its place.
    const [from, to] = [serviceOf(client), targetOf(client)]
    steps.push({ kind: 'call', from, to, label: callLabel(client) })
    steps.push({ kind: 'response', from: to, to: from, status: statusOf(client) })
  }

  function send(producer: Span): void {
    const topic = String(producer.attributes['messaging.destination.name'])
    const event = events.get(messageId(producer))!
    steps.push({ kind: 'send', from: serviceOf(producer), topic, event })
    const readers = childrenOf(producer)
    queue.push(...readers.flatMap(childrenOf))
    if (readers.length > 0)
      steps.push({ kind: 'receive', readers: readers.map(reader).sort(byName) })
  }

  function reader(consumer: Span): Reader {
    const service = serviceOf(consumer)
    const hasSettled = service === 'order' && states && states.final !== states.atOnce
    return { service, note: hasSettled ? states.final : '' }
  }

  function drain(): void {
    const tried = new Set<string>()
    while (queue.length > 0) {
      queue.sort((a, b) => rankOf(a) - rankOf(b) || byStart(a, b))
      const span = queue.shift()!
      if (span.kind === 'producer') send(span)
      else if (isLetter(span)) steps.push({ kind: 'letter', from: serviceOf(span) })
      else if (off === undefined || later.length > 0) call(span)
      else if (span.failed) {
        // Repeated attempts are drawn once, because their number depends on how long the service was off.
        if (!tried.has(callLabel(span)) && !isDrawn(span)) call(span)
        tried.add(callLabel(span))
      } else later.push(span)
    }
  }

  const isDrawn = (client: Span) =>
    steps.some((step) => step.kind === 'call' && step.label === callLabel(client))

  for (const root of spans.filter(({ parentId }) => !ids.has(parentId))) request(root, 'customer')
  drain()
  if (off === undefined) return steps
  steps.push({ kind: 'back', service: off })
  queue.push(...later)
  drain()
  return steps
}

/**
 * Whether the response waits for the child span. The response to a customer waits for a call if a commit
 * follows the call. The response to another service waits for the calls that ended before the response.
 */
function isWaitedFor(child: Span, server: Span, siblings: readonly Span[], from: Party): boolean {
  if (isCommit(child)) return true
  if (!isCall(child)) return false
  if (from !== 'customer') return child.end < server.end + SPAN_ERROR_NS
  return siblings.slice(siblings.indexOf(child)).some(isCommit)
}

export const serviceOf = ({ service }: Span): Service => service as Service
export const isCommit = ({ name }: Span): boolean => name.startsWith('commit ')
export const isLetter = ({ name }: Span): boolean => name === 'send letter'
export const isCall = (span: Span): boolean => span.attributes['url.full'] !== undefined

/** The service that a call is addressed to. */
export const targetOf = (client: Span): Service => SERVICES[pathOf(client).split('/')[1]!]!

/** The method and path of a call, without ids. Works for the span of the caller and of the receiver. */
export function callLabel(span: Span): string {
  const path = pathOf(span).replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '{id}')
  return `${span.attributes['http.request.method']} ${path}`
}

const pathOf = ({ attributes }: Span) =>
  String(attributes['url.path'] ?? new URL(String(attributes['url.full'])).pathname)
const statusOf = ({ attributes }: Span) => Number(attributes['http.response.status_code'])

function rankOf(span: Span): number {
  if (span.attributes['messaging.destination.name'] === 'balance') return 3
  if (isLetter(span)) return 2
  return span.kind === 'producer' ? 0 : 1
}

const byStart = (a: Span, b: Span) => (a.start < b.start ? -1 : Number(a.start > b.start))
const byName = (a: Reader, b: Reader) => (a.service < b.service ? 1 : -1)
