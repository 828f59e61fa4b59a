import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { Client, escapeIdentifier, escapeLiteral } from 'pg'

/** A disk of our own, so small that it can be filled: a tmpfs, which Linux lets root mount. */
export interface SmallDisk {
  readonly folder: string
  /** Leaves no byte. */
  fill(): void
  /** Gives back what `fill` took. */
  free(): void
  close(): void
}

const SIZE_MB = 256
/** The last bytes are taken in pieces as small as a block. */
const PIECES_BYTES = [1 << 20, 4_096]

/** Mounts one; the sentence that says why it cannot be, where that is so. */
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

/** Whatever still has a file open there keeps it until then; the mount disappears at once. */
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
    for (const size of PIECES_BYTES) {
      const piece = Buffer.alloc(size)
      while (isWritten(handle, piece));
    }
  } finally {
    closeSync(handle)
  }
}

function isWritten(handle: number, piece: Buffer): boolean {
  try {
    return writeSync(handle, piece) === piece.length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false
    throw error
  }
}

/**
 * Moves a database to the disk; nobody may be connected to it. Its log stays with that of the server, so
 * a full disk refuses what needs more room in its tables, and the server itself goes on.
 */
export async function moveDatabase(
  databaseUrl: string,
  disk: SmallDisk,
  cluster: string,
): Promise<void> {
  const tables = join(disk.folder, 'tables')
  const { uid, gid } = statSync(cluster)
  mkdirSync(tables, { mode: 0o700 })
  spawnSync('chown', [`${uid}:${gid}`, tables])
  const url = new URL(databaseUrl)
  const name = url.pathname.slice(1)
  // Of the role that makes databases; this takes the superuser, whose password is the same.
  url.username = 'postgres'
  url.pathname = '/postgres'
  const client = new Client({ connectionString: url.href })
  await client.connect()
  try {
    await client.query(`create tablespace small location ${escapeLiteral(tables)}`)
    await client.query(`alter database ${escapeIdentifier(name)} set tablespace small`)
  } finally {
    await client.end()
  }
}
