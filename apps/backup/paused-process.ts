import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from './data-folder.ts'

/** A process that is still paused after this long is resumed, even if the backup was killed. */
const RESUME_AFTER_SECONDS = 120
const POLL_MS = 5

/**
 * Runs the work while another process is paused by SIGSTOP, and resumes that process afterwards in any case.
 * Clients of the process wait meanwhile.
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

/** A process of its own, because this one may be killed. */
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
