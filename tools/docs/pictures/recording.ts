import assert from 'node:assert/strict'
import { flowOf, type InteractionStyle, STYLES } from '../../../contracts/style.ts'
import { TOPICS } from '../../../messaging/topics.ts'
import { until } from '../../../platform/async/until.ts'
import { type Client, eventually, FRESH } from '../../../tests/e2e/client.ts'
import { valuesOf } from '../../../tests/e2e/invariants.ts'
import { type ProgramApart, startApart } from '../../../tests/e2e/program.ts'
import { type Span, startTraceCollector } from '../../../tests/e2e/trace-collector.ts'
import { readTopics, type WireMessage } from '../../../tests/support/harness.ts'

/**
 * What really goes between the services, for the pictures: the program runs as a process, a customer
 * uses it in each style, and whatever follows from each of his requests is taken down as the trace
 * that the services themselves send. The messages are read from the topics besides, so that none is
 * missed and each has the name that its body gives it.
 */
export interface Recording {
  readonly style: InteractionStyle
  readonly scene: Scene
  readonly spans: readonly Span[]
  /** The name of the event of each message, by its id. */
  readonly events: ReadonlyMap<string, string>
  /** Of the order that the scene is about, if any: right after the answer, and at the end. */
  readonly states: { readonly atOnce: string; readonly final: string } | undefined
  /** The service that was off until the customer had his answer. */
  readonly off: Service | undefined
}

export type Service = 'order' | 'billing' | 'notification'
export type Scene = 'deposit' | 'paid' | 'refused' | 'deleted' | 'read' | 'outage'

const LAB = { 'x-trifold-lab': 'true' }
/** On a busy machine nothing is given up or asked for again: that would be another story. */
const PATIENT = {
  CALL_TIMEOUT_MS: '30000',
  RESEND_AFTER_MS: '600000',
  DEPOSIT_RESEND_AFTER_MS: '600000',
}
const CUSTOMER_SPAN = '00f067aa0ba902b7'
const PATHS = ['orders', 'billing', 'notification']

/** `look` sees the program while it runs, after the scenes: whatever else the documents want of it. */
export async function recordScenes<Seen>(look: (client: Client) => Promise<Seen>) {
  const collector = await startTraceCollector()
  const program = await startApart({ ...collector.environment, ...PATIENT })
  try {
    const scenes: PlayedScene[] = []
    for (const style of STYLES) scenes.push(...(await playStyle(program.client, style)))
    const seen = await look(program.client)
    // What has not been sent of the traces is sent at the end.
    await program.stop()
    const messages = await readMessages(program, collector.spans)
    return {
      recordings: scenes.map((scene) => toRecording(scene, collector.spans, messages)),
      seen,
    }
  } finally {
    await program.close()
    await collector.close()
  }
}

interface PlayedScene extends Pick<Recording, 'style' | 'scene' | 'states' | 'off'> {
  readonly traceId: string
}

/** One customer, one request after the other; each is over before the next begins. */
async function playStyle(client: Client, style: InteractionStyle): Promise<PlayedScene[]> {
  const scenes: PlayedScene[] = []
  const account = await client.createAccount()
  const json = { email: 'ann@shop.example' }
  await client.read(`/notification/contact/${account}`, { json }, 'PUT')

  async function play(
    scene: Scene,
    act: (headers: Record<string, string>) => Promise<Pick<PlayedScene, 'states'>>,
    off?: Service,
  ): Promise<void> {
    const traceId = crypto.randomUUID().replaceAll('-', '')
    const { states } = await act({ traceparent: `00-${traceId}-${CUSTOMER_SPAN}-01` })
    await allIsQuiet(client)
    scenes.push({ style, scene, states, off, traceId })
  }

  /** Whoever is held serves on when the customer has looked at his order. */
  function ordering(quantity: number, held?: Service, off?: Service) {
    return async (headers: Record<string, string>) => {
      if (held) await client.read(`/lab/services/${held}/stop`, { headers: LAB }, 'POST')
      const failed = await failedCalls(client, held)
      const { body } = await client.order(account, { style, quantity, headers })
      const id = (body as { orderId?: string }).orderId ?? String(body)
      const { state: atOnce } = await client.getOrder(account, id, 0)
      // Whoever needs what is off has tried in vain before it is back, so that this always shows.
      if (off) await eventually(async () => assert.ok((await failedCalls(client, off)) > failed))
      if (held) await client.read(`/lab/services/${held}/start`, { headers: LAB }, 'POST')
      const { state: final } = await client.getOrder(account, id)
      return { id, states: { atOnce, final } }
    }
  }

  const bare = async (call: Promise<unknown>) => {
    await call
    return { states: undefined }
  }
  const { response, announcement, payment } = flowOf(style)
  // Billing could settle the order before the customer reads it: so it is held until then.
  const held = response === 'id' ? 'billing' : undefined
  let paidId = ''
  const deposit = `/billing/account/${account}?amount=199`
  await play('deposit', (headers) => bare(client.read(deposit, { style, headers }, 'POST')))
  await play('paid', async (headers) => {
    const { id, states } = await ordering(3, held)(headers)
    paidId = id
    return { states }
  })
  await play('refused', ordering(3, held))
  const order = `/orders/${paidId}?profileId=${account}`
  await play('deleted', (headers) => bare(client.read(order, { headers }, 'DELETE')))
  const messages = `/notification/account/${account}`
  await play('read', (headers) => bare(client.read(messages, { headers })))
  if (payment === 'event') return scenes
  const off = announcement === 'call' ? 'notification' : 'billing'
  await play('outage', ordering(1, off, off), off)
  return scenes
}

/** Calls that failed and will be repeated, of all who make any. */
async function failedCalls(client: Client, off: Service | undefined): Promise<number> {
  const callers = off === 'billing' ? ['orders'] : ['orders', 'billing']
  const scrapes = callers.map((path) => client.read<string>(`/${path}/actuator/prometheus`, FRESH))
  return (await Promise.all(scrapes))
    .flatMap((scrape) => valuesOf(scrape, 'trifold_outbox_failures_total', 'carrier="http"'))
    .reduce((sum, count) => sum + count, 0)
}

/** Nothing waits in an outbox or a topic, seen twice: what left one service is at none of the others. */
async function allIsQuiet(client: Client): Promise<void> {
  let quiet = 0
  await eventually(async () => {
    for (const path of PATHS) {
      const scrape = await client.read<string>(`/${path}/actuator/prometheus`, FRESH)
      const waiting = ['trifold_outbox_rows', 'trifold_consumer_lag_messages']
        .flatMap((name) => valuesOf(scrape, name))
        .filter((count) => count > 0)
      quiet = waiting.length > 0 ? 0 : quiet + 1
    }
    assert.ok(quiet >= 2 * PATHS.length)
  })
}

/** Every message of the topics, once each of those that the spans tell of is among them. */
async function readMessages(program: ProgramApart, spans: readonly Span[]): Promise<WireMessage[]> {
  const again = await program.startAgain()
  const bus = await again.openBus()
  const topics = await readTopics(
    bus,
    TOPICS.map(({ name }) => name),
  )
  try {
    const sent = spans.filter(({ kind }) => kind === 'producer')
    return await until(
      () => sent.every((span) => findMessage(topics.messages, span)) && topics.messages,
      { what: 'that the topics hold what was sent' },
    )
  } finally {
    await topics.close()
    await bus.close()
  }
}

/** Of a compacted topic a newer message will do: the one that was sent may have made way for it. */
function findMessage(messages: readonly WireMessage[], span: Span): WireMessage | undefined {
  const topic = TOPICS.find(({ name }) => name === span.attributes['messaging.destination.name'])
  return (
    messages.find(({ headers }) => headers.ce_id === messageId(span)) ??
    (topic?.compacted ? messages.findLast((message) => message.topic === topic.name) : undefined)
  )
}

function toRecording(
  { traceId, ...scene }: PlayedScene,
  all: readonly Span[],
  messages: readonly WireMessage[],
): Recording {
  const spans = all.filter((span) => span.traceId === traceId)
  const sent = spans.filter(({ kind }) => kind === 'producer')
  const ids = new Set(sent.map(messageId))
  const own = messages.filter(({ headers }) => headers.traceparent?.split('-')[1] === traceId)
  const untold = own.filter(({ headers }) => !ids.has(headers.ce_id ?? ''))
  assert.deepEqual(untold, [], 'a message is in no span')
  const events = new Map(
    sent.map((span) => [messageId(span), nameOf(findMessage(messages, span)!)]),
  )
  return { ...scene, spans, events }
}

/** A balance is the one message whose body does not say what it is. */
const nameOf = ({ body, headers }: WireMessage) => String(body.event ?? headers.ce_type)

export const messageId = ({ attributes }: Span): string =>
  String(attributes['messaging.message.id'])
