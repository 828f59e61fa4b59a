import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type BrotliOptions, brotliDecompress } from 'node:zlib'

const decompress = promisify<Buffer, BrotliOptions, Buffer<ArrayBuffer>>(brotliDecompress)
/**
 * Larger than any image, so that decompressing returns one chunk. Joining the default chunks of 16 KB takes
 * longer than the decompression.
 */
const CHUNK_BYTES = 64 * 1024 * 1024

/**
 * Creates a database cluster in the folder, unless the folder already contains one. The cluster is written
 * under another name and then renamed, so a crash leaves either all of it or nothing.
 */
export async function ensureCluster(folder: string): Promise<void> {
  if (existsSync(join(folder, 'PG_VERSION'))) return
  const unfinished = `${folder}.new`
  rmSync(unfinished, { recursive: true, force: true })
  // The files are written synchronously, because writing a thousand small files with promises takes several
  // times as long.
  for (const entry of tarEntries(await freshCluster())) {
    const path = join(unfinished, entry.path)
    if (entry.bytes) writeFileSync(path, entry.bytes, { mode: 0o600 })
    else mkdirSync(path, { recursive: true, mode: 0o700 })
  }
  renameSync(unfinished, folder)
}

/**
 * An empty cluster, as a tar archive. It comes from an image of a cluster that initdb created, because
 * running initdb takes seconds.
 *
 * Rejects if there is no image for the installed version of PGlite.
 */
export async function freshCluster(): Promise<Uint8Array<ArrayBuffer>> {
  const image = clusterImagePath()
  if (!existsSync(image)) {
    throw new Error(`${image} is missing: after PGlite is upgraded, run npm run cluster-image`)
  }
  return await decompress(readFileSync(image), { chunkSize: CHUNK_BYTES })
}

/**
 * The path of the image for the installed version of PGlite. The version is in the file name, so that no
 * other version of PGlite uses the image.
 */
export function clusterImagePath(): string {
  const packageFile = new URL('../package.json', import.meta.resolve('@electric-sql/pglite'))
  const { version } = JSON.parse(readFileSync(packageFile, 'utf8'))
  return fileURLToPath(new URL(`./cluster-${version}.tar.br`, import.meta.url))
}

/**
 * The entries of a tar archive: files with their bytes, and folders. Only plain names of less than 100 bytes
 * are supported.
 */
function* tarEntries(tar: Uint8Array): Generator<{ path: string; bytes?: Uint8Array }> {
  const block = 512
  const text = (from: number, length: number) =>
    new TextDecoder().decode(tar.subarray(from, from + length)).replace(/\0.*$/s, '')
  yield { path: '.' }
  for (let at = 0; at < tar.length && tar[at] !== 0; ) {
    const path = text(at, 100)
    const size = Number.parseInt(text(at + 124, 12), 8) || 0
    const isFolder = text(at + 156, 1) === '5'
    const start = at + block
    yield isFolder ? { path } : { path, bytes: tar.subarray(start, start + size) }
    at = start + Math.ceil(size / block) * block
  }
}
