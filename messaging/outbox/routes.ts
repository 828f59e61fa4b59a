import Type from 'typebox'
import { operator } from '../../contracts/access.ts'
import { NEXT_CURSOR_HEADER, OutboxEntry, OutboxPage } from '../../contracts/http.ts'
import type { Database } from '../../platform/database/database.ts'
import type { HttpServer } from '../../platform/http/server.ts'
import { listOutbox } from './outbox.ts'

/** Lists for operators the rows that a service still has to deliver, without their bodies and headers. */
export function outboxRoutes(
  app: HttpServer,
  service: string,
  { database, schema }: { readonly database: Database; readonly schema: string },
): void {
  app.get(
    `/${service}/outbox`,
    {
      config: { access: [operator('operator:read')] },
      schema: {
        operationId: 'listOutbox',
        summary: 'Calls, letters and messages that wait for delivery, oldest first',
        tags: ['outbox'],
        querystring: OutboxPage,
        response: { 200: Type.Array(OutboxEntry) },
      },
    },
    async (request, reply) => {
      const rows = await listOutbox(database, schema, request.query)
      const last = rows.at(-1)
      if (last && rows.length === request.query.limit) {
        reply.header(NEXT_CURSOR_HEADER, String(last.id))
      }
      return rows.map((row) => ({
        ...row,
        id: String(row.id),
        due: row.due.toISOString(),
        created: row.created.toISOString(),
      }))
    },
  )
}
