import type { FieldDef, PoolClient, Submittable, Connection as Wire } from 'pg'
import { type DatabaseError, failedWithIt } from '../database/database.ts'
import { decoderOf, encodeValue } from './values.ts'

/**
 * Statements that are begun in the same turn of the event loop go to the server in one piece and are
 * answered in one. The driver on its own ends each of them with a Sync, upon which the server sends and
 * wakes us up; a transaction of small statements costs more for that than for what they do.
 */
export interface Statements {
  /** Rejects with a DatabaseError. Where one statement fails, the server passes over those after it. */
  run(text: string, params?: readonly unknown[]): Promise<Answer>
}

export interface Answer {
  readonly rows: unknown[]
  /** What the server says of it: `COMMIT`, `INSERT 0 1`. */
  readonly command: string
}

export interface StatementsOptions {
  /** Waits for the server's answer to a batch; what it throws, which is a DatabaseError, ends the batch. */
  readonly awaitAnswer: (answer: Promise<void>) => Promise<void>
  /** What was prepared in an earlier generation is prepared anew. */
  readonly generation: () => number
}

/** A statement that a connection keeps: what it returns stays the same for as long as it is kept. */
interface Prepared {
  readonly name: string
  columns: readonly { readonly name: string; readonly decode: (text: string) => unknown }[]
}

type Prepare = (text: string) => { readonly prepared: Prepared; readonly isNew: boolean }

/** Texts are constants of the code, which never come near this bound; past it they are not kept. */
const MAX_KEPT = 1_000

/** The statements of one connection, which nobody else uses meanwhile. */
export function createStatements(client: PoolClient, options: StatementsOptions): Statements {
  const kept = new Map<string, Prepared>()
  let generation = options.generation()
  let namesGiven = 0
  let begun: Statement[] = []
  let isUnderWay = false

  const prepare: Prepare = (text) => {
    const known = kept.get(text)
    if (known) return { prepared: known, isNew: false }
    if (kept.size >= MAX_KEPT) return { prepared: { name: '', columns: [] }, isNew: true }
    const prepared = { name: `s${++namesGiven}`, columns: [] }
    kept.set(text, prepared)
    return { prepared, isNew: true }
  }

  async function send(): Promise<void> {
    while (begun.length > 0) {
      if (generation !== options.generation()) kept.clear()
      generation = options.generation()
      const batch = new Batch(begun, prepare)
      begun = []
      try {
        await options.awaitAnswer(batch.exchange(client))
        batch.settle()
      } catch (error) {
        for (const text of batch.fail(error as DatabaseError)) kept.delete(text)
      }
    }
    isUnderWay = false
  }

  return {
    run: (text, params = []) =>
      new Promise((resolve, reject) => {
        begun.push(new Statement(text, params.map(encodeValue), resolve, reject))
        if (isUnderWay) return
        isUnderWay = true
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
 * What the driver calls with the messages of the server, in their order, until it is ready again. It has no
 * `callback`: the driver would put a closure with a timer around it, for a time-out that is ours already.
 */
class Batch implements Submittable {
  readonly #answer: Promise<void>
  readonly #resolve: () => void
  readonly #reject: (error: Error) => void
  readonly #statements: readonly Statement[]
  readonly #prepare: Prepare
  /** The statement whose answer comes. */
  #at = 0

  constructor(statements: readonly Statement[], prepare: Prepare) {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#answer = promise
    this.#resolve = resolve
    this.#reject = reject
    this.#statements = statements
    this.#prepare = prepare
  }

  /** Resolves when the server has answered it all, and rejects with what failed. */
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

  /** Returns the texts of which it is not known whether the server has prepared them. */
  fail(error: DatabaseError): string[] {
    // Without a code it is the connection's fault, and nothing is known of any.
    const isOfStatement = error.sqlState !== undefined
    const failed = isOfStatement ? Math.min(this.#at, this.#statements.length - 1) : 0
    for (const [index, statement] of this.#statements.entries()) {
      if (index < failed) statement.settle()
      else if (index === failed || !isOfStatement) statement.reject(error)
      else statement.reject(failedWithIt('a statement before it failed', error))
    }
    return this.#statements.slice(failed).flatMap(({ isNew, text }) => (isNew ? [text] : []))
  }
}
