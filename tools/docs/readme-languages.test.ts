import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { root } from '../repository-files.ts'
import { PAGES, pathOf, readPage } from './pages.ts'
import { RUSSIAN } from './russian.ts'

/** A page for users is one document in two languages: everything except the prose is the same in both. */
const FENCE = /^```.*?^```$/gms
const fencesIn = (text: string) => text.match(FENCE) ?? []
const proseOf = (text: string) => text.replace(FENCE, '')
/** Inline code, which is the same in both languages. */
const codeIn = (text: string) => text.match(/`[^`]+`/g) ?? []

const MAX_README_LINES = 300

for (const page of PAGES) {
  const [english, russian] = [readPage(page, 'en'), readPage(page, 'ru')]

  describe(`${page}.md and ${page}.ru.md`, () => {
    test('have the same commands and responses', () => {
      assert.deepEqual(fencesIn(russian), fencesIn(english))
    })

    test('have headings of the same levels in the same order', () => {
      assert.deepEqual(outlineOf(russian), outlineOf(english))
    })

    test('have tables of the same shape, with the same code in each row', () => {
      assert.deepEqual(tablesIn(russian), tablesIn(english))
    })

    test('show the same pictures and link to the same places', () => {
      const own = [pathOf(page, 'en'), pathOf(page, 'ru')].map((path) => basename(path))
      const targets = (text: string) => targetsIn(text).filter((target) => !own.includes(target))
      assert.deepEqual(targets(russian).map(inEnglish), targets(english))
    })

    test('have the same code, in sections that correspond', () => {
      const codes = (text: string) => sectionsOf(text).map((section) => codeIn(section).sort())
      assert.deepEqual(codes(russian), codes(english))
    })

    test('link to each other in their first lines', () => {
      const first = (text: string) => text.slice(0, 200)
      assert.ok(first(english).includes(`](${basename(pathOf(page, 'ru'))})`))
      assert.ok(first(russian).includes(`](${basename(pathOf(page, 'en'))})`))
    })

    test('link to pages in their own language', () => {
      const foreign = targetsIn(russian)
        .filter((target) => target.endsWith('.md') && target !== basename(pathOf(page, 'en')))
        .filter((target) =>
          existsSync(join(root, dirname(page), target.replace(/\.md$/, '.ru.md'))),
        )
      assert.deepEqual(foreign, [])
    })

    test('have Russian prose in the Russian page', () => {
      const paragraphs = proseOf(russian)
        .replace(/^- .*(\n {2}.*)*$|^(\||#|!|<!--|\[).*$/gm, '')
        .split(/\n\n+/)
        .filter((paragraph) => paragraph.trim() !== '')
      assert.ok(paragraphs.length > 0)
      assert.deepEqual(
        paragraphs.filter((paragraph) => !/[а-яё]{3}/i.test(paragraph)),
        [],
      )
    })
  })
}

test('the READMEs are short', () => {
  for (const language of ['en', 'ru'] as const) {
    const lines = readPage('README', language).split('\n').length - 1
    assert.ok(lines <= MAX_README_LINES, `${pathOf('README', language)} has ${lines} lines`)
  }
})

test('every translation is used in the Russian pages', () => {
  const russian = PAGES.map((page) => readPage(page, 'ru')).join('\n')
  // A sentence may contain {figures}.
  const isThere = (words: string) => words.split(/\{\w+\}/).every((part) => russian.includes(part))
  const stale = Object.entries(RUSSIAN).filter(([, words]) => !isThere(words))
  assert.deepEqual(stale, [])
})

/** The level of each heading, and its number if it has one. */
function outlineOf(text: string): string[] {
  return (proseOf(text).match(/^#+ .*$/gm) ?? []).map((heading) => {
    const [, level = '', title = ''] = /^(#+) (.*)$/.exec(heading) ?? []
    const number = /^\d+\./.exec(title)?.[0] ?? ''
    return `${level} ${number}`.trimEnd()
  })
}

const sectionsOf = (text: string) => proseOf(text).split(/^#+ .*$/m)

/** For each row of each table, the number of cells and the code in them. */
function tablesIn(text: string): string[][] {
  const tables = proseOf(text).match(/(?:^\|.*\n)+/gm) ?? []
  return tables.map((table) =>
    table
      .trim()
      .split('\n')
      .map((row) => `${row.split(/(?<!\\)\|/).length} ${codeIn(row).join(' ')}`),
  )
}

/** Link targets without their anchors, which differ by language; docs.test.ts checks the anchors. */
function targetsIn(text: string): string[] {
  return [...proseOf(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) =>
    (target as string).replace(/#.*$/, ''),
  )
}

const inEnglish = (target: string) => target.replace(/\.ru\.md$/, '.md')
