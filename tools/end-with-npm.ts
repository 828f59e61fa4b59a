import { readFileSync } from 'node:fs'

const LOOK_EVERY_MS = 500
const SHELLS = /^(ba|da|k|z)?sh$/

/**
 * Ends this process, by SIGTERM, when the npm that runs it as a script has died without a word. Does
 * nothing for a process that was started otherwise: that one may outlive who started it.
 */
export function endWithNpm(): void {
  if (!process.env.npm_lifecycle_event) return
  const npm = findNpm()
  const timer = setInterval(() => {
    if (findNpm() === npm) return
    clearInterval(timer)
    process.kill(process.pid, 'SIGTERM')
  }, LOOK_EVERY_MS)
  timer.unref()
}

/** Some shells stay between npm and its script, others become the script. */
function findNpm(): number {
  const parent = process.ppid
  try {
    const name = readFileSync(`/proc/${parent}/comm`, 'utf8').trim()
    if (!SHELLS.test(name)) return parent
    const status = readFileSync(`/proc/${parent}/status`, 'utf8')
    return Number(/^PPid:\s*(\d+)/m.exec(status)?.[1] ?? parent)
  } catch {
    // Not every system tells.
    return parent
  }
}
