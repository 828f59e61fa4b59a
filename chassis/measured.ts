import { type Database, DatabaseError } from '../platform/database/database.ts'
import type { HttpClient } from '../platform/http/client.ts'
import type { Telemetry } from '../platform/telemetry/telemetry.ts'

type Observe = Pick<Telemetry, 'observe'>

/**
 * The same database, with its times reported. The outcome is `done`, the kind of the DatabaseError
 * that ended it, or `aborted`, where the work inside a transaction threw something else.
 */
export function measuredDatabase(database: Database, telemetry: Observe): Database {
  async function measured<T>(operation: 'transaction' | 'query', work: Promise<T>): Promise<T> {
    const begun = performance.now()
    const report = (outcome: string) => {
      const seconds = (performance.now() - begun) / 1000
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

/** The same client, with the times of its calls reported; the outcome `none` is a call without answer. */
export function measuredCalls(http: HttpClient, telemetry: Observe): HttpClient {
  return async (call, timeoutMs) => {
    const begun = performance.now()
    let outcome = 'none'
    try {
      const answer = await http(call, timeoutMs)
      outcome = `${Math.floor(answer.status / 100)}xx`
      return answer
    } finally {
      const seconds = (performance.now() - begun) / 1000
      telemetry.observe('trifold_http_client_seconds', seconds, { target: call.target, outcome })
    }
  }
}
