import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lockFolder } from './folder-lock.ts'

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'trifold-lock-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('a folder has one owner at a time in this process', (t) => {
  const folder = temporaryFolder(t)
  const lock = lockFolder(folder)
  assert.throws(() => lockFolder(folder), {
    message: `${folder} is in use by another Trifold process (pid ${process.pid})`,
  })
  lock.release()
  lock.release()
  lockFolder(folder).release()
})

test('a folder is locked while another process holds the lock, and free once that process has been killed', async (t) => {
  const folder = temporaryFolder(t)
  const module = new URL('./folder-lock.ts', import.meta.url).href
  const script = `
    import { lockFolder } from ${JSON.stringify(module)}
    lockFolder(${JSON.stringify(folder)})
    console.log('locked')
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  assert.throws(() => lockFolder(folder), {
    message: `${folder} is in use by another Trifold process (pid ${child.pid})`,
  })
  child.kill('SIGKILL')
  await once(child, 'exit')
  lockFolder(folder).release()
})

test('locking a missing folder is a different error', (t) => {
  assert.throws(() => lockFolder(join(temporaryFolder(t), 'missing')), /unable to open/)
})
