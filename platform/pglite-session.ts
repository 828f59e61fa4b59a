import { type messages, type PGlite, protocol } from '@electric-sql/pglite'
import { DatabaseError, kindOf } from './database.ts'
import { decoderOf, encodeValue } from './pg-values.ts'

/** What a statement gave: its rows, and its command tag, such as `COMMIT` or `UPDATE 3`. */
interface Outcome {
  readonly rows: unknown[]
  readonly tag: string
}

export interface Session {
  run(text: string, params?: readonly unknown[]): Promise<Outcome>
  /** Several statements in PostgreSQL's simple protocol: one implicit transaction. */
  script(text: string): Promise<void>
  /** For whoever puts the database back to what it is now: call then what this returns. */
  remember(): () => void
}

interface Field {
  readonly name: string
  readonly decode: (text: string) => unknown
}

interface Statement {
  readonly name: string
  readonly fields: readonly Field[]
}

type Message = messages.BackendMessage

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
  const { serialize } = protocol
  const parser = new protocol.Parser()
  const statements = new Map<string, Statement>()
  let namesGiven = 0

  async function exchange(requests: readonly Uint8Array[]): Promise<Message[]> {
    const answer: Message[] = []
    await pglite.execProtocolRawStream(concat(requests), {
      syncToFs: false,
      onRawData: (bytes) => parser.parse(bytes, (message: Message) => answer.push(message)),
    })
    if (!answer.some((message) => message.name === 'readyForQuery')) {
      throw new DatabaseError('PGlite broke off its answer', 'unavailable')
    }
    return answer
  }

  function fail(answer: readonly Message[]): void {
    const failure = answer.find((message) => message.name === 'error')
    if (!failure) return
    const { code, message } = failure as messages.DatabaseError
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
    const prepare = [serialize.parse({ name, text }), serialize.describe({ type: 'S', name })]
    const values = params.map(encodeValue)
    const answer = await exchange([
      ...(known ? [] : prepare),
      serialize.bind({ statement: name, values }),
      serialize.execute(),
      serialize.sync(),
    ])
    const fields = known?.fields ?? describedFields(answer)
    if (!known && kept && fields) statements.set(text, { name, fields })
    fail(answer)
    return readOutcome(answer, fields ?? [])
  }

  return {
    run,
    async script(text) {
      fail(await exchange([serialize.query(text)]))
    },
    remember() {
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

function readOutcome(answer: readonly Message[], fields: readonly Field[]): Outcome {
  const rows: unknown[] = []
  let tag = ''
  for (const message of answer) {
    if (message.name === 'dataRow') {
      const texts = (message as messages.DataRowMessage).fields
      const row: Record<string, unknown> = {}
      for (const [at, field] of fields.entries()) {
        const text = texts[at] ?? null
        row[field.name] = text === null ? null : field.decode(text)
      }
      rows.push(row)
    } else if (message.name === 'commandComplete') {
      tag = (message as messages.CommandCompleteMessage).text
    }
  }
  return { rows, tag }
}

/** Undefined if the statement could not be prepared; empty if it returns nothing. */
function describedFields(answer: readonly Message[]): Field[] | undefined {
  if (answer.some((message) => message.name === 'noData')) return []
  const description = answer.find((message) => message.name === 'rowDescription')
  return (description as messages.RowDescriptionMessage | undefined)?.fields.map((field) => ({
    name: field.name,
    decode: decoderOf(field.dataTypeID),
  }))
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}
