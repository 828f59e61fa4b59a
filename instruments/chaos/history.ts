import { createWriteStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Attempt, Operation } from '../simulation/world/customers.ts'

/** A file with one line of JSON for each attempt, in the order in which attempts ended. */
export interface History {
  note(operation: Operation, attempt: Attempt): void
  close(): Promise<void>
}

interface Line extends Omit<Operation, 'attempts'>, Attempt {
  /** Attempts of the same operation share its number. */
  readonly operation: number
}

export function openHistory(file: string): History {
  const out = createWriteStream(file)
  const numbers = new Map<Operation, number>()
  return {
    note(operation, attempt) {
      const number = numbers.get(operation) ?? numbers.size + 1
      numbers.set(operation, number)
      const { attempts: _, ...rest } = operation
      const line: Line = { operation: number, ...rest, ...attempt }
      out.write(`${JSON.stringify(line)}\n`)
    },
    close: () =>
      new Promise((resolve, reject) => {
        out.once('error', reject)
        out.end(resolve)
      }),
  }
}

export async function readHistory(file: string): Promise<Operation[]> {
  const operations = new Map<number, Operation>()
  for (const text of (await readFile(file, 'utf8')).split('\n')) {
    if (text === '') continue
    const { operation: number, sentMs, doneMs, response, ...rest } = JSON.parse(text) as Line
    const operation = operations.get(number) ?? { ...rest, attempts: [] }
    operations.set(number, operation)
    operation.attempts.push({ sentMs, doneMs, ...(response && { response }) })
  }
  return [...operations.values()]
}
