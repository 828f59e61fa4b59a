import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { RUSSIAN } from './docs-russian.ts'
import { root } from './repository-files.ts'

/** The README is one document in two languages: whatever is not prose is the same in both. */
const [english, russian] = ['README.md', 'README.ru.md'].map((path) =>
  readFileSync(root + path, 'utf8'),
) as [string, string]

const FENCE = /^```.*?^```$/gms
const fencesIn = (text: string) => text.match(FENCE) ?? []
const proseOf = (text: string) => text.replace(FENCE, '')
/** Names that are code in any language; the values between them may be words. */
const codeIn = (text: string) => text.match(/`[^`]+`/g) ?? []

describe('README.md and README.ru.md', () => {
  test('have the same commands and answers', () => {
    assert.deepEqual(fencesIn(russian), fencesIn(english))
  })

  test('have headings of the same levels in the same order', () => {
    assert.deepEqual(outlineOf(russian), outlineOf(english))
  })

  test('have tables of the same shape, with the same code in each row', () => {
    assert.deepEqual(tablesIn(russian), tablesIn(english))
    assert.ok(tablesIn(english).length > 10)
  })

  test('show the same pictures and lead to the same places', () => {
    assert.deepEqual(targetsIn(russian), targetsIn(english))
  })

  test('say the same of code, in sections that correspond', () => {
    const codes = (text: string) => sectionsOf(text).map((section) => codeIn(section).sort())
    assert.deepEqual(codes(russian), codes(english))
  })

  test('lead to each other', () => {
    assert.match(english.slice(0, 200), /\]\(README\.ru\.md\)/)
    assert.match(russian.slice(0, 200), /\]\(README\.md\)/)
  })
})

test('the operations pages have the same commands, headings and tables', () => {
  const [inEnglish, inRussian] = ['docs/operations.md', 'docs/operations.ru.md'].map((path) =>
    readFileSync(root + path, 'utf8'),
  ) as [string, string]
  assert.deepEqual(fencesIn(inRussian), fencesIn(inEnglish))
  assert.deepEqual(outlineOf(inRussian), outlineOf(inEnglish))
  assert.deepEqual(tablesIn(inRussian), tablesIn(inEnglish))
})

test('README.ru.md needs every word that its tables have in Russian', () => {
  // Between the words of a sentence may be {figures}.
  const isThere = (words: string) => words.split(/\{\w+\}/).every((part) => russian.includes(part))
  const stale = Object.entries(RUSSIAN).filter(([, words]) => !isThere(words))
  assert.deepEqual(stale, [])
})

test('README.ru.md is in Russian', () => {
  const paragraphs = proseOf(russian)
    .replace(/^(\||#|!|<!--|\[|- ).*$/gm, '')
    .split(/\n\n+/)
    .filter((paragraph) => paragraph.trim() !== '')
  assert.ok(paragraphs.length > 50)
  assert.deepEqual(
    paragraphs.filter((paragraph) => !/[а-яё]{3}/i.test(paragraph)),
    [],
  )
})

/** Of each heading its level, and its number where it has one. */
function outlineOf(text: string): string[] {
  return (proseOf(text).match(/^#+ .*$/gm) ?? []).map((heading) => {
    const [, level = '', title = ''] = /^(#+) (.*)$/.exec(heading) ?? []
    const number = /^\d+\./.exec(title)?.[0] ?? ''
    return `${level} ${number}`.trimEnd()
  })
}

const sectionsOf = (text: string) => proseOf(text).split(/^#+ .*$/m)

/** Of each table its rows, of each row the number of cells and the code in them. */
function tablesIn(text: string): string[][] {
  const tables = proseOf(text).match(/(?:^\|.*\n)+/gm) ?? []
  return tables.map((table) =>
    table
      .trim()
      .split('\n')
      .map((row) => `${row.split(/(?<!\\)\|/).length} ${codeIn(row).join(' ')}`),
  )
}

/** Anchors have the words of their language; that they lead somewhere is checked elsewhere. */
function targetsIn(text: string): string[] {
  return [...proseOf(text).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target as string)
    .filter((target) => !/^README(\.ru)?\.md$/.test(target))
    .map((target) => (target.startsWith('#') ? '#' : target))
}
