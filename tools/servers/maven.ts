import { createHash } from 'node:crypto'
import { access, mkdir, rename, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'

/**
 * Downloads JAR files from a Maven repository over plain HTTPS, so that Java is enough and Maven is not needed.
 * `checksums` maps paths in the repository to SHA-256 hashes, which guarantee the same bytes from any repository.
 * `MAVEN_REPOSITORY` names a repository to use instead of Maven Central.
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
  let reportedMs = Date.now()
  const workers = Array.from({ length: CONCURRENT_DOWNLOADS }, async () => {
    for (let next = missing.shift(); next; next = missing.shift()) {
      bytes += await download(next[0], next[1], folder)
      done += 1
      if (Date.now() - reportedMs < PROGRESS_PERIOD_MS && done < total) continue
      reportedMs = Date.now()
      say(`downloaded ${done} of ${total} files, ${megabytes(bytes)} MB`)
    }
  })
  await Promise.all(workers)
}

const MAVEN_CENTRAL = 'https://repo.maven.apache.org/maven2'
const CONCURRENT_DOWNLOADS = 4
const DOWNLOAD_TIMEOUT_MS = 120_000
const MAX_ATTEMPTS = 3
const PROGRESS_PERIOD_MS = 1_000

/**
 * Downloads one file and returns its size in bytes. The file gets its final name only when it is complete and
 * its hash matches.
 */
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
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS) })
      if (!response.ok) throw new Error(`HTTP status ${response.status}`)
      return new Uint8Array(await response.arrayBuffer())
    } catch (error) {
      if (attempt < MAX_ATTEMPTS) continue
      const hint = 'To use another Maven repository, set MAVEN_REPOSITORY.'
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
