import { type Database, DatabaseError } from '../platform/database/database.ts'
import type { HttpClient } from '../platform/http/client.ts'
import type { Telemetry } from '../platform/telemetry/telemetry.ts'

type Observe = Pick<Telemetry, 'observe'>

/**
 * Wraps a database so that it reports the duration of each query and transaction. The outcome label is
 * `done`, or the kind of the DatabaseError that ended the operation, or `aborted` if the work inside a
 * transaction threw another error.
 */
export function measuredDatabase(database: Database, telemetry: Observe): Database {
  async function measured<T>(operation: 'transaction' | 'query', work: Promise<T>): Promise<T> {
    const startedMs = performance.now()
    const report = (outcome: string) => {
      const seconds = (performance.now() - startedMs) / 1000
      telemetry.observe('trifold_database_seconds', seconds, { operation, outcome })
    }
    try {
      const result = await work
      report('done')
      return result
    } catch (error) {
      report(error instanceof DatabaseError ? error.kind : 'aborted')
      throw error
    }
  }

  return {
    ...database,
    query: <Row>(text: string, params?: readonly unknown[]) =>
      measured('query', database.query<Row>(text, params)),
    transaction: (work) => measured('transaction', database.transaction(work)),
  }
}

/**
 * Wraps an HTTP client so that it reports the duration of each call. The outcome label is the status class,
 * such as `2xx`, or `none` if there was no response.
 */
export function measuredCalls(http: HttpClient, telemetry: Observe): HttpClient {
  return async (call, timeoutMs) => {
    const startedMs = performance.now()
    let outcome = 'none'
    try {
      const response = await http(call, timeoutMs)
      outcome = `${Math.floor(response.status / 100)}xx`
      return response
    } finally {
      const seconds = (performance.now() - startedMs) / 1000
      telemetry.observe('trifold_http_client_seconds', seconds, { target: call.target, outcome })
    }
  }
}
