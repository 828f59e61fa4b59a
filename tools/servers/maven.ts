import { createHash } from 'node:crypto'
import { access, mkdir, rename, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'

/**
 * Gets Java archives from a Maven repository over plain HTTPS, so that Java alone is enough: neither
 * Maven nor its settings are needed. What to get is a list of paths in the repository with their
 * SHA-256, and so the same bytes arrive wherever they come from. `MAVEN_REPOSITORY` names another
 * repository than Maven Central.
 */
export async function downloadJars(
  checksums: Readonly<Record<string, string>>,
  folder: string,
  say: (line: string) => void,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const missing: [string, string][] = []
  for (const [path, checksum] of Object.entries(checksums)) {
    if (!(await exists(join(folder, basename(path))))) missing.push([path, checksum])
  }
  const total = missing.length
  let done = 0
  let bytes = 0
  let saidAt = Date.now()
  const lanes = Array.from({ length: DOWNLOADS_AT_ONCE }, async () => {
    for (let next = missing.shift(); next; next = missing.shift()) {
      bytes += await download(next[0], next[1], folder)
      done += 1
      if (Date.now() - saidAt < PROGRESS_EVERY_MS && done < total) continue
      saidAt = Date.now()
      say(`downloaded ${done} of ${total} files, ${megabytes(bytes)} MB`)
    }
  })
  await Promise.all(lanes)
}

const MAVEN_CENTRAL = 'https://repo.maven.apache.org/maven2'
const DOWNLOADS_AT_ONCE = 4
const DOWNLOAD_TIMEOUT_MS = 120_000
const TRIES = 3
const PROGRESS_EVERY_MS = 1_000

/** Returns the number of bytes. A file has its name only once it is whole and is what it should be. */
async function download(path: string, checksum: string, folder: string): Promise<number> {
  const url = `${process.env.MAVEN_REPOSITORY ?? MAVEN_CENTRAL}/${path}`
  const bytes = await fetchBytes(url)
  const found = createHash('sha256').update(bytes).digest('hex')
  if (found !== checksum)
    throw new Error(`${url} is not the expected file: its SHA-256 is ${found}`)
  const target = join(folder, basename(path))
  const unfinished = `${target}.${process.pid}`
  await writeFile(unfinished, bytes)
  await rename(unfinished, target)
  return bytes.byteLength
}

async function fetchBytes(url: string): Promise<Uint8Array> {
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS) })
      if (!answer.ok) throw new Error(`HTTP status ${answer.status}`)
      return new Uint8Array(await answer.arrayBuffer())
    } catch (error) {
      if (tries < TRIES) continue
      const hint = 'Set MAVEN_REPOSITORY if another Maven repository can be reached.'
      throw new Error(`${url} cannot be downloaded. ${hint}`, { cause: error })
    }
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

const megabytes = (bytes: number) => (bytes / 1_000_000).toFixed(0)
