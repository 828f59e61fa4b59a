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
 * A recording of what the services actually send each other, for the pictures. The program runs as a separate
 * process, a customer uses it in each style, and the effects of each request are taken from the traces that
 * the services export. Messages are also read from the topics, to make sure that none is missing and to find
 * the name of each event in the body.
 */
export interface Recording {
  readonly style: InteractionStyle
  readonly scene: Scene
  readonly spans: readonly Span[]
  /** The event name of each message, by message id. */
  readonly events: ReadonlyMap<string, string>
  /**
   * The states of the scene's order right after the response and at the end; undefined if the scene has no
   * order.
   */
  readonly states: { readonly atOnce: string; readonly final: string } | undefined
  /** The service that was switched off until the customer had received the response. */
  readonly off: Service | undefined
}

export type Service = 'order' | 'billing' | 'notification'
export type Scene = 'deposit' | 'paid' | 'refused' | 'deleted' | 'read' | 'outage'

const LAB = { 'x-trifold-lab': 'true' }
/**
 * Long enough that even on a busy machine, no call times out and nothing is resent. Both would change the
 * recording.
 */
const LONG_TIMEOUTS = {
  CALL_TIMEOUT_MS: '30000',
  RESEND_AFTER_MS: '600000',
  DEPOSIT_RESEND_AFTER_MS: '600000',
}
const CUSTOMER_SPAN = '00f067aa0ba902b7'
const PATHS = ['orders', 'billing', 'notification']

/**
 * Records all scenes. After them, `collect` reads everything else that the documents need from the running
 * program.
 */
export async function recordScenes<Collected>(collect: (client: Client) => Promise<Collected>) {
  const collector = await startTraceCollector()
  const program = await startApart({ ...collector.environment, ...LONG_TIMEOUTS })
  try {
    const scenes: PlayedScene[] = []
    for (const style of STYLES) scenes.push(...(await playStyle(program.client, style)))
    const collected = await collect(program.client)
    // Stopping the program exports the remaining spans.
    await program.stop()
    const messages = await readMessages(program, collector.spans)
    return {
      recordings: scenes.map((scene) => toRecording(scene, collector.spans, messages)),
      collected,
    }
  } finally {
    await program.close()
    await collector.close()
  }
}

interface PlayedScene extends Pick<Recording, 'style' | 'scene' | 'states' | 'off'> {
  readonly traceId: string
}

/**
 * Plays the scenes of a style with one customer. Each scene starts when all work that the previous scene
 * caused is done.
 */
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
    await untilIdle(client)
    scenes.push({ style, scene, states, off, traceId })
  }

  /**
   * Places an order while the service `held` is stopped, and starts the service once the customer has read
   * the order.
   */
  function ordering(quantity: number, held?: Service, off?: Service) {
    return async (headers: Record<string, string>) => {
      if (held) await client.read(`/lab/services/${held}/stop`, { headers: LAB }, 'POST')
      const failed = await failedCalls(client, held)
      const { body } = await client.order(account, { style, quantity, headers })
      const id = (body as { orderId?: string }).orderId ?? String(body)
      const { state: atOnce } = await client.getOrder(account, id, 0)
      // A call to the service that is off has to fail before the service starts again, so that every
      // recording shows the failed call.
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
  // Without this, the billing service could settle the order before the customer reads it.
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

/** The number of failed calls that will be retried, over all services that make calls. */
async function failedCalls(client: Client, off: Service | undefined): Promise<number> {
  const callers = off === 'billing' ? ['orders'] : ['orders', 'billing']
  const scrapes = callers.map((path) => client.read<string>(`/${path}/actuator/prometheus`, FRESH))
  return (await Promise.all(scrapes))
    .flatMap((scrape) => valuesOf(scrape, 'trifold_outbox_failures_total', 'carrier="http"'))
    .reduce((sum, count) => sum + count, 0)
}

/**
 * Resolves when two consecutive rounds have found all outboxes empty and all topics read. A single round
 * could miss work that moves from one service to another during the round.
 */
async function untilIdle(client: Client): Promise<void> {
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

/** Reads all messages from the topics. Waits until every message that has a span is among them. */
async function readMessages(program: ProgramApart, spans: readonly Span[]): Promise<WireMessage[]> {
  const again = await program.restart()
  const bus = await again.openBus()
  const topics = await readTopics(
    bus,
    TOPICS.map(({ name }) => name),
  )
  try {
    const sent = spans.filter(({ kind }) => kind === 'producer')
    return await until(
      () => sent.every((span) => findMessage(topics.messages, span)) && topics.messages,
      { what: 'the presence of all sent messages in the topics' },
    )
  } finally {
    await topics.close()
    await bus.close()
  }
}

/**
 * Finds the message of a span. On a compacted topic, a newer message is accepted, because the original may be
 * gone.
 */
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
  const withoutSpan = own.filter(({ headers }) => !ids.has(headers.ce_id ?? ''))
  assert.deepEqual(withoutSpan, [], 'a message has no span')
  const events = new Map(
    sent.map((span) => [messageId(span), nameOf(findMessage(messages, span)!)]),
  )
  return { ...scene, spans, events }
}

/** The name of the event. Only balance events do not have their name in the body. */
const nameOf = ({ body, headers }: WireMessage) => String(body.event ?? headers.ce_type)

export const messageId = ({ attributes }: Span): string =>
  String(attributes['messaging.message.id'])
