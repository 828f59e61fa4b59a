import type { FieldDef, PoolClient, Submittable, Connection as Wire } from 'pg'
import { type DatabaseError, inFailedTransaction } from '../database/database.ts'
import { decoderOf, encodeValue } from './values.ts'

/**
 * Pipelines the statements that are started in the same turn of the event loop: they are sent together, and
 * the server answers them together. The driver by itself would end each statement with a Sync message, after
 * which the server sends its answer and this process wakes up. In a transaction of small statements, that
 * costs more than the statements themselves.
 */
export interface Statements {
  /**
   * Runs a statement. Rejects with a DatabaseError. If one statement of a batch fails, the server skips those
   * after it.
   */
  run(text: string, params?: readonly unknown[]): Promise<Answer>
}

export interface Answer {
  readonly rows: unknown[]
  /** The command tag of the server, such as `COMMIT` or `INSERT 0 1`. */
  readonly command: string
}

export interface StatementsOptions {
  /**
   * Waits for the server's answer to a batch. If it throws a DatabaseError, the batch fails with that error.
   */
  readonly awaitAnswer: (answer: Promise<void>) => Promise<void>
  /** The current generation. Statements that were prepared in an earlier generation are prepared again. */
  readonly generation: () => number
}

/**
 * A statement that is prepared on a connection. Its result columns stay the same for as long as it is kept.
 */
interface Prepared {
  readonly name: string
  columns: readonly { readonly name: string; readonly decode: (text: string) => unknown }[]
}

type Prepare = (text: string) => { readonly prepared: Prepared; readonly isNew: boolean }

/**
 * How many statements are kept prepared. The texts are constants in the code, so this limit is never reached.
 */
const MAX_KEPT = 1_000

/** Runs statements on one connection. No other code may use the connection while a statement is in flight. */
export function createStatements(client: PoolClient, options: StatementsOptions): Statements {
  const kept = new Map<string, Prepared>()
  let generation = options.generation()
  let namesGiven = 0
  let queued: Statement[] = []
  let isSending = false

  const prepare: Prepare = (text) => {
    const known = kept.get(text)
    if (known) return { prepared: known, isNew: false }
    if (kept.size >= MAX_KEPT) return { prepared: { name: '', columns: [] }, isNew: true }
    const prepared = { name: `s${++namesGiven}`, columns: [] }
    kept.set(text, prepared)
    return { prepared, isNew: true }
  }

  async function send(): Promise<void> {
    while (queued.length > 0) {
      if (generation !== options.generation()) kept.clear()
      generation = options.generation()
      const batch = new Batch(queued, prepare)
      queued = []
      try {
        await options.awaitAnswer(batch.exchange(client))
        batch.settle()
      } catch (error) {
        for (const text of batch.fail(error as DatabaseError)) kept.delete(text)
      }
    }
    isSending = false
  }

  return {
    run: (text, params = []) =>
      new Promise((resolve, reject) => {
        queued.push(new Statement(text, params.map(encodeValue), resolve, reject))
        if (isSending) return
        isSending = true
        process.nextTick(send)
      }),
  }
}

class Statement {
  readonly text: string
  readonly values: (string | null)[]
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
  prepared: Prepared | undefined
  isNew = false
  readonly rows: (string | null)[][] = []
  command = ''

  constructor(
    text: string,
    values: (string | null)[],
    resolve: Statement['resolve'],
    reject: Statement['reject'],
  ) {
    this.text = text
    this.values = values
    this.resolve = resolve
    this.reject = reject
  }

  settle(): void {
    const { columns } = this.prepared!
    const toRow = (fields: readonly (string | null)[]) => {
      const row: Record<string, unknown> = {}
      for (const [index, { name, decode }] of columns.entries()) {
        const text = fields[index]!
        row[name] = text === null ? null : decode(text)
      }
      return row
    }
    this.resolve({ rows: this.rows.map(toRow), command: this.command })
  }
}

/**
 * The driver calls the methods of this class with the server's messages, in order, until the server is ready
 * again. The class has no `callback`, because the driver would wrap it in a closure with a timer, although
 * the watchdog already limits the time.
 */
class Batch implements Submittable {
  readonly #answer: Promise<void>
  readonly #resolve: () => void
  readonly #reject: (error: Error) => void
  readonly #statements: readonly Statement[]
  readonly #prepare: Prepare
  /** The index of the statement that the server is answering. */
  #at = 0

  constructor(statements: readonly Statement[], prepare: Prepare) {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#answer = promise
    this.#resolve = resolve
    this.#reject = reject
    this.#statements = statements
    this.#prepare = prepare
  }

  /** Resolves when the server has answered all statements; rejects with the first error. */
  async exchange(client: PoolClient): Promise<void> {
    client.query(this)
    await this.#answer
  }

  submit(wire: Wire): void {
    wire.stream.cork()
    for (const statement of this.#statements) {
      const { prepared, isNew } = this.#prepare(statement.text)
      const { name } = prepared
      statement.prepared = prepared
      statement.isNew = isNew
      if (isNew) {
        wire.parse({ name, text: statement.text, types: [] }, true)
        wire.describe({ type: 'S', name }, true)
      }
      wire.bind({ statement: name, values: statement.values }, true)
      wire.execute(null, true)
    }
    wire.sync()
    wire.stream.uncork()
  }

  handleRowDescription({ fields }: { fields: readonly FieldDef[] }): void {
    const columns = fields.map(({ name, dataTypeID }) => ({ name, decode: decoderOf(dataTypeID) }))
    this.#statements[this.#at]!.prepared!.columns = columns
  }

  handleDataRow({ fields }: { fields: (string | null)[] }): void {
    this.#statements[this.#at]!.rows.push(fields)
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#statements[this.#at]!.command = text
    this.#at += 1
  }

  handleReadyForQuery(): void {
    this.#resolve()
  }

  handleError(error: Error): void {
    this.#reject(error)
  }

  settle(): void {
    for (const statement of this.#statements) statement.settle()
  }

  /**
   * Settles the statements that succeeded before the error, and rejects the others. Returns the texts of new
   * statements for which it is unknown whether the server has prepared them.
   */
  fail(error: DatabaseError): string[] {
    // An error without a SQLSTATE comes from the connection, and leaves the outcome of every statement
    // unknown.
    const isOfStatement = error.sqlState !== undefined
    const failed = isOfStatement ? Math.min(this.#at, this.#statements.length - 1) : 0
    for (const [index, statement] of this.#statements.entries()) {
      if (index < failed) statement.settle()
      else if (index === failed || !isOfStatement) statement.reject(error)
      else
        statement.reject(
          inFailedTransaction('an earlier statement of the transaction failed', error),
        )
    }
    return this.#statements.slice(failed).flatMap(({ isNew, text }) => (isNew ? [text] : []))
  }
}
