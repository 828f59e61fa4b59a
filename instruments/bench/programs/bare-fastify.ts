import fastify from 'fastify'
import { systemRuntime } from '../../../platform/async/runtime.ts'
import { openPostgres } from '../../../platform/postgres/postgres.ts'
import { runTasks } from '../measured-process.ts'
import { recordOrder } from './recording.ts'
import { newOrder, replay } from './replay.ts'

/**
 * The obvious implementation: a Fastify app that executes, for each POST /orders, the statements of the order service
 * in a transaction of its own, and responds with the id.
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

runTasks(listen)
