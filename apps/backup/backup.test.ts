import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { appendFile, cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { assertInvariantsHold } from '../../tests/e2e/invariants.ts'
import { assertSettled, PATIENT, startBurst } from '../../tests/e2e/order-burst.ts'
import { inFolder, spawnMain, startProgram, temporaryFolder } from '../../tests/e2e/program.ts'

const { folder, remove } = await temporaryFolder()
after(remove)
const live = join(folder, 'live')

describe('a backup', () => {
  const kept = join(folder, 'kept')

  test('of a running program contains every order that was acknowledged before the backup', async (t) => {
    const program = spawnMain('apps/all-in-one', { ...inFolder(live), ...PATIENT })
    t.after(() => program.kill('SIGKILL'))
    const client = await program.ready
    const burst = await startBurst(client)
    await burst.answered(1)
    const sent = burst.sent.map((one) => ({ ...one }))
    const { code, output } = await run('backup', '--data', live, '--to', kept)
    assert.equal(code, 0, output)
    assert.match(output, /\d+ files, [\d.]+ MB, as of .*; the program was paused for \d+ ms/)
    // The program continues after the pause.
    await burst.answered(2)
    program.kill('SIGTERM')
    await Promise.all([program.ended, burst.over])

    const restored = join(folder, 'restored')
    const { code: restoring, output: said } = await run(
      'restore',
      '--from',
      kept,
      '--data',
      restored,
    )
    assert.equal(restoring, 0, said)
    const again = await startProgram({ DATA_DIR: restored })
    t.after(() => again.close())
    await assertSettled(again, { ...burst, sent })
    await assertInvariantsHold(again)
  })

  test('of a stopped program needs no pause', async () => {
    const { code, output } = await run('backup', '--data', live, '--to', join(folder, 'stopped'))
    assert.equal(code, 0, output)
    assert.doesNotMatch(output, /paused/)
  })

  test('never overwrites another backup, and requires a data folder', async () => {
    const twice = await run('backup', '--data', live, '--to', kept)
    assert.equal(twice.code, 2)
    assert.match(twice.output, /already exists/)
    const empty = await run('backup', '--data', folder, '--to', join(folder, 'other'))
    assert.equal(empty.code, 2)
    assert.match(empty.output, /is not a data folder/)
  })

  test('replaces a data folder only with --replace, and keeps the old folder under another name', async () => {
    const target = join(folder, 'target')
    await mkdir(target)
    await writeFile(join(target, 'precious'), '')
    const refused = await run('restore', '--from', kept, '--data', target)
    assert.equal(refused.code, 2)
    assert.deepEqual(await readdir(target), ['precious'])
    const { code, output } = await run('restore', '--from', kept, '--data', target, '--replace')
    assert.equal(code, 0, output)
    const aside = (await readdir(folder)).find((name) => name.startsWith('target.before-'))!
    assert.deepEqual(await readdir(join(folder, aside)), ['precious'])
  })

  for (const [damage, inflict, message] of [
    [
      'a changed file',
      (backup: string) => appendFile(join(backup, 'database/pgdata/PG_VERSION'), ' '),
      /PG_VERSION has changed/,
    ],
    [
      'a missing file',
      (backup: string) => rm(join(backup, 'database/pgdata/global/pg_control')),
      /pg_control is missing/,
    ],
    [
      'a file too many',
      (backup: string) => writeFile(join(backup, 'database/extra'), ''),
      /extra is not in its manifest/,
    ],
    [
      'no manifest',
      (backup: string) => rm(join(backup, 'manifest.json')),
      /is not a complete backup/,
    ],
  ] as const) {
    test(`with ${damage} is not restored`, async () => {
      const damaged = join(folder, damage)
      await cp(kept, damaged, { recursive: true })
      await inflict(damaged)
      const target = join(folder, `from ${damage}`)
      const { code, output } = await run('restore', '--from', damaged, '--data', target)
      assert.equal(code, 2)
      assert.match(output, message)
      await assert.rejects(readdir(target))
    })
  }
})

test('a data folder in use is not replaced', async (t) => {
  const program = spawnMain('apps/all-in-one', inFolder(live))
  t.after(async () => {
    program.kill('SIGKILL')
    await program.ended
  })
  await program.ready
  const kept = join(folder, 'kept')
  const { code, output } = await run('restore', '--from', kept, '--data', live, '--replace')
  assert.equal(code, 1)
  assert.match(output, /in use by another Trifold process/)
})

function run(command: 'backup' | 'restore', ...args: string[]) {
  const main = fileURLToPath(new URL(`../${command}/main.ts`, import.meta.url))
  return new Promise<{ code: number; output: string }>((resolve) => {
    execFile(process.execPath, [main, ...args], (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr })
    })
  })
}
