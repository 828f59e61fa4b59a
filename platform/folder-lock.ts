import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

/**
 * Holds a folder for one owner, across processes and within this one. SQLite's lock on an empty
 * file is the kernel's, so it goes with its process, however that dies: there are no stale locks.
 * Throws an Error that names the holder's process id.
 */
export function lockFolder(folder: string): { release(): void } {
  const holderFile = join(folder, 'trifold.pid')
  const lock = new DatabaseSync(join(folder, 'trifold.lock'), { timeout: 0 })
  try {
    lock.exec('pragma locking_mode = exclusive; begin exclusive')
  } catch (cause) {
    lock.close()
    if ((cause as { errcode?: number }).errcode !== sqliteBusy) throw cause
    throw new Error(`${folder} is in use by another Trifold process (pid ${holder(holderFile)})`, {
      cause,
    })
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
function holder(file: string): string {
  try {
    return readFileSync(file, 'utf8') || 'unknown'
  } catch {
    return 'unknown'
  }
}
