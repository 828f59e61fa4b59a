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
 * Where a process may die: before what it does to the world outside its memory is done, and after,
 * before it hears of it. A call goes on when its caller dies meanwhile, which is a third way.
 */
export type Phase = 'before' | 'in flight' | 'after'

/** One time that a process came to a boundary. */
export interface Crossing {
  readonly service: ServiceName
  readonly member: SeamMember
  /** Where in the code: the place of a site. */
  readonly place: string
  readonly phase: Phase
  /** Of a transaction: the function whose work it is. */
  readonly of?: string | undefined
}

type Boundary = Pick<Crossing, 'member' | 'place' | 'of'>

export interface BoundariesOptions {
  /** The crossing, by its number from 0, at which the process dies. */
  readonly crashAt?: number | undefined
  /** Whether a process of that service dies once more when it comes to the same boundary next. */
  readonly twice?: boolean | undefined
  /** So many letters do not get through at first. */
  readonly failingLetters?: number | undefined
}

export interface Boundaries {
  readonly planted: Required<Planted>
  readonly crossings: readonly Crossing[]
  /** How many processes have died. */
  deaths(): number
}

/** Counts the boundaries that processes come to, in the order in which they do, and lets one die. */
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
    const isAgain = twice && deaths === 1 && first !== undefined && isSame(first, crossing)
    if (number !== crashAt && !isAgain) return false
    deaths += 1
    life.crash(`${life.name} is to die ${phase} ${boundary.of ?? ''} ${boundary.member}`)
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
          return Promise.resolve({ kind: 'retry', error: 'the mail server is away' })
        }
        return (row) => cross({ life, dies, member: 'letter' }, () => carry(row))
      },
    },
  }
}

const isSame = (a: Crossing, b: Crossing) =>
  a.service === b.service && a.place === b.place && a.of === b.of && a.phase === b.phase

/** Whether a life ends here; then nothing that it does is to go on. */
type Dies = (life: MortalLife, boundary: Boundary, phase: Phase) => boolean

interface CrossOptions {
  readonly life: MortalLife
  readonly dies: Dies
  readonly member: SeamMember
}

/** Does something to the world, from the function that asked for it. */
async function cross<T>(options: CrossOptions, work: () => Promise<T>): Promise<T> {
  const { life, dies, member } = options
  const boundary = { member, place: placeOfCaller() }
  const ends = (phase: Phase) => dies(life, boundary, phase)
  if (ends('before')) return never()
  const answer = work()
  if (member === 'call' && ends('in flight')) return never()
  try {
    const result = await answer
    return ends('after') ? await never<T>() : result
  } catch (error) {
    if (ends('after')) return never()
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

/** The boundary is the commit; the statements before it are boundaries of their own. */
async function crossedTransaction<T>(
  database: Database,
  life: MortalLife,
  dies: Dies,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  const place = placeOfCaller()
  let of: string | undefined
  let isToCommit = false
  const ends = (phase: Phase) => dies(life, { member: 'transaction', place, of }, phase)
  try {
    const result = await database.transaction(async (tx) => {
      const done = await work({
        query<Row>(text: string, params?: readonly unknown[]) {
          of ??= workOfCaller()
          return cross({ life, dies, member: 'query' }, () => tx.query<Row>(text, params))
        },
      })
      isToCommit = true
      return ends('before') ? never<T>() : done
    })
    return ends('after') ? await never<T>() : result
  } catch (error) {
    if (isToCommit && ends('after')) return never()
    throw error
  }
}

/** Gauges that are read at each scrape, as the real telemetry reads them. */
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

/** Where in the code the member of a seam was called. */
function placeOfCaller(): string {
  const frame = getCallSites(MAX_FRAMES).find(({ scriptName }) => isOfCode(scriptName))
  if (frame === undefined) throw new Error('a boundary was crossed by nobody')
  return `${frame.scriptName.slice(ROOT.length)}:${frame.lineNumber}:${frame.columnNumber}`
}

/** The outermost function of the service whose work this is; where it is messaging's, its own. */
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
  scriptName.startsWith(ROOT) && !/\/(tests|instruments)\//.test(scriptName)
