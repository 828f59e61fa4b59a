import type { PGlite } from '@electric-sql/pglite'
import { DatabaseError, kindOf } from '../database/database.ts'
import { decoderOf, encodeValue } from '../postgres/values.ts'
import { type Answer, type Column, createRequests, readAnswer } from './wire.ts'

/** The result of a statement: its rows, and its command tag, such as `COMMIT` or `UPDATE 3`. */
interface Result {
  readonly rows: unknown[]
  readonly tag: string
}

export interface Session {
  run(text: string, params?: readonly unknown[]): Promise<Result>
  /**
   * Runs statements in PostgreSQL's simple protocol. Several statements are one implicit transaction. For a
   * single statement without parameters and rows, this protocol is faster. Returns the last command tag.
   */
  script(text: string): Promise<string>
  /**
   * Returns a function that restores the current list of prepared statements. Call that function after
   * restoring PGlite's memory to its current state.
   */
  snapshotStatements(): () => void
}

interface Field {
  readonly name: string
  readonly decode: (text: string) => unknown
}

interface Statement {
  readonly name: string
  readonly fields: readonly Field[]
}

/**
 * How many statements are kept prepared. The texts are constants in the code, so this limit is never reached.
 */
const MAX_STATEMENTS = 1_000

/**
 * Uses PGlite through PostgreSQL's protocol with named prepared statements. PGlite's own `query` parses and
 * describes the text at every call, which makes a small statement three times slower.
 *
 * A statement runs to its end before the call returns, so calls never overlap. The caller has to keep other
 * work out of a transaction.
 */
export function createSession(pglite: PGlite): Session {
  const requests = createRequests()
  const statements = new Map<string, Statement>()
  let namesGiven = 0

  async function exchange(): Promise<Answer> {
    const parts: Uint8Array[] = []
    await pglite.execProtocolRawStream(requests.take(), {
      syncToFs: false,
      // The bytes are a view of PGlite's memory, which changes later, so they are copied.
      onRawData: (bytes) => parts.push(bytes.slice()),
    })
    const answer = readAnswer(Buffer.concat(parts))
    if (!answer.isComplete) {
      throw new DatabaseError('the response from PGlite is incomplete', 'unavailable')
    }
    return answer
  }

  function fail({ error }: Answer): void {
    if (!error) return
    const { code, message } = error
    // A column was added to the result of a prepared statement. The statement succeeds once it is prepared
    // again.
    if (code === '0A000' && message.startsWith('cached plan')) {
      statements.clear()
      throw new DatabaseError(message, 'conflict', code)
    }
    throw new DatabaseError(message, kindOf(code), code)
  }

  async function run(text: string, params: readonly unknown[] = []): Promise<Result> {
    const known = statements.get(text)
    const kept = known !== undefined || statements.size < MAX_STATEMENTS
    const name = known?.name ?? (kept ? `s${++namesGiven}` : '')
    const values = params.map(encodeValue)
    if (!known) requests.prepare(name, text)
    requests.execute(name, values)
    requests.sync()
    const answer = await exchange()
    const fields = known?.fields ?? answer.columns?.map(toField)
    if (!known && kept && fields) statements.set(text, { name, fields })
    fail(answer)
    return { rows: answer.rows.map((values) => toRow(values, fields ?? [])), tag: answer.tag }
  }

  return {
    run,
    async script(text) {
      requests.query(text)
      const answer = await exchange()
      fail(answer)
      return answer.tag
    },
    snapshotStatements() {
      const known = [...statements]
      const names = namesGiven
      return () => {
        statements.clear()
        for (const [text, statement] of known) statements.set(text, statement)
        namesGiven = names
      }
    },
  }
}

const toField = ({ name, typeOid }: Column): Field => ({ name, decode: decoderOf(typeOid) })

function toRow(values: readonly (string | null)[], fields: readonly Field[]): object {
  const row: Record<string, unknown> = {}
  for (let at = 0; at < fields.length; at += 1) {
    const { name, decode } = fields[at]!
    const text = values[at] ?? null
    row[name] = text === null ? null : decode(text)
  }
  return row
}
