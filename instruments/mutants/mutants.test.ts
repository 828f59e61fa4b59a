import assert from 'node:assert/strict'
import { stripTypeScriptTypes } from 'node:module'
import { describe, test } from 'node:test'
import { MUTANTS } from './all-mutants.ts'
import { hunt, runUnchanged } from './hunt.ts'
import type { Mutant } from './mutant.ts'
import { edited, editedFiles, plant } from './plant.ts'

const TIMEOUT = { timeout: 300_000 }

describe('mutants', () => {
  for (const { name, edits } of MUTANTS) {
    test(`"${name}" fits the current source`, () => {
      for (const text of editedFiles(edits).values()) {
        assert.doesNotThrow(() => stripTypeScriptTypes(text))
      }
    })
  }

  test('have unique names', () => {
    assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length)
  })
})

describe('an edit', () => {
  const edit = { file: 'a.ts', find: 'two', replace: '$& and more' }

  test('inserts its replacement literally', () => {
    assert.equal(edited('one two three', edit), 'one $& and more three')
  })

  test('throws if its text is missing or occurs twice', () => {
    assert.throws(() => edited('one', edit), /a\.ts has this text 0 times, not once: two/)
    assert.throws(() => edited('two two', edit), /a\.ts has this text 2 times/)
  })

  test('in a file that is never loaded fails the assertion', () => {
    const assertLoaded = plant([
      { file: 'apps/demo/main.ts', find: 'const USAGE', replace: 'const HELP' },
    ])
    assert.throws(assertLoaded, /never loaded: .*apps\/demo\/main\.ts/)
  })
})

test('finds a planted bug; the same runs without the bug show no violation', TIMEOUT, async () => {
  const mutant = MUTANTS.find(({ name }) => name === 'refund without a ledger entry') as Mutant
  const { found, runs } = await hunt(mutant, mutant.seeds)
  assert.match(
    found?.violations[0]?.sentence ?? 'not found',
    /REFUNDED, with 1 debits and 0 refunds/,
  )
  for await (const { violations } of runUnchanged(runs)) assert.deepEqual(violations, [])
})
