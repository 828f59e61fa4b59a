import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export class FolderInUse extends Error {
  /** The process that holds the folder, where it is known. */
  readonly pid: number | undefined

  constructor(folder: string, pid: number | undefined, cause: unknown) {
    super(`${folder} is in use by another Trifold process (pid ${pid ?? 'unknown'})`, { cause })
    this.pid = pid
  }
}

/**
 * Holds a folder for one owner, across processes and within this one. SQLite's lock on an empty
 * file is the kernel's, so it goes with its process, however that dies: there are no stale locks.
 * Throws FolderInUse where another process holds it.
 */
export function lockFolder(folder: string): { release(): void } {
  const holderFile = join(folder, 'trifold.pid')
  const lock = new DatabaseSync(join(folder, 'trifold.lock'), { timeout: 0 })
  try {
    lock.exec('pragma locking_mode = exclusive; begin exclusive')
  } catch (cause) {
    lock.close()
    if ((cause as { errcode?: number }).errcode !== sqliteBusy) throw cause
    throw new FolderInUse(folder, holder(holderFile), cause)
  }
  writeFileSync(holderFile, String(process.pid))
  return {
    release() {
      if (lock.isOpen) lock.close()
    },
  }
}

const sqliteBusy = 5

/** The holder writes its id just after it took the lock, so it may be missing for a moment. */
function holder(file: string): number | undefined {
  try {
    return Number(readFileSync(file, 'utf8')) || undefined
  } catch {
    return undefined
  }
}
