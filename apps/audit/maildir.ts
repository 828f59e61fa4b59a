import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Letter } from './findings.ts'

/** Much more than the header of any letter that this program writes. */
const MAX_HEADER_BYTES = 16_384

/** The letters in a Maildir, both new and read. Empty if the folder does not exist. */
export async function lettersIn(maildir: string): Promise<Letter[]> {
  const letters: Letter[] = []
  // Mail readers move letters from `new` to `cur`, so when `cur` is read first, no letter is found twice.
  for (const folder of ['cur', 'new'].map((name) => join(maildir, name))) {
    for (const name of await readdir(folder).catch(orAbsent([]))) {
      const text = await headerOf(join(folder, name)).catch(orAbsent(''))
      const messageId = field(text, 'message-id')
      if (messageId) letters.push({ messageId, recipient: field(text, 'to') ?? '' })
    }
  }
  return letters
}

async function headerOf(path: string): Promise<string> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(MAX_HEADER_BYTES) })
    const [header = ''] = buffer.toString('utf8', 0, bytesRead).split(/\r?\n\r?\n/, 1)
    return header.replace(/\r?\n[ \t]+/g, ' ')
  } finally {
    await file.close()
  }
}

const field = (header: string, name: string) =>
  new RegExp(`^${name}:(.*)$`, 'im').exec(header)?.[1]?.trim()

const orAbsent =
  <T>(absent: T) =>
  (error: NodeJS.ErrnoException): T => {
    if (error.code === 'ENOENT') return absent
    throw error
  }
