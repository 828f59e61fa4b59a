import fastify from 'fastify'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { openPostgres } from '../../../platform/postgres/postgres.ts'
import { answerTasks } from '../measured-process.ts'
import { recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

/**
 * What one would write without much thought: a Fastify app that takes POST /orders, writes what order
 * writes for it in a transaction of its own, and answers the id.
 */
export interface BareAppTask {
  readonly databaseUrl: string
  readonly connections: number
}

async function listen({ databaseUrl, connections }: BareAppTask): Promise<string> {
  const recording = await recordOrder('events')
  const [placing] = recording.transactions
  const database = await openPostgres({ url: databaseUrl, maxConnections: connections })
  const app = fastify()
  app.post<{ Querystring: { profileId: string } }>('/orders', async (request, reply) => {
    const order = newOrder(recording, request.query.profileId, systemRuntime.uuid)
    await database.transaction((tx) => replay(tx, placing!, recording, order))
    return reply.code(201).type('application/json').send(JSON.stringify(order.ids[0]))
  })
  return await app.listen({ port: 0, host: '127.0.0.1' })
}

answerTasks(listen)
