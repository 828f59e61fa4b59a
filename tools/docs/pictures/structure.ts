import type { Span } from '../../../tests/e2e/trace-collector.ts'
import { messageId, type Recording, type Service } from './recording.ts'
import { callLabel, isCall, isCommit, isLetter, serviceOf, targetOf } from './steps.ts'
import { arrow, box, codeWidth, svg, words } from './svg.ts'

/**
 * Draws which services call each other and exchange events in a style, exactly as its recordings show. Throws
 * if the recordings contain something that has no position in the picture.
 */
export interface Structure {
  /** The requests of customers, by service. */
  readonly requests: ReadonlyMap<Service, ReadonlySet<string>>
  /** The calls from one service to another, by a key like `order > billing`. */
  readonly calls: ReadonlyMap<string, ReadonlySet<string>>
  /** The events that a service sends to a topic, by a key like `order > billing`. */
  readonly sends: ReadonlyMap<string, ReadonlySet<string>>
  /** The events of a topic that a service reads, by a key like `payment > order`. */
  readonly reads: ReadonlyMap<string, ReadonlySet<string>>
  readonly letters: ReadonlySet<Service>
  readonly databases: ReadonlySet<Service>
}

export function structureOf(recordings: readonly Recording[]): Structure {
  const requests = new Map<Service, Set<string>>()
  const calls = new Map<string, Set<string>>()
  const sends = new Map<string, Set<string>>()
  const reads = new Map<string, Set<string>>()
  const letters = new Set<Service>()
  const databases = new Set<Service>()
  for (const { spans, events } of recordings) {
    const ids = new Set(spans.map(({ id }) => id))
    for (const span of spans) {
      const service = serviceOf(span)
      if (!ids.has(span.parentId)) put(requests, service, callLabel(span))
      if (isCall(span)) put(calls, `${service} > ${targetOf(span)}`, callLabel(span))
      if (isLetter(span)) letters.add(service)
      if (isCommit(span) || span.kind === 'consumer') databases.add(service)
      const event = events.get(messageId(span)) ?? ''
      if (span.kind === 'producer') put(sends, `${service} > ${topicOf(span)}`, event)
      if (span.kind === 'consumer') put(reads, `${topicOf(span)} > ${service}`, event)
    }
  }
  // Sorted, because the order in which spans arrive differs from run to run.
  return {
    requests: inOrder(requests),
    calls: inOrder(calls),
    sends: inOrder(sends),
    reads: inOrder(reads),
    letters,
    databases,
  }
}

function put<Key>(into: Map<Key, Set<string>>, key: Key, value: string): void {
  into.set(key, (into.get(key) ?? new Set()).add(value))
}

const inOrder = <Key extends string>(of: ReadonlyMap<Key, ReadonlySet<string>>) =>
  new Map([...of].sort().map(([key, values]) => [key, new Set([...values].sort())]))

const topicOf = ({ attributes }: Span) => String(attributes['messaging.destination.name'])

const WIDTH = 872
const SERVICE_WIDTH = 150
const [SERVICE_TOP, SERVICE_HEIGHT] = [172, 78]
const SERVICES: Readonly<Record<Service, { readonly x: number; readonly database: string }>> = {
  order: { x: 20, database: 'orders' },
  billing: { x: 398, database: 'billing' },
  notification: { x: 702, database: 'notification' },
}
/**
 * Where a service's line meets a topic, and where the event names end. The positions are chosen so that no
 * lines cross.
 */
const PORTS: Readonly<Record<string, { readonly x: number; readonly namesEnd?: number }>> = {
  'payment > order': { x: 40 },
  'order > payment': { x: 80 },
  'order > billing': { x: 140 },
  'billing > billing': { x: 414, namesEnd: 428 },
  'billing > billing (reads)': { x: 436 },
  'billing > payment': { x: 459 },
  'billing > balance': { x: 534 },
  'payment > notification': { x: 726 },
}
const [UPPER, GAP, TOPIC_PAD] = [300, 30, 14]
const MAILBOX = { x: 780, width: 72 }
const LINE_HEIGHT = 15

export function structurePicture(structure: Structure, title: string): string {
  const topics = topicsOf(structure)
  const [left, right, bottom] = [
    Math.min(...topics.map((topic) => topic.left)) - 14,
    Math.max(...topics.map((topic) => topic.right)) + 14,
    Math.max(...topics.map((topic) => topic.y + topic.height)),
  ]
  return svg({
    width: WIDTH,
    height: bottom + 46,
    title,
    description: descriptionOf(structure),
    body: [
      box([left, UPPER - 16], [right - left, bottom - UPPER + 44], 'panel', 8),
      words('broker', { at: [left + 14, bottom + 20], look: 'strong' }),
      ...gateway(structure),
      ...services(structure),
      ...callsBetween(structure),
      ...topics.flatMap(drawTopic),
      ...mailbox(structure, bottom),
    ],
  })
}

interface Meeting {
  readonly x: number
  readonly isRead: boolean
  /** The names of the events that the service sends, in rows; empty if the service reads the topic. */
  readonly rows: readonly string[]
  readonly left: number
  readonly right: number
}

interface TopicOnPage {
  readonly name: string
  readonly meetings: readonly Meeting[]
  readonly y: number
  readonly height: number
  readonly left: number
  readonly right: number
}

/** The topic `payment`, which several services read, is below the others. */
function topicsOf({ sends, reads }: Structure): TopicOnPage[] {
  const topics = new Map<string, Meeting[]>()
  const meet = (name: string, meeting: Meeting) =>
    topics.set(name, [...(topics.get(name) ?? []), meeting])
  for (const [key, events] of sends) meet(key.split(' > ')[1]!, toMeeting(key, events, false))
  for (const [key, events] of reads) meet(key.split(' > ')[0]!, toMeeting(key, events, true))
  const heightOf = (meetings: readonly Meeting[]) =>
    30 + Math.max(...meetings.map(({ rows }) => rows.length)) * LINE_HEIGHT
  const upper = [...topics].filter(([name]) => name !== 'payment')
  const lower = UPPER + Math.max(...upper.map(([, meetings]) => heightOf(meetings))) + GAP
  return [...topics].map(([name, meetings]) => ({
    name,
    meetings,
    y: name === 'payment' ? lower : UPPER,
    height: heightOf(meetings),
    left: Math.min(...meetings.map(({ left }) => left)) - TOPIC_PAD,
    right: Math.max(...meetings.map(({ right }) => right)) + TOPIC_PAD,
  }))
}

/** Up to two names are drawn in a column; more names are drawn in one row. */
function toMeeting(key: string, events: ReadonlySet<string>, isRead: boolean): Meeting {
  const port = PORTS[isRead && key === 'billing > billing' ? `${key} (reads)` : key]
  if (!port) throw new Error(`the picture has no place for ${key}: ${[...events]}`)
  const { x, namesEnd } = port
  if (isRead) return { x, isRead, rows: [], left: x, right: x }
  const names = [...events]
  const rows = names.length > 2 ? [names.join(' · ')] : names
  const width = Math.max(...rows.map((row) => codeWidth(row, 11)))
  const left = namesEnd === undefined ? x - width / 2 : namesEnd - width
  return { x, isRead, rows, left, right: Math.max(x, left + width) }
}

function drawTopic({ name, y, height, left, right, meetings }: TopicOnPage): string[] {
  const foot = SERVICE_TOP + SERVICE_HEIGHT
  const drawn = meetings.flatMap(({ x, isRead, rows, left: start }) => {
    const [service, topic] = [[x, foot + 2] as const, [x, y - 2] as const]
    const ends = isRead ? { from: topic, to: service } : { from: service, to: topic }
    const first = y + height - 10 - (rows.length - 1) * LINE_HEIGHT
    const names = rows.map((row, index) => {
      return words(row, { at: [start, first + index * LINE_HEIGHT], look: 'code small' })
    })
    return [arrow({ ...ends, tone: 'message' }), ...names]
  })
  return [
    box([left, y], [right - left, height], 'pill', 8),
    words(name, { at: [left + TOPIC_PAD, y + 18], look: 'topic strong' }),
    ...drawn,
  ]
}

function gateway({ requests }: Structure): string[] {
  const marks = [
    box([WIDTH / 2 - 60, 16], [120, 30], 'panel'),
    words('customer', { at: [WIDTH / 2, 36], anchor: 'middle', look: 'strong' }),
    arrow({ from: [WIDTH / 2, 46], to: [WIDTH / 2, 72], tone: 'call' }),
    box([20, 74], [WIDTH - 40, 30], 'panel'),
    words('gateway', { at: [WIDTH / 2, 94], anchor: 'middle', look: 'strong' }),
  ]
  for (const [service, labels] of requests) {
    const x = SERVICES[service].x + 24
    const isFirst = service === 'order'
    marks.push(arrow({ from: [x, 104], to: [x, SERVICE_TOP - 2], tone: 'call' }))
    for (const [index, label] of [...labels].entries()) {
      const at = [isFirst ? x + 10 : x - 10, 128 + index * LINE_HEIGHT] as const
      marks.push(words(label, { at, anchor: isFirst ? 'start' : 'end', look: 'code small' }))
    }
  }
  return marks
}

function services({ databases }: Structure): string[] {
  return Object.entries(SERVICES).flatMap(([name, { x, database }]) => {
    const middle = x + SERVICE_WIDTH / 2
    const frame = box([x, SERVICE_TOP], [SERVICE_WIDTH, SERVICE_HEIGHT], 'service', 8)
    const heading = words(name, {
      at: [middle, SERVICE_TOP + 26],
      anchor: 'middle',
      look: 'heading',
    })
    const store = databases.has(name as Service) ? drawDatabase(middle, database) : []
    return [frame, heading, ...store]
  })
}

function drawDatabase(middle: number, name: string): string[] {
  const width = codeWidth(name) + 24
  const [x, y, lift] = [middle - width / 2, SERVICE_TOP + 42, 4]
  const side = `M${x} ${y}v20a${width / 2} ${lift} 0 0 0 ${width} 0v-20`
  return [
    `<path class="store" d="${side}"/>`,
    `<ellipse class="store" cx="${middle}" cy="${y}" rx="${width / 2}" ry="${lift}"/>`,
    words(name, { at: [middle, y + 18], anchor: 'middle', look: 'code' }),
  ]
}

/** For calls between neighbors, where the arrow begins and where it ends. */
const CALLS: Readonly<Record<string, readonly [from: number, to: number]>> = {
  'order > billing': [SERVICES.order.x + SERVICE_WIDTH, SERVICES.billing.x - 2],
  'billing > order': [SERVICES.billing.x, SERVICES.order.x + SERVICE_WIDTH + 2],
  'billing > notification': [SERVICES.billing.x + SERVICE_WIDTH, SERVICES.notification.x - 2],
}
const [FIRST_CALL, CALL_HEIGHT] = [22, 24]

/** If two services call each other, both arrows are drawn in the gap between them, one below the other. */
function callsBetween({ calls }: Structure): string[] {
  const rows = new Map<string, number>()
  return [...calls].flatMap(([key, labels]) => {
    const ends = CALLS[key]
    if (!ends) throw new Error(`the picture has no place for ${key}: ${[...labels]}`)
    const [from, to] = ends
    const gap = key.split(' > ').sort().join()
    return [...labels].flatMap((label) => {
      const row = rows.get(gap) ?? 0
      rows.set(gap, row + 1)
      const y = SERVICE_TOP + FIRST_CALL + row * CALL_HEIGHT
      const at = [(from + to) / 2, y - 6] as const
      return [
        arrow({ from: [from, y], to: [to, y], tone: 'call' }),
        words(label, { at, anchor: 'middle', look: 'code small' }),
      ]
    })
  })
}

function mailbox({ letters }: Structure, bottom: number): string[] {
  return [...letters].flatMap((service) => {
    if (service !== 'notification') throw new Error(`the picture has no letters of ${service}`)
    const x = MAILBOX.x + MAILBOX.width / 2
    const top = bottom - 30
    return [
      box([MAILBOX.x, top], [MAILBOX.width, 30], 'panel'),
      words('mailbox', { at: [x, top + 20], anchor: 'middle', look: 'strong' }),
      arrow({ from: [x, SERVICE_TOP + SERVICE_HEIGHT], to: [x, top - 2], tone: 'letter' }),
      words('letters', { at: [x - 8, top - 12], anchor: 'end', look: 'soft' }),
    ]
  })
}

function descriptionOf({ calls, sends, reads }: Structure): string {
  const all = (of: ReadonlyMap<string, ReadonlySet<string>>, verb: string) =>
    [...of].map(([key, what]) => `${key.replace(' > ', ` ${verb} `)}: ${[...what].join(', ')}.`)
  return [...all(calls, 'calls'), ...all(sends, 'sends to'), ...all(reads, 'is read by')].join(' ')
}
