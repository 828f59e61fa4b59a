/**
 * The part of PostgreSQL's protocol that an embedded database needs: named statements, with parameters and
 * results as text. The code is written for speed, because within a process, the protocol costs as much as a
 * small statement itself. Source: PostgreSQL's manual, "Message Formats".
 */

const FIRST_LENGTH = 16 * 1024

/** Writes requests one after another into a buffer that is reused. */
export function createRequests() {
  let bytes = Buffer.alloc(FIRST_LENGTH)
  let end = 0

  function reserve(length: number): void {
    if (end + length <= bytes.length) return
    const wider = Buffer.alloc(2 * (end + length))
    wider.set(bytes.subarray(0, end))
    bytes = wider
  }

  /** Starts a message. Returns the position of the message's length field, for `finish`. */
  function begin(type: string): number {
    reserve(5)
    bytes[end] = type.charCodeAt(0)
    end += 5
    return end - 4
  }

  function finish(start: number): void {
    bytes.writeInt32BE(end - start, start)
  }

  function int16(value: number): void {
    reserve(2)
    end = bytes.writeInt16BE(value, end)
  }

  function int32(value: number): void {
    reserve(4)
    end = bytes.writeInt32BE(value, end)
  }

  function text(value: string): void {
    // A UTF-16 code unit becomes at most three bytes of UTF-8.
    reserve(3 * value.length)
    end += bytes.write(value, end)
  }

  function string(value: string): void {
    text(value)
    reserve(1)
    bytes[end] = 0
    end += 1
  }

  function parameter(value: string | null): void {
    if (value === null) return int32(-1)
    const start = end
    int32(0)
    text(value)
    bytes.writeInt32BE(end - start - 4, start)
  }

  return {
    /** Returns the bytes written since the last call. They are valid until the next write. */
    take(): Uint8Array {
      const written = bytes.subarray(0, end)
      end = 0
      return written
    },
    /** Writes statements without parameters, in the simple protocol. */
    query(script: string): void {
      const start = begin('Q')
      string(script)
      finish(start)
    },
    prepare(name: string, statement: string): void {
      const parse = begin('P')
      string(name)
      string(statement)
      int16(0)
      finish(parse)
      const describe = begin('D')
      text('S')
      string(name)
      finish(describe)
    },
    execute(name: string, parameters: readonly (string | null)[]): void {
      const bind = begin('B')
      string('')
      string(name)
      int16(0)
      int16(parameters.length)
      for (const one of parameters) parameter(one)
      int16(0)
      finish(bind)
      const execute = begin('E')
      string('')
      int32(0)
      finish(execute)
    },
    sync(): void {
      finish(begin('S'))
    },
  }
}

export interface Answer {
  /** The columns of the result. Undefined if no statement was described; empty if the statement returns no rows. */
  readonly columns: readonly Column[] | undefined
  /** The values of each row. */
  readonly rows: readonly (readonly (string | null)[])[]
  /** The tag of the last command, such as `COMMIT` or `UPDATE 3`. */
  readonly tag: string
  readonly error: { readonly code: string; readonly message: string } | undefined
  /** Whether the response ends with the server's message that it is ready for the next query. */
  readonly isComplete: boolean
}

export interface Column {
  readonly name: string
  readonly typeOid: number
}

/** Reads all messages of a response. Messages about progress and warnings are skipped. */
export function readAnswer(bytes: Buffer): Answer {
  const rows: (string | null)[][] = []
  let columns: Column[] | undefined
  let tag = ''
  let error: Answer['error']
  let isComplete = false
  for (let at = 0; at < bytes.length; ) {
    const type = String.fromCharCode(bytes[at]!)
    const body = at + 5
    at += 1 + bytes.readInt32BE(at + 1)
    switch (type) {
      case 'D':
        rows.push(readRow(bytes, body))
        break
      case 'T':
        columns = readColumns(bytes, body)
        break
      case 'n':
        columns = []
        break
      case 'C':
        tag = bytes.toString('utf8', body, at - 1)
        break
      case 'E':
        error = readError(bytes, body)
        break
      case 'Z':
        isComplete = true
        break
      default:
    }
  }
  return { columns, rows, tag, error, isComplete }
}

function readRow(bytes: Buffer, start: number): (string | null)[] {
  const values = new Array<string | null>(bytes.readInt16BE(start))
  let at = start + 2
  for (let n = 0; n < values.length; n += 1) {
    const length = bytes.readInt32BE(at)
    at += 4
    values[n] = length < 0 ? null : bytes.toString('utf8', at, at + length)
    at += Math.max(0, length)
  }
  return values
}

/** A column is described by its name, its table (6 bytes), its type, and its size and format (8 bytes). */
function readColumns(bytes: Buffer, start: number): Column[] {
  const columns: Column[] = []
  let at = start + 2
  for (let left = bytes.readInt16BE(start); left > 0; left -= 1) {
    const end = bytes.indexOf(0, at)
    columns.push({ name: bytes.toString('utf8', at, end), typeOid: bytes.readInt32BE(end + 7) })
    at = end + 19
  }
  return columns
}

/** An error consists of fields, each a letter and a string: `C` is the SQLSTATE, and `M` is the message. */
function readError(bytes: Buffer, start: number): { code: string; message: string } {
  const fields = new Map<string, string>()
  for (let at = start; bytes[at] !== 0; ) {
    const end = bytes.indexOf(0, at)
    fields.set(String.fromCharCode(bytes[at]!), bytes.toString('utf8', at + 1, end))
    at = end + 1
  }
  return { code: fields.get('C') ?? '', message: fields.get('M') ?? '' }
}
