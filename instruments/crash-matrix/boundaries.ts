import { pathToFileURL } from 'node:url'
import { getCallSites } from 'node:util'
import type { ServiceParts } from '../../chassis/service.ts'
import type { Subscription } from '../../messaging/bus.ts'
import type { Deliver } from '../../messaging/outbox/relay-calls.ts'
import type { Database, Queryable } from '../../platform/database/database.ts'
import type { Telemetry } from '../../platform/telemetry/telemetry.ts'
import { root } from '../../tools/repository-files.ts'
import { never, type ServiceName } from '../simulation/world/lives.ts'
import type { MortalLife, Planted } from '../simulation/world/world.ts'
import type { SeamMember } from './sites.ts'

/**
 * When a process dies relative to an operation on the outside world: before the operation, or after the
 * operation but before the process sees its result. While a call is in flight, its caller can also die; the
 * call itself goes on.
 */
export type Phase = 'before' | 'in flight' | 'after'

/** One occasion on which a process reached a boundary. */
export interface Crossing {
  readonly service: ServiceName
  readonly member: SeamMember
  /** The position in the code, the same as `Site.place`. */
  readonly place: string
  readonly phase: Phase
  /** For a transaction, the service function that does its work. */
  readonly of?: string | undefined
}

type Boundary = Pick<Crossing, 'member' | 'place' | 'of'>

export interface BoundariesOptions {
  /** The index of the crossing at which the process dies. */
  readonly crashAt?: number | undefined
  /** Whether a second process of that service dies when the same boundary is next reached. */
  readonly twice?: boolean | undefined
  /** How many deliveries of letters fail before they succeed. */
  readonly failingLetters?: number | undefined
}

export interface Boundaries {
  readonly planted: Required<Planted>
  readonly crossings: readonly Crossing[]
  /** How many processes have died. */
  deaths(): number
}

/** Records the boundaries in the order in which processes reach them, and ends a process at one of them. */
export function createBoundaries(options: BoundariesOptions = {}): Boundaries {
  const { crashAt, twice, failingLetters = 0 } = options
  const crossings: Crossing[] = []
  let letters = 0
  let deaths = 0

  const dies: Dies = (life, boundary, phase) => {
    if (!life.isAlive()) return false
    const crossing: Crossing = { service: life.service, ...boundary, phase }
    const number = crossings.push(crossing) - 1
    const first = crashAt === undefined ? undefined : crossings[crashAt]
    const isSecondDeath = twice && deaths === 1 && first !== undefined && isSame(first, crossing)
    if (number !== crashAt && !isSecondDeath) return false
    deaths += 1
    const what = [boundary.of, boundary.member].filter(Boolean).join(' ')
    life.crash(`planned crash of ${life.name}: ${what}, ${phase}`)
    return true
  }

  return {
    crossings,
    deaths: () => deaths,
    planted: {
      parts: (_, parts, life) => crossedParts(parts, life, dies),
      letter: (deliver, life): Deliver => {
        const carry: Deliver = (row) => {
          letters += 1
          if (letters > failingLetters) return deliver(row)
          return Promise.resolve({ kind: 'retry', error: 'the mail server is down' })
        }
        return (row) => cross({ life, dies, member: 'letter' }, () => carry(row))
      },
    },
  }
}

const isSame = (a: Crossing, b: Crossing) =>
  a.service === b.service && a.place === b.place && a.of === b.of && a.phase === b.phase

/** Ends a life if the crash is due at this crossing. If it returns true, the caller must do nothing more. */
type Dies = (life: MortalLife, boundary: Boundary, phase: Phase) => boolean

interface CrossOptions {
  readonly life: MortalLife
  readonly dies: Dies
  readonly member: SeamMember
}

/** Performs `work`, an operation on the outside world, with a crossing before and after it. */
async function cross<T>(options: CrossOptions, work: () => Promise<T>): Promise<T> {
  const { life, dies, member } = options
  const boundary = { member, place: placeOfCaller() }
  const diesAt = (phase: Phase) => dies(life, boundary, phase)
  if (diesAt('before')) return never()
  const working = work()
  if (member === 'call' && diesAt('in flight')) return never()
  try {
    const result = await working
    return diesAt('after') ? await never<T>() : result
  } catch (error) {
    if (diesAt('after')) return never()
    throw error
  }
}

function crossedParts(parts: ServiceParts, life: MortalLife, dies: Dies): ServiceParts {
  const here = <T>(member: SeamMember, work: () => Promise<T>) =>
    cross({ life, dies, member }, work)
  const { database, bus, http, telemetry } = parts
  return {
    ...parts,
    database: {
      query: <Row>(text: string, params?: readonly unknown[]) =>
        here('query', () => database.query<Row>(text, params)),
      transaction: (work) => crossedTransaction(database, life, dies, work),
      build: (statement) => database.build(statement),
      script: (text) => here('script', () => database.script(text)),
      notify: (channel) => here('notify', () => database.notify(channel)),
      listen: (channel, onNotify) => database.listen(channel, onNotify),
      close: () => database.close(),
    },
    bus: {
      send: (messages) => here('send', () => bus.send(messages)),
      subscribe: (group, topics) =>
        here('subscribe', async () =>
          crossedSubscription(await bus.subscribe(group, topics), here),
        ),
      ping: () => here('ping', () => bus.ping()),
      close: () => bus.close(),
    },
    http: (call, timeoutMs) => here('call', () => http(call, timeoutMs)),
    telemetry: readTelemetry(telemetry),
  }
}

type Here = <T>(member: SeamMember, work: () => Promise<T>) => Promise<T>

function crossedSubscription(subscription: Subscription, here: Here): Subscription {
  return {
    take: () => here('take', () => subscription.take()),
    commit: (batches) => here('commit', () => subscription.commit(batches)),
    release: (batches) => subscription.release(batches),
    lag: () => here('lag', () => subscription.lag()),
    close: () => subscription.close(),
  }
}

/**
 * Runs a transaction. The boundary is its commit; the statements before the commit have boundaries of their
 * own.
 */
async function crossedTransaction<T>(
  database: Database,
  life: MortalLife,
  dies: Dies,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  const place = placeOfCaller()
  let of: string | undefined
  let isCommitting = false
  const diesAt = (phase: Phase) => dies(life, { member: 'transaction', place, of }, phase)
  try {
    const result = await database.transaction(async (tx) => {
      const done = await work({
        query<Row>(text: string, params?: readonly unknown[]) {
          of ??= workOfCaller()
          return cross({ life, dies, member: 'query' }, () => tx.query<Row>(text, params))
        },
      })
      isCommitting = true
      return diesAt('before') ? never<T>() : done
    })
    return diesAt('after') ? await never<T>() : result
  } catch (error) {
    if (isCommitting && diesAt('after')) return never()
    throw error
  }
}

/** Reads the gauges at each scrape, as the real telemetry does, because reading some of them is a boundary. */
function readTelemetry(telemetry: Telemetry): Telemetry {
  const readings: (() => unknown)[] = []
  return {
    ...telemetry,
    gauge: (_, read) => void readings.push(read),
    async scrape() {
      await Promise.allSettled(readings.map((read) => read()))
      return telemetry.scrape()
    },
  }
}

const MAX_FRAMES = 60

/**
 * The position in the product's code of the innermost call on the stack, such as `services/order/store.ts:53:12`.
 */
function placeOfCaller(): string {
  const frame = getCallSites(MAX_FRAMES).find(({ scriptName }) => isOfCode(scriptName))
  if (frame === undefined)
    throw new Error('no code of the product is on the stack at this boundary')
  return `${frame.scriptName.slice(ROOT.length)}:${frame.lineNumber}:${frame.columnNumber}`
}

/**
 * The outermost service function on the stack, or the innermost function, which belongs to messaging, if no
 * service function is on the stack.
 */
function workOfCaller(): string | undefined {
  const frames = getCallSites(MAX_FRAMES).filter(
    ({ scriptName, functionName }) => isOfCode(scriptName) && functionName !== '',
  )
  const ofService = frames.filter(({ scriptName }) => IS_WORK.test(scriptName))
  return (ofService.at(-1) ?? frames[0])?.functionName
}

const ROOT = pathToFileURL(root).href
const IS_WORK = /\/services\/\w+\/(?!service\.ts)[\w-]+\.ts$/
const isOfCode = (scriptName: string) =>
  scriptName.startsWith(ROOT) && !/^(tests|instruments)\//.test(scriptName.slice(ROOT.length))
