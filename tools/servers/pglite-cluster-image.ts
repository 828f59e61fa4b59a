import { globSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { brotliCompressSync, constants } from 'node:zlib'
import { PGlite } from '@electric-sql/pglite'
import { clusterImagePath } from '../../platform/pglite/cluster.ts'
import { root } from '../repository-files.ts'

/**
 * Runs initdb in the installed version of PGlite and writes the cluster image that a first start loads. Run
 * this after upgrading PGlite. It takes about a minute, most of it for compression.
 */
async function makeClusterImage(): Promise<Uint8Array> {
  // The write-ahead log of initdb would be two thirds of the image. PostgreSQL deletes the log segment if
  // recycling is off.
  const startParams = [...PGlite.defaultStartParams, '-c', 'wal_recycle=off']
  const pglite = await PGlite.create({ startParams })
  await pglite.exec('select pg_switch_wal(); checkpoint')
  const tar = await pglite.dumpDataDir('none')
  await pglite.close()
  return new Uint8Array(await tar.arrayBuffer())
}

const tar = await makeClusterImage()
const image = brotliCompressSync(tar, {
  params: {
    [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
    // The compression window is wide enough to cover the three databases of a cluster, which are copies of
    // one another.
    [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
  },
})
for (const old of globSync(join(root, 'platform', 'pglite', 'cluster-*.tar.br'))) rmSync(old)
writeFileSync(clusterImagePath(), image)
console.log(`${relative(root, clusterImagePath())} written: ${image.length} bytes`)
