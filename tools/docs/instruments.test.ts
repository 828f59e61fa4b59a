import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { instrumentsTable } from './instruments.ts'
import { readResults, recordResult } from './results.ts'
import { RUSSIAN } from './russian.ts'

test('a recorded run replaces the entry of its instrument, and appears in the table with its date', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'trifold-results-'))
  try {
    const file = join(folder, 'results.json')
    const before = readResults()
    await writeFile(file, JSON.stringify(before))
    const figures = { seeds: 12_345, styles: 4, violations: 2 }
    recordResult('simulate', figures, new Date('2031-02-03T23:59:59Z'), file)
    const results = readResults(file)
    assert.deepEqual(results, { ...before, simulate: { date: '2031-02-03', ...figures } })
    const english = instrumentsTable(results, (text) => text, 'en')
    assert.match(english, /2031-02-03: 12,345 seeds in each of 4 styles, 2 violations/)
    assert.doesNotMatch(english, /[{}]|undefined/)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('every sentence of the table has a Russian translation', () => {
  const missing: string[] = []
  const say = (text: string) => {
    if (!(text in RUSSIAN)) missing.push(text)
    return RUSSIAN[text] ?? text
  }
  assert.doesNotMatch(instrumentsTable(readResults(), say, 'ru'), /[{}]|undefined/)
  assert.deepEqual(missing, [])
})
