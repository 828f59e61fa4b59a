import { createWriteStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Attempt, Deed } from '../simulation/world/customers.ts'

/** A file with one line of JSON for each attempt, in the sequence in which they ended. */
export interface History {
  note(deed: Deed, attempt: Attempt): void
  close(): Promise<void>
}

interface Line extends Omit<Deed, 'attempts'>, Attempt {
  /** The same number: the same wish, tried again. */
  readonly deed: number
}

export function openHistory(file: string): History {
  const out = createWriteStream(file)
  const numbers = new Map<Deed, number>()
  return {
    note(deed, attempt) {
      const number = numbers.get(deed) ?? numbers.size + 1
      numbers.set(deed, number)
      const { attempts: _, ...rest } = deed
      const line: Line = { deed: number, ...rest, ...attempt }
      out.write(`${JSON.stringify(line)}\n`)
    },
    close: () =>
      new Promise((resolve, reject) => {
        out.once('error', reject)
        out.end(resolve)
      }),
  }
}

export async function readHistory(file: string): Promise<Deed[]> {
  const deeds = new Map<number, Deed>()
  for (const text of (await readFile(file, 'utf8')).split('\n')) {
    if (text === '') continue
    const { deed: number, sentMs, answeredMs, answer, ...rest } = JSON.parse(text) as Line
    const deed = deeds.get(number) ?? { ...rest, attempts: [] }
    deeds.set(number, deed)
    deed.attempts.push({ sentMs, answeredMs, ...(answer && { answer }) })
  }
  return [...deeds.values()]
}
