import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PGlite } from '@electric-sql/pglite'

/**
 * Sees to it that the folder holds a database cluster. A crash on the way leaves none or all of it:
 * the cluster is written under another name first.
 */
export async function ensureCluster(folder: string): Promise<void> {
  if (existsSync(join(folder, 'PG_VERSION'))) return
  const fresh = `${folder}.new`
  await rm(fresh, { recursive: true, force: true })
  for (const entry of tarEntries(await freshCluster())) {
    const path = join(fresh, entry.path)
    if (entry.bytes) await writeFile(path, entry.bytes, { mode: 0o600 })
    else await mkdir(path, { recursive: true, mode: 0o700 })
  }
  await rename(fresh, folder)
}

/**
 * A fresh cluster as a tar. To make one costs two seconds of computing, so the first is kept in
 * `node_modules/.cache`, beside the PGlite that made it; where that cannot be written to, every
 * first start makes its own.
 */
export async function freshCluster(): Promise<Uint8Array<ArrayBuffer>> {
  const cacheFile = await cacheFileOfThisPglite()
  try {
    return Uint8Array.from(await readFile(cacheFile))
  } catch {
    const tar = await makeCluster()
    await keep(cacheFile, tar).catch(() => {})
    return tar
  }
}

async function makeCluster(): Promise<Uint8Array<ArrayBuffer>> {
  const pglite = await PGlite.create()
  await pglite.exec('checkpoint')
  const dump = await pglite.dumpDataDir('none')
  await pglite.close()
  return new Uint8Array(await dump.arrayBuffer())
}

async function keep(file: string, bytes: Uint8Array): Promise<void> {
  const unfinished = `${file}.${process.pid}`
  await mkdir(dirname(file), { recursive: true })
  await writeFile(unfinished, bytes)
  await rename(unfinished, file)
}

async function cacheFileOfThisPglite(): Promise<string> {
  const packageFolder = new URL('../', import.meta.resolve('@electric-sql/pglite'))
  const { version } = JSON.parse(await readFile(new URL('package.json', packageFolder), 'utf8'))
  return fileURLToPath(new URL(`../../.cache/trifold/cluster-${version}.tar`, packageFolder))
}

/** Files with their bytes and folders without, from a tar of plain names under 100 bytes. */
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
