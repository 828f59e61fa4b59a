import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export class FolderInUse extends Error {
  /** The id of the process that holds the lock, if known. */
  readonly pid: number | undefined

  constructor(folder: string, pid: number | undefined, cause: unknown) {
    super(`${folder} is in use by another Trifold process (pid ${pid ?? 'unknown'})`, { cause })
    this.pid = pid
  }
}

/**
 * Locks a folder for one owner, across processes and within this process. The lock is SQLite's lock on an
 * empty file. The kernel releases it however the process ends, so there are no stale locks. Throws
 * FolderInUse if the folder is already locked.
 */
export function lockFolder(folder: string): { release(): void } {
  const holderFile = join(folder, 'trifold.pid')
  const lock = new DatabaseSync(join(folder, 'trifold.lock'), { timeout: 0 })
  try {
    lock.exec('pragma locking_mode = exclusive; begin exclusive')
  } catch (cause) {
    lock.close()
    if ((cause as { errcode?: number }).errcode !== SQLITE_BUSY) throw cause
    throw new FolderInUse(folder, holder(holderFile), cause)
  }
  writeFileSync(holderFile, String(process.pid))
  return {
    release() {
      if (lock.isOpen) lock.close()
    },
  }
}

const SQLITE_BUSY = 5

/**
 * The id of the process that holds the lock. That process writes its id just after it takes the lock, so the
 * id may be missing.
 */
function holder(file: string): number | undefined {
  try {
    return Number(readFileSync(file, 'utf8')) || undefined
  } catch {
    return undefined
  }
}
