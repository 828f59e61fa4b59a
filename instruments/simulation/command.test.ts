import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'

test('prints the error of a failed command with all its causes, and exits with 2', async () => {
  const program = `
    import { runCommand } from './instruments/simulation/command.ts'
    await runCommand('tool', 'help', () => ({}), async () => {
      throw new Error('seed 7 cannot run', { cause: new Error('the disk is full') })
    })`
  const args = ['--input-type=module', '--eval', program]
  const run = promisify(execFile)(process.execPath, args)
  await assert.rejects(run, ({ code, stderr }: { code: number; stderr: string }) => {
    assert.equal(code, 2)
    assert.match(stderr, /^tool: Error: seed 7 cannot run/)
    assert.match(stderr, /cause.*the disk is full/)
    return true
  })
})
