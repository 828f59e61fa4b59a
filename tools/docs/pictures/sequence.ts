// createPage is long, because every drawing step moves the same position on the page.
import type { Recording, Service } from './recording.ts'
import { type Party, type Step, stepsOf } from './steps.ts'
import { arrow, box, svg, type Tone, words } from './svg.ts'

/** Draws the steps of a scene from top to bottom, with a vertical line for each participant. */
type Lane = Party | 'broker' | 'mailbox'

const WIDTH = 872
const LANES: Readonly<Record<Lane, number>> = {
  customer: 66,
  order: 204,
  broker: 352,
  billing: 502,
  notification: 664,
  mailbox: 806,
}
const [TOP, LEGEND] = [46, 46]
const [HEADER_WIDTH, HEADER_HEIGHT] = [104, 30]
const PILL = [70, 20] as const
const HALF_BAR = 5
const HALF_PILL = PILL[0] / 2

export function sequencePicture(recording: Recording, title: string): string {
  const steps = stepsOf(recording)
  const lanes = lanesOf(steps)
  const page = createPage(recording.off)
  for (const step of steps) page.draw(step)
  const bottom = page.y() + 24
  const height = bottom + LEGEND
  const back = lanes.flatMap((lane) => lifeline(lane, bottom, page.backAt(lane)))
  const heads = lanes.flatMap((lane) => header(lane, recording.off === lane))
  return svg({
    width: WIDTH,
    height,
    title,
    description: steps.map(sentenceOf).join(' '),
    body: [...back, ...page.bars, ...page.marks, ...heads, ...legend(bottom + 28, lanes)],
  })
}

function lanesOf(steps: readonly Step[]): Lane[] {
  const seen = new Set<Lane>(['customer', 'order', 'billing', 'notification'])
  for (const { kind } of steps) {
    if (kind === 'send') seen.add('broker')
    if (kind === 'letter') seen.add('mailbox')
  }
  return (Object.keys(LANES) as Lane[]).filter((lane) => seen.has(lane))
}

/** The page drawn so far: which parties are busy, since when, and where the next step goes. */
function createPage(off: Service | undefined) {
  const marks: string[] = []
  const bars: string[] = []
  const busySince = new Map<Party, number[]>()
  let y = TOP + 4
  let isBackAt: number | undefined

  /**
   * The x coordinate where an arrow begins or ends: at the bar of a busy party, otherwise at the party's
   * line.
   */
  const edge = (lane: Lane, toward: number): number => {
    const x = LANES[lane]
    const half = busySince.get(lane as Party)?.length ? HALF_BAR : 1
    return x + Math.sign(toward - x) * half
  }
  const ends = (from: Lane, to: Lane) =>
    [
      [edge(from, LANES[to]), y],
      [edge(to, LANES[from]), y],
    ] as const

  function begin(party: Party): void {
    busySince.set(party, [...(busySince.get(party) ?? []), y])
  }

  function end(party: Party): void {
    const since = busySince.get(party)!.pop()!
    const look = party === 'customer' ? 'wait' : 'active'
    bars.push(box([LANES[party] - HALF_BAR, since], [2 * HALF_BAR, y - since], look, 3))
  }

  function label(text: string, from: Lane, to: Lane, look: string): void {
    const middle = (LANES[from] + LANES[to]) / 2
    marks.push(words(text, { at: [middle, y - 6], anchor: 'middle', look: `${look} halo` }))
  }

  function call({ from, to, label: text }: Step & { kind: 'call' }): void {
    y += 34
    if (from === 'customer') begin(from)
    const [start, tip] = ends(from, to)
    const isGone = to === off && isBackAt === undefined
    if (!isGone) begin(to)
    const shorter = Math.sign(tip[0] - start[0]) * (isGone ? 0 : HALF_BAR - 1)
    marks.push(arrow({ from: start, to: [tip[0] - shorter, y], tone: isGone ? 'bad' : 'call' }))
    label(text, from, to, 'code')
  }

  function response({ from, to, status }: Step & { kind: 'response' }): void {
    y += 28
    const isBad = status >= 400
    const [start, tip] = ends(from, to)
    marks.push(arrow({ from: start, to: tip, tone: isBad ? 'bad' : 'quiet', dashed: true }))
    label(String(status), from, to, isBad ? 'code bad-text' : 'code')
    const isGone = from === off && isBackAt === undefined
    if (!isGone) end(from)
    if (to === 'customer') end(to)
  }

  function commit(at: Service, note: string): void {
    const x = LANES[at]
    marks.push(box([x - 6, y - 6], [12, 12], 'commit', 3))
    if (note) marks.push(words(note, { at: [x + 13, y + 4], look: stateLook(note) }))
  }

  function send({ from, topic, event }: Step & { kind: 'send' }): void {
    y += 38
    const x = LANES.broker
    const side = Math.sign(LANES[from] - x)
    const tip = x + side * (HALF_PILL + 2)
    marks.push(arrow({ from: [edge(from, x), y], to: [tip, y], tone: 'message' }))
    const middle = (LANES[from] + side * HALF_BAR + tip) / 2
    marks.push(words(event, { at: [middle, y - 7], anchor: 'middle', look: 'code small halo' }))
    marks.push(pill(topic, y))
  }

  function receive(readers: readonly { service: Service; note: string }[]): void {
    const x = LANES.broker
    const foot = y + PILL[1] / 2
    y += 30
    marks.push(`<line class="line message" x1="${x}" y1="${foot}" x2="${x}" y2="${y}"/>`)
    marks.push(`<circle class="head message" cx="${x}" cy="${y}" r="3"/>`)
    for (const { service, note } of readers) {
      const side = Math.sign(LANES[service] - x)
      const tip = LANES[service] - side * 7
      marks.push(arrow({ from: [x, y], to: [tip, y], tone: 'message' }))
      commit(service, '')
      if (note) {
        const at = [LANES[service] - 13, y + 4] as const
        marks.push(words(note, { at, anchor: 'end', look: stateLook(note) }))
      }
    }
  }

  function letter(from: Service): void {
    y += 34
    const [start, tip] = ends(from, 'mailbox')
    marks.push(arrow({ from: start, to: tip, tone: 'letter' }))
    label('letter', from, 'mailbox', 'soft')
  }

  function back(service: Service): void {
    y += 34
    isBackAt = y
    marks.push(`<line class="rule" x1="20" y1="${y}" x2="${WIDTH - 20}" y2="${y}"/>`)
    const at = [WIDTH / 2, y + 4] as const
    marks.push(words(`${service} is back`, { at, anchor: 'middle', look: 'strong halo' }))
  }

  function draw(step: Step): void {
    switch (step.kind) {
      case 'call':
        return call(step)
      case 'response':
        return response(step)
      case 'commit':
        y += 24
        return commit(step.at, step.note)
      case 'send':
        return send(step)
      case 'receive':
        return receive(step.readers)
      case 'letter':
        return letter(step.from)
      case 'back':
        return back(step.service)
    }
  }

  return {
    marks,
    bars,
    draw,
    y: () => y,
    backAt: (lane: Lane) => (lane === off ? (isBackAt ?? y) : undefined),
  }
}

function stateLook(state: string): string {
  if (state === 'APPROVED') return 'good halo'
  return state === 'CANCELED' ? 'soft bad-text halo' : 'soft strong halo'
}

function pill(topic: string, y: number): string {
  const [width, height] = PILL
  const x = LANES.broker
  const frame = box([x - width / 2, y - height / 2], [width, height], 'pill', height / 2)
  return `${frame}\n${words(topic, { at: [x, y + 4], anchor: 'middle', look: 'topic' })}`
}

function header(lane: Lane, isOff: boolean): string[] {
  const x = LANES[lane]
  const frame = box([x - HEADER_WIDTH / 2, 18], [HEADER_WIDTH, HEADER_HEIGHT], 'panel')
  const name = words(lane, { at: [x, 38], anchor: 'middle', look: 'strong' })
  const off = words('is off', { at: [x, 62], anchor: 'middle', look: 'soft bad-text halo' })
  return isOff ? [frame, name, off] : [frame, name]
}

function lifeline(lane: Lane, bottom: number, backAt: number | undefined): string[] {
  const x = LANES[lane]
  const top = 18 + HEADER_HEIGHT
  const line = (from: number, to: number, look: string) =>
    `<line class="${look}" x1="${x}" y1="${from}" x2="${x}" y2="${to}"/>`
  if (backAt === undefined) return [line(top, bottom, 'life')]
  return [line(top + 18, backAt, 'gone'), line(backAt, bottom, 'life')]
}

interface Sign {
  readonly width: number
  readonly text: string
  /** The approximate width of the text. */
  readonly textWidth: number
  draw(x: number): string
}

function legend(y: number, lanes: readonly Lane[]): string[] {
  let x = 24
  const marks = [`<line class="life" x1="20" y1="${y - 28}" x2="${WIDTH - 20}" y2="${y - 28}"/>`]
  for (const { width, text, textWidth, draw } of signs(y - 4, lanes)) {
    marks.push(draw(x), words(text, { at: [x + width + 8, y], look: 'soft' }))
    x += width + textWidth + 32
  }
  return marks
}

function signs(y: number, lanes: readonly Lane[]): Sign[] {
  const line = (from: number, to: number, tone: Tone, dashed = false) =>
    arrow({ from: [from, y], to: [to, y], tone, dashed })
  const message: Sign = {
    width: 26,
    text: 'a message, through its topic',
    textWidth: 160,
    draw: (x) => line(x, x + 26, 'message'),
  }
  return [
    {
      width: 10,
      text: 'the customer waits',
      textWidth: 107,
      draw: (x) => box([x, y - 10], [10, 20], 'wait', 3),
    },
    { width: 26, text: 'HTTP call', textWidth: 57, draw: (x) => line(x, x + 26, 'call') },
    {
      width: 26,
      text: 'its response',
      textWidth: 71,
      draw: (x) => line(x + 26, x, 'quiet', true),
    },
    {
      width: 12,
      text: 'a database transaction',
      textWidth: 131,
      draw: (x) => box([x, y - 6], [12, 12], 'commit', 3),
    },
    ...(lanes.includes('broker') ? [message] : []),
  ]
}

function sentenceOf(step: Step): string {
  switch (step.kind) {
    case 'call':
      return `${step.from} calls ${step.to}: ${step.label}.`
    case 'response':
      return `${step.from} responds to ${step.to}: ${step.status}.`
    case 'commit':
      return `${step.at} commits${step.note && `: the order is ${step.note}`}.`
    case 'send':
      return `${step.from} sends ${step.event} to the topic ${step.topic}.`
    case 'receive':
      return `Read by ${step.readers.map(({ service }) => service).join(' and ')}.`
    case 'letter':
      return `${step.from} sends a letter.`
    case 'back':
      return `${step.service} is back.`
  }
}
