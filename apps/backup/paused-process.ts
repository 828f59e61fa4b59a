import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from './data-folder.ts'

/** A paused process is resumed after this number of seconds even if the backup was killed. */
const RESUME_AFTER_SECONDS = 120
const POLL_MS = 5

/**
 * Pauses another process with SIGSTOP, does the work, and then resumes the process even if the work fails.
 * The clients of the process wait while it is paused.
 */
export async function whilePaused<T>(pid: number, work: () => Promise<T>): Promise<T> {
  if (process.platform !== 'linux') {
    throw new UsageError('stop the program first: a running program can be backed up only on Linux')
  }
  const guard = resumeLater(pid)
  try {
    process.kill(pid, 'SIGSTOP')
    while (!(await isStopped(pid))) await sleep(POLL_MS)
    return await work()
  } finally {
    process.kill(pid, 'SIGCONT')
    guard.kill()
  }
}

/**
 * Starts a helper process that resumes the paused process later, because this process may be killed before it
 * can.
 */
function resumeLater(pid: number): ChildProcess {
  const command = `sleep ${RESUME_AFTER_SECONDS}; kill -CONT ${pid}`
  const guard = spawn('/bin/sh', ['-c', command], { detached: true, stdio: 'ignore' })
  guard.unref()
  return guard
}

async function isStopped(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return /^State:\s*T/m.test(status)
}
