import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from './data-folder.ts'

/** After this time a paused process is resumed even if the backup was killed. */
const RESUME_AFTER_SECONDS = 120
const POLL_MS = 5

/**
 * Runs the work while another process is paused by SIGSTOP, and then resumes that process even if the work
 * fails. Clients of the process wait while it is paused.
 */
export async function whilePaused<T>(pid: number, work: () => Promise<T>): Promise<T> {
  if (process.platform !== 'linux') {
    throw new UsageError('stop the program first: a running one can be backed up on Linux only')
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

/** Starts a separate process that resumes the paused one, because this process may be killed. */
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
