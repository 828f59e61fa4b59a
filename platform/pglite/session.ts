import type { PGlite } from '@electric-sql/pglite'
import { DatabaseError, kindOf } from '../database/database.ts'
import { decoderOf, encodeValue } from '../postgres/values.ts'
import { type Answer, type Column, createRequests, readAnswer } from './wire.ts'

/** What a statement gave: its rows, and its command tag, such as `COMMIT` or `UPDATE 3`. */
interface Outcome {
  readonly rows: unknown[]
  readonly tag: string
}

export interface Session {
  run(text: string, params?: readonly unknown[]): Promise<Outcome>
  /**
   * Several statements in PostgreSQL's simple protocol, which are one implicit transaction, or one
   * that neither takes nor returns anything: for those it is the quicker way. Returns the last tag.
   */
  script(text: string): Promise<string>
  /** For whoever puts the database back to what it is now: call then what this returns. */
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

/** Past this many texts, which constants of the code never reach, statements are not kept. */
const maxStatements = 1_000

/**
 * Speaks PostgreSQL's protocol to PGlite with named prepared statements. Its own `query` parses and
 * describes the text anew at every call, which makes a small statement three times slower.
 *
 * A statement runs to its end within the call, before its promise settles, so that calls never
 * overlap; to keep other work out of a transaction is the caller's part.
 */
export function createSession(pglite: PGlite): Session {
  const requests = createRequests()
  const statements = new Map<string, Statement>()
  let namesGiven = 0

  async function exchange(): Promise<Answer> {
    const parts: Uint8Array[] = []
    await pglite.execProtocolRawStream(requests.take(), {
      syncToFs: false,
      // The bytes are PGlite's memory, which goes on to change.
      onRawData: (bytes) => parts.push(bytes.slice()),
    })
    const answer = readAnswer(Buffer.concat(parts))
    if (!answer.isWhole) throw new DatabaseError('PGlite broke off its answer', 'unavailable')
    return answer
  }

  function fail({ error }: Answer): void {
    if (!error) return
    const { code, message } = error
    // A column was added to what a kept statement returns. Prepared anew, it will succeed.
    if (code === '0A000' && message.startsWith('cached plan')) {
      statements.clear()
      throw new DatabaseError(message, 'conflict', code)
    }
    throw new DatabaseError(message, kindOf(code), code)
  }

  async function run(text: string, params: readonly unknown[] = []): Promise<Outcome> {
    const known = statements.get(text)
    const kept = known !== undefined || statements.size < maxStatements
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
