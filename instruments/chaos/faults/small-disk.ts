import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { Client, escapeIdentifier, escapeLiteral } from 'pg'
import { databaseUrl, superuserUrl } from '../../../tools/servers/postgres.ts'

/** A disk small enough to be filled quickly: a tmpfs, which only root can mount, on Linux. */
export interface SmallDisk {
  readonly folder: string
  /** Fills the disk to the last byte. */
  fill(): void
  /** Releases the space that `fill` took. */
  free(): void
  close(): void
}

const SIZE_MB = 256
/** The bulk is written in large chunks, the rest block by block. */
const CHUNK_BYTES = [1 << 20, 4_096]

/** Mounts a small disk; returns the reason as a sentence if that is not possible. */
export function mountSmallDisk(folder: string): SmallDisk | string {
  if (process.platform !== 'linux') return 'only Linux mounts a tmpfs'
  if (process.getuid?.() !== 0) return 'only root may mount a tmpfs'
  mkdirSync(folder, { recursive: true })
  const options = `size=${SIZE_MB}m,mode=755`
  const { status, stderr, error } = spawnSync(
    'mount',
    ['-t', 'tmpfs', '-o', options, 'tmpfs', folder],
    { encoding: 'utf8' },
  )
  if (status !== 0) return `a tmpfs cannot be mounted: ${error?.message ?? stderr.trim()}`
  const guard = unmountAfterUs(folder)
  const ballast = join(folder, 'ballast')
  return {
    folder,
    fill: () => fill(ballast),
    free: () => rmSync(ballast, { force: true }),
    close() {
      spawnSync('umount', lazily(folder))
      guard.end()
    },
  }
}

/**
 * The mount disappears at once, but a process can use the files that it has open on the disk until it closes
 * them.
 */
const lazily = (folder: string) => ['--lazy', folder]

/**
 * Unmounts the disk when this process has ended, even by SIGKILL: the kernel then closes our end of the pipe that the
 * shell reads. Detached, so that Ctrl-C does not end the shell first.
 */
function unmountAfterUs(folder: string): Writable {
  const guard = spawn('/bin/sh', ['-c', 'read -r _; umount "$@"', 'guard', ...lazily(folder)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  guard.unref()
  return guard.stdin
}

function fill(file: string): void {
  const handle = openSync(file, 'a')
  try {
    for (const size of CHUNK_BYTES) {
      const chunk = Buffer.alloc(size)
      while (isWritten(handle, chunk));
    }
  } finally {
    closeSync(handle)
  }
}

function isWritten(handle: number, chunk: Buffer): boolean {
  try {
    return writeSync(handle, chunk) === chunk.length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false
    throw error
  }
}

/**
 * Moves a database, which must have no connections, to the disk. The write-ahead log stays where it is, so if
 * the disk is full, only writes that make a table grow fail, and the server keeps running.
 */
export async function moveDatabase(
  serviceUrl: string,
  disk: SmallDisk,
  cluster: string,
): Promise<void> {
  const tables = join(disk.folder, 'tables')
  const { uid, gid } = statSync(cluster)
  mkdirSync(tables, { mode: 0o700 })
  spawnSync('chown', [`${uid}:${gid}`, tables])
  const name = new URL(serviceUrl).pathname.slice(1)
  // Only the superuser may create a tablespace.
  const connectionString = superuserUrl(databaseUrl(serviceUrl, 'postgres'))
  const client = new Client({ connectionString })
  await client.connect()
  try {
    await client.query(`create tablespace small location ${escapeLiteral(tables)}`)
    await client.query(`alter database ${escapeIdentifier(name)} set tablespace small`)
  } finally {
    await client.end()
  }
}
