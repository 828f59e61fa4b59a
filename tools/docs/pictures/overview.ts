import { type Flow, flowOf, type InteractionStyle, STYLES } from '../../../contracts/style.ts'
import { arrow, box, codeWidth, svg, words } from './svg.ts'

/** Draws all styles in one picture: which steps of an order are calls and which are events. */
export function overviewPicture(): string {
  return svg({
    width: WIDTH,
    height: TOP + STYLES.length * ROW_HEIGHT + 30,
    title: 'An order in each interaction style',
    description: STYLES.map(sentenceOf).join(' '),
    body: [...STYLES.flatMap(drawStyle), ...legend(TOP + STYLES.length * ROW_HEIGHT + 6)],
  })
}

const WIDTH = 872
const [TOP, ROW_HEIGHT, BOX_HEIGHT, BOX_WIDTH] = [20, 86, 46, 118]
/**
 * The x coordinate of the left edge of each party's box. Each party calls its right neighbor or sends it an
 * event.
 */
const PARTIES = { customer: 150, order: 354, billing: 544, notification: 734 } as const
const STEPS = [
  { from: 'order', to: 'billing', label: 'payment', kind: 'payment' },
  { from: 'billing', to: 'notification', label: 'notice', kind: 'announcement' },
] as const

const RESPONSES: Readonly<Record<Flow['response'], string>> = {
  outcome: 'the outcome',
  id: 'an id',
}

function drawStyle(style: InteractionStyle, row: number): string[] {
  const flow = flowOf(style)
  const top = TOP + row * ROW_HEIGHT
  const middle = top + BOX_HEIGHT / 2
  const parties = Object.entries(PARTIES).flatMap(([name, x]) => [
    box([x, top], [BOX_WIDTH, BOX_HEIGHT], name === 'customer' ? 'panel' : 'service', 8),
    words(name, { at: [x + BOX_WIDTH / 2, middle + 5], anchor: 'middle', look: 'strong' }),
  ])
  const [left, right] = [PARTIES.customer + BOX_WIDTH, PARTIES.order]
  const between = (left + right) / 2
  const steps = STEPS.flatMap(({ from, to, label, kind }) => {
    const [start, end] = [PARTIES[from] + BOX_WIDTH, PARTIES[to]]
    const isCall = flow[kind] === 'call'
    return [
      arrow({
        from: [start, middle],
        to: [end - 2, middle],
        tone: isCall ? 'call' : 'message',
        dashed: !isCall,
      }),
      words(label, { at: [(start + end) / 2, middle - 8], anchor: 'middle', look: 'soft' }),
    ]
  })
  return [
    words(style, { at: [24, middle + 5], look: 'heading' }),
    ...parties,
    arrow({ from: [left, middle - 8], to: [right - 2, middle - 8], tone: 'call' }),
    words('order', { at: [between, middle - 14], anchor: 'middle', look: 'soft' }),
    arrow({ from: [right, middle + 8], to: [left + 2, middle + 8], tone: 'quiet' }),
    words(RESPONSES[flow.response], { at: [between, middle + 24], anchor: 'middle', look: 'soft' }),
    ...steps,
  ]
}

function legend(y: number): string[] {
  const [call, event] = ['a call: the caller waits for the response', 'an event on a Kafka topic']
  const second = PARTIES.customer + 60 + codeWidth(call)
  return [
    arrow({ from: [PARTIES.customer, y], to: [PARTIES.customer + 34, y], tone: 'call' }),
    words(call, { at: [PARTIES.customer + 44, y + 4], look: 'soft' }),
    arrow({ from: [second, y], to: [second + 34, y], tone: 'message', dashed: true }),
    words(event, { at: [second + 44, y + 4], look: 'soft' }),
  ]
}

function sentenceOf(style: InteractionStyle): string {
  const flow = flowOf(style)
  const steps = STEPS.map(({ from, to, label, kind }) => {
    const means = flow[kind] === 'call' ? 'a call' : 'an event'
    return `the ${label} is ${means} from ${from} to ${to}`
  })
  return `${style}: the response to the customer's POST is ${RESPONSES[flow.response]}, ${steps.join(', ')}.`
}
