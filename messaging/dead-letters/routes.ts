import Type from 'typebox'
import {
  DeadLetter as DeadLetterSchema,
  type DeadLetterView,
  Id,
  IdParams,
  NEXT_CURSOR_HEADER,
  Page,
  Replay as ReplaySchema,
} from '../../contracts/http.ts'
import { Fault } from '../../contracts/problems.ts'
import type { Log } from '../../platform/async/runtime.ts'
import type { Database } from '../../platform/database/database.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import {
  type DeadLetter,
  findDeadLetter,
  listDeadLetters,
  removeDeadLetter,
} from './dead-letters.ts'
import type { Replay } from './replay.ts'

/** HTTP in, for operators: what a service set aside, to be read, mended and replayed, or removed. */
export interface DeadLetterRoutes {
  readonly database: Database
  readonly schema: string
  readonly log: Log
  readonly replay: Replay
}

export function deadLetterRoutes(app: HttpServer, service: string, routes: DeadLetterRoutes): void {
  deadLetterReadingRoutes(app, service, routes)
  changingRoutes(app, `/${service}/dead-letters`, routes)
}

export function deadLetterReadingRoutes(
  app: HttpServer,
  service: string,
  { database, schema }: Pick<DeadLetterRoutes, 'database' | 'schema'>,
): void {
  const path = `/${service}/dead-letters`
  app.get(
    path,
    {
      schema: {
        operationId: 'listDeadLetters',
        summary: 'Messages that were set aside, oldest first',
        tags: ['dead letters'],
        querystring: Page,
        response: { 200: Type.Array(DeadLetterSchema) },
      },
    },
    async (request, reply) => {
      const { letters, next } = await listDeadLetters(database, schema, request.query)
      if (next !== undefined) reply.header(NEXT_CURSOR_HEADER, String(next))
      return letters.map(view)
    },
  )

  app.get(
    `${path}/:id`,
    {
      schema: {
        operationId: 'getDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND'],
        summary: 'One message that was set aside',
        tags: ['dead letters'],
        params: IdParams,
        response: { 200: DeadLetterSchema },
      },
    },
    async (request) => {
      const letter = await findDeadLetter(database, schema, request.params.id)
      if (letter === undefined) throw new Fault('DEAD_LETTER_NOT_FOUND')
      return view(letter)
    },
  )
}

function changingRoutes(app: HttpServer, path: string, routes: DeadLetterRoutes): void {
  const { database, schema, log, replay } = routes

  app.post(
    `${path}/:id/replay`,
    {
      schema: {
        operationId: 'replayDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND', 'REPLAY_FAILED'],
        responseHeaders: { 'x-replay': { type: 'string', enum: ['handled', 'queued'] } },
        summary: 'Handle it again, here alone, as it is or with another body',
        description:
          'The header x-replay says what happened. handled: it took effect. queued: a call or letter is back in the outbox; if it is rejected again, it returns to the dead letters under this id.',
        tags: ['dead letters'],
        params: IdParams,
        body: Type.Optional(ReplaySchema),
        response: { 200: Id },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const { body, to } = request.body ?? {}
      const replayed = await replay(id, { body: bytesOf(body), toCurrent: to === 'current' })
      if (replayed.kind === 'unknown') throw new Fault('DEAD_LETTER_NOT_FOUND')
      const { kind } = replayed
      if (kind === 'refused') throw new Fault('REPLAY_FAILED', { reason: replayed.reason })
      reply.header('x-replay', kind)
      return id
    },
  )

  app.delete(
    `${path}/:id`,
    {
      schema: {
        operationId: 'removeDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND'],
        summary: 'Remove it for good',
        tags: ['dead letters'],
        params: IdParams,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { id } = request.params
      if (!(await removeDeadLetter(database, schema, id))) throw new Fault('DEAD_LETTER_NOT_FOUND')
      log.info({ letter: id }, 'a dead letter was removed')
      return id
    },
  )
}

function bytesOf(body: ReplaySchema['body']): Uint8Array | undefined {
  if (body === undefined) return undefined
  return new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body))
}

function view(letter: DeadLetter): DeadLetterView {
  const { id, source, topic, partition, offset, key, value, headers, code, reason } = letter
  return {
    ...{ id, source, topic, partition, offset: String(offset), key, ...shown(value) },
    ...{ headers, code, reason, created: letter.created.toISOString() },
  }
}

function shown(bytes: Uint8Array | null): Pick<DeadLetterView, 'body' | 'encoding'> {
  if (bytes === null) return { body: null }
  try {
    return { body: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) }
  } catch {
    const characters = Array.from(bytes, (byte) => String.fromCharCode(byte))
    return { body: btoa(characters.join('')), encoding: 'base64' }
  }
}
