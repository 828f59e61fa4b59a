import Type from 'typebox'
import { operator } from '../../contracts/access.ts'
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

/** Routes for operators: read, edit and replay, or remove the dead letters of a service. */
export interface DeadLetterRoutes {
  readonly database: Database
  readonly schema: string
  readonly log: Log
  readonly replay: Replay
}

export function deadLetterRoutes(app: HttpServer, service: string, routes: DeadLetterRoutes): void {
  readOnlyDeadLetterRoutes(app, service, routes)
  replayAndRemoveRoutes(app, `/${service}/dead-letters`, routes)
}

export function readOnlyDeadLetterRoutes(
  app: HttpServer,
  service: string,
  { database, schema }: Pick<DeadLetterRoutes, 'database' | 'schema'>,
): void {
  const path = `/${service}/dead-letters`
  app.get(
    path,
    {
      config: { access: [operator('operator:read')] },
      schema: {
        operationId: 'listDeadLetters',
        summary: 'Dead letters, oldest first',
        tags: ['dead letters'],
        querystring: Page,
        response: { 200: Type.Array(DeadLetterSchema) },
      },
    },
    async (request, reply) => {
      const { deadLetters, next } = await listDeadLetters(database, schema, request.query)
      if (next !== undefined) reply.header(NEXT_CURSOR_HEADER, String(next))
      return deadLetters.map(view)
    },
  )

  app.get(
    `${path}/:id`,
    {
      config: { access: [operator('operator:read')] },
      schema: {
        operationId: 'getDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND'],
        summary: 'One dead letter',
        tags: ['dead letters'],
        params: IdParams,
        response: { 200: DeadLetterSchema },
      },
    },
    async (request) => {
      const deadLetter = await findDeadLetter(database, schema, request.params.id)
      if (deadLetter === undefined) throw new Fault('DEAD_LETTER_NOT_FOUND')
      return view(deadLetter)
    },
  )
}

function replayAndRemoveRoutes(app: HttpServer, path: string, routes: DeadLetterRoutes): void {
  const { database, schema, log, replay } = routes

  app.post(
    `${path}/:id/replay`,
    {
      config: { access: [operator('operator:write')] },
      schema: {
        operationId: 'replayDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND', 'REPLAY_FAILED'],
        responseHeaders: { 'x-replay': { type: 'string', enum: ['handled', 'queued'] } },
        summary: 'Handle it again in this service only, as it is or with another body',
        description:
          'The header x-replay says what happened. handled: it took effect. queued: a call or letter is back in the outbox; if it is rejected again, it becomes a dead letter again under this id.',
        tags: ['dead letters'],
        params: IdParams,
        body: Type.Optional(ReplaySchema),
        response: { 200: Id },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const { body, to } = request.body ?? {}
      const result = await replay(id, { body: bytesOf(body), toCurrent: to === 'current' })
      if (result.kind === 'unknown') throw new Fault('DEAD_LETTER_NOT_FOUND')
      if (result.kind === 'refused') throw new Fault('REPLAY_FAILED', { reason: result.reason })
      reply.header('x-replay', result.kind)
      return id
    },
  )

  app.delete(
    `${path}/:id`,
    {
      config: { access: [operator('operator:write')] },
      schema: {
        operationId: 'removeDeadLetter',
        problems: ['DEAD_LETTER_NOT_FOUND'],
        summary: 'Remove it permanently',
        tags: ['dead letters'],
        params: IdParams,
        response: { 200: Id },
      },
    },
    async (request) => {
      const { id } = request.params
      if (!(await removeDeadLetter(database, schema, id))) throw new Fault('DEAD_LETTER_NOT_FOUND')
      log.info({ letter: id }, 'removed a dead letter')
      return id
    },
  )
}

function bytesOf(body: ReplaySchema['body']): Uint8Array | undefined {
  if (body === undefined) return undefined
  return new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body))
}

function view(deadLetter: DeadLetter): DeadLetterView {
  const { id, source, topic, partition, offset, key, value, headers, code, reason } = deadLetter
  return {
    id,
    source,
    topic,
    partition,
    offset: String(offset),
    key,
    ...bodyOf(value),
    headers,
    code,
    reason,
    created: deadLetter.created.toISOString(),
  }
}

/** The body as text, or as base64 if it is not valid UTF-8. */
function bodyOf(bytes: Uint8Array | null): Pick<DeadLetterView, 'body' | 'encoding'> {
  if (bytes === null) return { body: null }
  try {
    return { body: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) }
  } catch {
    const characters = Array.from(bytes, (byte) => String.fromCharCode(byte))
    return { body: btoa(characters.join('')), encoding: 'base64' }
  }
}
