import assert from 'node:assert/strict'
import { stripTypeScriptTypes } from 'node:module'
import { describe, test } from 'node:test'
import { MUTANTS } from './all-mutants.ts'
import { hunt, runUnchanged } from './hunt.ts'
import type { Mutant } from './mutant.ts'
import { edited, editedFiles, plant } from './plant.ts'

const TIMEOUT = { timeout: 300_000 }

describe('the mutants', () => {
  for (const { name, edits } of MUTANTS) {
    test(`"${name}" can be planted in the source as it is today`, () => {
      for (const text of editedFiles(edits).values()) {
        assert.doesNotThrow(() => stripTypeScriptTypes(text))
      }
    })
  }

  test('have names of their own', () => {
    assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length)
  })
})

describe('an edit', () => {
  const edit = { file: 'a.ts', find: 'two', replace: '$& and more' }

  test('puts its text in the place of the other, as it is', () => {
    assert.equal(edited('one two three', edit), 'one $& and more three')
  })

  test('is refused where its text is missing, or is there twice', () => {
    assert.throws(() => edited('one', edit), /a\.ts has 0 places, not one, that read: two/)
    assert.throws(() => edited('two two', edit), /a\.ts has 2 places/)
  })

  test('of a file that is never loaded is noticed', () => {
    const assertLoaded = plant([
      { file: 'apps/demo/main.ts', find: 'const USAGE', replace: 'const HELP' },
    ])
    assert.throws(assertLoaded, /never loaded: .*apps\/demo\/main\.ts/)
  })
})

test(
  'a bug that is planted is found, and without it the same seed is not violated',
  TIMEOUT,
  async () => {
    const mutant = MUTANTS.find(({ name }) => name === 'refund without a ledger entry') as Mutant
    const { found, runs } = await hunt(mutant, mutant.seeds)
    assert.match(
      found?.violations[0]?.sentence ?? 'not found',
      /REFUNDED, with 1 debits and 0 refunds/,
    )
    for await (const { violations } of runUnchanged(runs)) assert.deepEqual(violations, [])
  },
)
