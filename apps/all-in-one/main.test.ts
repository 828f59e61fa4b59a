import assert from 'node:assert/strict'
import { basename, join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { inFolder, spawnMain, temporaryFolder } from '../../tests/e2e/program.ts'

test('does not start on all addresses without authentication, and says what to do', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.after(remove)
  const program = spawnMain('apps/all-in-one', { ...inFolder(folder), HOST: '0.0.0.0' })
  assert.equal((await program.ended).code, 2)
  assert.match(program.output(), /HOST=0\.0\.0\.0 .*set AUTH=jwt .*or AUTH_OFF_ANYWHERE=true/)
})

describe('the banner of npm start', () => {
  const bannerWith = async (t: TestContext, folder: string, settings: Record<string, string>) => {
    const program = spawnMain('apps/all-in-one', { ...inFolder(folder), ...settings })
    t.after(() => program.kill('SIGKILL'))
    await program.ready
    program.kill('SIGTERM')
    await program.ended
    return program.output()
  }

  test('names the folder that letters are written to', async (t) => {
    const { folder, remove } = await temporaryFolder()
    t.after(remove)
    const banner = await bannerWith(t, folder, {})
    assert.match(banner, new RegExp(`^ {2}letters +in .*${join(basename(folder), 'mail')}$`, 'm'))
  })

  test('names the mail server that letters are sent to, without the password', async (t) => {
    const { folder, remove } = await temporaryFolder()
    t.after(remove)
    const banner = await bannerWith(t, folder, { SMTP_URL: 'smtp://me:canary@127.0.0.1:9' })
    assert.match(banner, /^ {2}letters +to the mail server 127\.0\.0\.1:9$/m)
    assert.doesNotMatch(banner, /canary/)
  })
})
